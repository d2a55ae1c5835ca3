"""VAR-d20, 600.9 M parameters, ImageNet 256 px: 10 scales to one step.

    python -m port_weights var_vae var_d20 lpips_vgg --out weights
    python -m dd_jax.main --config=configs/var_d20.py --workdir=runs/var_d20 \\
        --config.weights.tokenizer=weights/var_vae --config.weights.teacher=weights/var_d20 \\
        --config.weights.lpips=weights/lpips_vgg

Hardware: 8 A100-80GB or a TPU slice of like peak. Expected, by FLOPs (training at 40 % of peak, pairs at 10 %), not
measured: pairs 1.5 h, training 115 h, 47 of them for LPIPS. `--config.smoke=true` tries every
stage on a laptop first.
Published: teacher FID 3.35; distilled (635.4 M): FID 9.55 in one step, 7.33 in two.
"""

from ml_collections import ConfigDict

from dd_jax.configs import var


def get_config() -> ConfigDict:
    """Settings as published."""
    return var.get(20)
