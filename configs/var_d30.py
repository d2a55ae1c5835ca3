"""VAR-d30, 2.01 B parameters, ImageNet 256 px: 10 scales to one step.

    python -m port_weights var_vae var_d30 lpips_vgg --out weights
    python -m dd_jax.main --config=configs/var_d30.py --workdir=runs/var_d30 \\
        --config.weights.tokenizer=weights/var_vae --config.weights.teacher=weights/var_d30 \\
        --config.weights.lpips=weights/lpips_vgg

Hardware: 8 A100-80GB or a TPU slice of like peak. Expected, by FLOPs (training at 40 % of peak, pairs at 10 %), not
measured: pairs 4.9 h, training 11 days, 2 of them for LPIPS. `--config.smoke=true` tries every
stage on a laptop first.
Published: teacher FID 1.97. Never distilled by its authors: the settings are those of d16.
"""

from ml_collections import ConfigDict

from dd_jax.configs import var


def get_config() -> ConfigDict:
    """Settings as published."""
    return var.get(30)
