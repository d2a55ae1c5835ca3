"""VAR-d36, 2.35 B parameters, ImageNet 512 px: 10 scales to one step.

    python -m port_weights var_vae var_d36 lpips_vgg --out weights
    python -m dd_jax.main --config=configs/var_d36.py --workdir=runs/var_d36 \\
        --config.weights.tokenizer=weights/var_vae --config.weights.teacher=weights/var_d36 \\
        --config.weights.lpips=weights/lpips_vgg

Hardware: 8 A100-80GB or a TPU slice of like peak. Expected, by FLOPs (training at 40 % of peak, pairs at 10 %), not
measured: pairs 28 h, training 9 weeks, 1 of them for LPIPS. `--config.smoke=true` tries every
stage on a laptop first.
Published: teacher FID 2.63. Never distilled by its authors: the settings are those of d16.
"""

from ml_collections import ConfigDict

from dd_jax.configs import var


def get_config() -> ConfigDict:
    """Settings as published."""
    return var.get(36)
