"""LlamaGen-L, 342.9 M parameters, ImageNet: 256 raster steps to one.

    python -m port_weights vq16 llamagen_l lpips_vgg --out weights
    python -m dd_jax.main --config=configs/llamagen_l.py --workdir=runs/llamagen_l \\
        --config.weights.tokenizer=weights/vq16 --config.weights.teacher=weights/llamagen_l \\
        --config.weights.lpips=weights/lpips_vgg

Hardware: 8 A100-80GB or a TPU slice of like peak. Expected, by FLOPs (training at 40 % of peak, pairs at 10 %), not
measured: pairs .5 h, training 31 h, 19 of them for LPIPS. `--config.smoke=true` tries every
stage on a laptop first.
`:384` after the file's name takes the 24 x 24 grid. Published: teacher FID 3.80; distilled: FID 11.35 in one step,
7.58 in two; 6.76 with 20 teacher steps.
"""

from ml_collections import ConfigDict

from dd_jax.configs import llamagen


def get_config(option: str = "") -> ConfigDict:
    """Settings as published; `option` is "256" or "384"."""
    return llamagen.get("l", option)
