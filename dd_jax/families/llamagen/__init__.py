"""Raster order, as in LlamaGen: one token a step, row by row.

`backbone` is the transformer of teacher and student, `teacher` its cache and guidance, `caption` reads captions,
`tokenizer` is the VQ autoencoder, `build` makes them from a config. Start with `backbone`.
"""
