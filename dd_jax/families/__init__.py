"""What differs between model families, a folder each: trunk, teacher, tokenizer, and how a config builds them.

`guided` (classifier-free guidance) and `tokenizer` (the care of a codebook) are shared. One family knows nothing of
another; all else follows from the `Layout` of its steps. May import `method`, `nn`, `system`.
Start with `llamagen/teacher`, beside `method/interfaces`.
"""
