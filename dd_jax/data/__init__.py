"""What goes in and what comes out: pictures, labels and captions as conditions, pair sets, sample sets.

`bundled` and `pictures` are read for training, `pairset` and `sampleset` are written by stages, resumable, with
manifests. May import `method` (its `Cond`) and `system`. Start with `pairset`.
"""
