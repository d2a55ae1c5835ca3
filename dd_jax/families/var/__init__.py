"""Next scale, as in VAR: maps of growing size, each predicted whole from the sum of those before.

`backbone` is the transformer of teacher and student, `quantizer` the residual pyramid, `teacher` its running map,
cache and guidance, `tokenizer` the autoencoder, `build` makes them from a config. Start with `quantizer`.
"""
