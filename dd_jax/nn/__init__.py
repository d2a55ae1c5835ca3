"""Layers that know no model: attention and caches, norms and modulation, convolutions, codebooks, products.

Parameters are named as published files need them. May import `system` (constraints on sharding, errors).
Start with `layers`.
"""
