"""Released LlamaGen GPT and LlamaGen-DD files: which key becomes which parameter.

Teachers: huggingface FoundationVision/LlamaGen, `c2i_B_256.pt`, `c2i_L_256.pt`. Students: microsoft/distilled_decoding,
`LlamaGen-DD/llamagen-{B,L}.pt`, weights under "ema".
"""
