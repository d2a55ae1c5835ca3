"""VAR-d16, ImageNet: 10 scales in one step, past the paper: flow head, trained on-policy on fresh noises alone.

    python -m port_weights var_vae var_d16 --out weights
    python -m dd_jax.main --config=configs/var_d16_flow.py --workdir=runs/var_d16_flow \\
        --config.weights.tokenizer=weights/var_vae --config.weights.teacher=weights/var_d16

No pairs are drawn and no LPIPS is needed; `--config.train.objective=mixed` uses half of a batch of pairs. Hardware:
8 A100-80GB or a TPU slice of like peak. Expected, by FLOPs (at 40 % of peak), not measured: training 60 h, 25 of them
for the teacher. Not run at full size: `--config.smoke=true` tries every stage on a laptop.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common, var_d16


def get_config() -> ConfigDict:
    """One-step VAR from a flow head."""
    return common.flow_at_scale(var_d16.get_config())
