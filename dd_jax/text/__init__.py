"""Captions: cleaning, tokens, the T5 encoder, and its features on the fly or from a cache."""
