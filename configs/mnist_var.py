"""MNIST, 28x28 px, next-scale order: scales 1, 2, 3, 5, 7, 88 tokens in five steps.

    python -m dd_jax.main --config=configs/mnist_var.py

Not yet timed at full length.
"""

from ml_collections import ConfigDict

from configs import common, mnist_llamagen


def get_config() -> ConfigDict:
    """One-step digits, VAR-like."""
    config = mnist_llamagen.get_config()
    config.family = "var"
    config.tokenizer = ConfigDict(
        {"sides": (1, 2, 3, 5, 7), "code_dim": 4, "vocab": 64, "moments": 1.0, "pixels": 10.0}
    )
    config.tokenizer.stack = mnist_llamagen.stack()
    config.model = ConfigDict({"width": 96, "depth": 4, "heads": 3, "mlp_ratio": 3.0, "gate_init": 1.0})
    config.pretrain.teacher = common.recipe(700, 64, 3e-3, label_drop=0.1)
    config.train = common.recipe(900, 64, 3e-3, timesteps=(0, 3), ce=1.0, embedding=0.0, distance="none")
    config.evaluate.plans = ("S0", "S0 S3", "S0 T2:3 S3", "S0 J1", "S0 J2")
    config.speed.plans = ("S0", "S0 S3", "S0 J2")
    config.baselines.skip = (1,)
    return config
