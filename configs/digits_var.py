"""scikit-learn's 8x8 digits, next-scale order: scales 1, 2, 4, 21 tokens in three steps.

python -m dd_jax.main --config=configs/digits_var.py
"""

from ml_collections import ConfigDict

from configs import common, digits_llamagen


def get_config() -> ConfigDict:
    """One-step 8x8 digits, VAR-like."""
    config = digits_llamagen.get_config()
    config.family = "var"
    config.tokenizer = ConfigDict({"sides": (1, 2, 4), "code_dim": 4, "vocab": 32, "moments": 1.0, "pixels": 10.0})
    config.tokenizer.stack = digits_llamagen.stack()
    config.model = ConfigDict({"width": 96, "depth": 3, "heads": 3, "mlp_ratio": 3.0, "gate_init": 1.0})
    config.pretrain.teacher = common.recipe(600, 128, 3e-3, label_drop=0.1)
    config.train = common.recipe(700, 128, 3e-3, timesteps=(0, 2), ce=1.0, embedding=0.0, distance="none")
    config.evaluate.plans = ("S0", "S0 S2", "S0 T1:2 S2", "S0 J1", "S0 J2")
    config.speed.plans = ("S0", "S0 S2", "S0 J2")
    config.baselines.skip = (1,)
    return config
