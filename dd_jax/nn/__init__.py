"""Layers that both model families share."""
