"""LlamaGen: raster order, a GPT over a vector-quantised grid."""
