"""Scores of images: Frechet distances, precision and recall, Inception, LPIPS, CLIP, and a classifier's view.

`score` and `reference` are commands of their own for anyone's samples. May import `data.images`, `method`, `nn` and
`system`. Start with `score`.
"""
