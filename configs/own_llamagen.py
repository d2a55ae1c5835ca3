"""Your own pictures, 64 px colour, raster order: 64 tokens, one a step.

    python -m dd_jax.main --config=configs/own_llamagen.py --workdir=runs/own --config.data.name=folder:PICTURES

`:128`, `:256` and LPIPS: as `own_var.py` says. Published models that learn other classes: `:b` and `:l`, and at 384 px
`:b_384` to `:3b_384`.

At 64 px the student has a flow head and learns on-policy too (`mnist_flow.py`). Two CPU cores with much other work
beside: 79 minutes for 4,495 pictures (docs/own_data.md has the picture and the figures).
One A100, by FLOPs at 40 % of its peak, not measured: 128 px 2 hours, 256 px 19 for the tokenizer, 9 more for teacher
and student.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common, llamagen, own

# Those of which there are weights, as `python -m port_weights list` calls them: size and option.
PUBLISHED = {"b": ("b", "256"), "l": ("l", "256")} | {f"{size}_384": (size, "384") for size in llamagen.SIZES}


def get_config(option: str = "64") -> ConfigDict:
    """LlamaGen-like; `option` is the side in px, "64", "128" or "256", or a published model: see `PUBLISHED`."""
    if option in PUBLISHED:
        return own.published(llamagen.get(*PUBLISHED[option]))
    config, small = own.base("llamagen", option, PUBLISHED), option == "64"
    config.tokenizer.update({"side": 0, "code_dim": 8, "entropy": 0.0})
    config.model.update({"multiple_of": 32, **common.CLEAR} if small else {})
    second = 80 if option == "256" else 20
    config.train.timesteps = (0, 0, 0, second)
    if small:
        common.flow(config, second)
    config.speed.plans = ("S0", f"S0 S{second}")
    config.evaluate.plans = config.sample.plans = (*config.speed.plans, "S0 J2")
    return config
