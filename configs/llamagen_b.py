"""LlamaGen-B, 110.9 M parameters, ImageNet: 256 raster steps to one.

    python -m port_weights vq16 llamagen_b lpips_vgg --out weights
    python -m dd_jax.main --config=configs/llamagen_b.py --workdir=runs/llamagen_b \\
        --config.weights.tokenizer=weights/vq16 --config.weights.teacher=weights/llamagen_b \\
        --config.weights.lpips=weights/lpips_vgg

Hardware: 8 A100-80GB or a TPU slice of like peak. Expected, by FLOPs (training at 40 % of peak, pairs at 10 %), not
measured: pairs .2 h, training 22 h, 19 of them for LPIPS. `--config.smoke=true` tries every
stage on a laptop first.
`:384` after the file's name takes the 24 x 24 grid. Published: teacher FID 5.46; distilled: FID 15.50 in one step,
11.17 in two.
"""

from ml_collections import ConfigDict

from dd_jax.configs import llamagen


def get_config(option: str = "") -> ConfigDict:
    """Settings as published; `option` is "256" or "384"."""
    return llamagen.get("b", option)
