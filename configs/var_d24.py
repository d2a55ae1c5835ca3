"""VAR-d24, 1.03 B parameters, ImageNet 256 px: 10 scales to one step.

    python -m port_weights var_vae var_d24 lpips_vgg --out weights
    python -m dd_jax.main --config=configs/var_d24.py --workdir=runs/var_d24 \\
        --config.weights.tokenizer=weights/var_vae --config.weights.teacher=weights/var_d24 \\
        --config.weights.lpips=weights/lpips_vgg

Hardware: 8 A100-80GB or a TPU slice of like peak. Expected, by FLOPs (training at 40 % of peak, pairs at 10 %), not
measured: pairs 2.5 h, training 7 days, 2 of them for LPIPS. `--config.smoke=true` tries every
stage on a laptop first.
Published: teacher FID 2.51; distilled (1.09 B): FID 8.92 in one step, 6.95 in two.
"""

from ml_collections import ConfigDict

from dd_jax.configs import var


def get_config() -> ConfigDict:
    """Settings as published."""
    return var.get(24)
