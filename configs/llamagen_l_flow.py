"""LlamaGen-L, ImageNet: 256 raster steps to one, past the paper: flow head, trained on-policy on fresh noises alone.

    python -m port_weights vq16 llamagen_l --out weights
    python -m dd_jax.main --config=configs/llamagen_l_flow.py --workdir=runs/llamagen_l_flow \\
        --config.weights.tokenizer=weights/vq16 --config.weights.teacher=weights/llamagen_l

No pairs are drawn and no LPIPS is needed; `--config.train.objective=mixed` uses half of a batch of pairs. Hardware:
8 A100-80GB or a TPU slice of like peak. Expected, by FLOPs (at 40 % of peak), not measured: training 20 h, 8 of them
for the teacher, and 2 h for the flow's passes over the codebook. Not run at full size: `--config.smoke=true` tries
every stage on a laptop. `:384` after the file's name takes the 24 x 24 grid.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common, llamagen


def get_config(option: str = "") -> ConfigDict:
    """`option` is "256" or "384"."""
    return common.flow_at_scale(llamagen.get("l", option))
