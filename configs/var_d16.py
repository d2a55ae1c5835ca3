"""VAR-d16, 310.3 M parameters, ImageNet 256 px: 10 scales to one step.

    python -m port_weights var_vae var_d16 lpips_vgg --out weights
    python -m dd_jax.main --config=configs/var_d16.py --workdir=runs/var_d16 \\
        --config.weights.tokenizer=weights/var_vae --config.weights.teacher=weights/var_d16 \\
        --config.weights.lpips=weights/lpips_vgg

Hardware: 8 A100-80GB or a TPU slice of like peak. Expected, by FLOPs (training at 40 % of peak, pairs at 10 %), not
measured: pairs .8 h, training 82 h, 47 of them for LPIPS. `--config.smoke=true` tries every
stage on a laptop first.
Published: teacher FID 4.19; distilled (328.2 M): FID 9.94 in one step, 7.82 in two;
6.54, 5.47 and 5.03 with 1, 2 and 5 teacher steps.
"""

from ml_collections import ConfigDict

from dd_jax.configs import var


def get_config() -> ConfigDict:
    """Settings as published."""
    return var.get(16)
