"""Your own pictures and what is said of them, 64 px colour, raster order: a caption in, 64 tokens, one a step.

    python -m dd_jax.main --config=configs/own_t2i.py --workdir=runs/own_t2i --config.data.name=folder:PICTURES

PICTURES has `a.txt` beside `a.jpg`, or a `metadata.csv` or `metadata.jsonl` (docs/own_data.md has what else is read). A
tiny T5 learns to read their words with the teacher. `:128` and `:256` after the file's name are for a GPU and read by
flan-t5-xl: `python -m port_weights flan_t5_xl --out weights`, then --config.weights.text=weights/flan_t5_xl.

Otherwise as `own_llamagen.py`, in codes, lengths and hours.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common, llamagen, own, own_llamagen


def get_config(option: str = "64") -> ConfigDict:
    """LlamaGen-like; `option` is the side in px, "64", "128" or "256"."""
    if option not in own.SIZES:
        raise ValueError(f"own_t2i.py:{option}: choose {', '.join(own.SIZES)}")
    config = own_llamagen.get_config(option)
    config.data.captions = "any"
    config.baselines.onestep = False  # its marginals need many pairs of each caption
    if option == "64":
        sizes = {"width": 64, "depth": 2, "heads": 4, "head_dim": 16, "hidden": 128, "tokens": 16}
        config.text = common.text(words=True, dtype="float32", **sizes)
        config.model.update({"cond": sizes["tokens"], "caption_dim": sizes["width"]})
        config.pretrain.teacher.word_dropout = 0.1
    else:
        config.text = common.text(depth=24)
        config.model.update(llamagen.CAPTION)
    return config
