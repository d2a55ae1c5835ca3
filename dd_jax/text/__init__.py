"""Captions as conditions: files of them, cleaning, the T5 encoder, and its features, kept or on the fly.

`captions` is what the rest sees, one object with all of it. May import `data`, `nn`, `system`.
Start with `captions`.
"""
