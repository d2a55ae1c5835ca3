"""LlamaGen-XXL, 1.41 B parameters, ImageNet: 256 raster steps to one.

    python -m port_weights vq16 llamagen_xxl_384 lpips_vgg --out weights
    python -m dd_jax.main --config=configs/llamagen_xxl.py:384 --workdir=runs/llamagen_xxl \\
        --config.weights.tokenizer=weights/vq16 --config.weights.teacher=weights/llamagen_xxl_384 \\
        --config.weights.lpips=weights/lpips_vgg

Hardware: 8 A100-80GB or a TPU slice of like peak. Expected, by FLOPs (training at 40 % of peak, pairs at 10 %), not
measured: pairs 4.5 h, training 160 h, 42 of them for LPIPS. `--config.smoke=true` tries every
stage on a laptop first.
`:384` after the file's name takes the 24 x 24 grid. Published: teacher FID 2.34 at 384 px; distilled: not published.
"""

from ml_collections import ConfigDict

from dd_jax.configs import llamagen


def get_config(option: str = "") -> ConfigDict:
    """Settings as published; `option` is "256" or "384"."""
    return llamagen.get("xxl", option)
