"""The loop that tokenizer, teacher, classifier and student share, and what it tells while it runs.

`loop` holds the recipe, the state and resuming; `log` progress, curves and what broke; `throughput` tokens/s and
MFU; `waiting` whether the input keeps up; `preview` pictures of fixed noises. It knows no stage and no family. May
import `data`, `method` and below. Start with `loop`.
"""
