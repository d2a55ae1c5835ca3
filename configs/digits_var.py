"""scikit-learn's 8x8 digits, next-scale order: scales 1, 2, 4, 21 tokens in three steps.

python -m dd_jax.main --config=configs/digits_var.py
"""

from ml_collections import ConfigDict

from dd_jax.configs import common, digits_llamagen


def get_config() -> ConfigDict:
    """One-step 8x8 digits, VAR-like."""
    config = common.next_scale(digits_llamagen.get_config(), width=160, depth=2)
    config.pairs.count, config.pairs.shard = 10_000, 2500
    config.pretrain.tokenizer.steps = 380
    config.pretrain.teacher = common.teaching(210, 128, 3e-3)
    config.train = common.distil(220, 128, 3e-3, timesteps=(0, 2), ce=1.0, embedding=0.0, distance="none")
    config.evaluate.plans = ("S0", "S0 S2", "S0 J2")
    config.speed.plans, config.speed.repeats = ("S0",), 3
    return config
