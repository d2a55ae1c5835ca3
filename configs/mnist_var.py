"""MNIST, 28x28 px, next-scale order: scales 1, 2, 3, 5, 7, 88 tokens in five steps.

    python -m dd_jax.main --config=configs/mnist_var.py

Two CPU cores, 7 to 11 minutes. Expect one step to agree with the teacher on half of all codes.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common, mnist_llamagen


def get_config() -> ConfigDict:
    """One-step digits, VAR-like."""
    config = common.next_scale(mnist_llamagen.get_config(), width=160, depth=2)
    config.pairs.count, config.pairs.shard = 15_000, 4000
    config.pretrain.tokenizer.steps = 380
    config.pretrain.teacher = common.teaching(260, 64, 1e-2, muon=True, final_lr=0.03)
    config.train = common.distil(480, 64, 1e-2, muon=True, timesteps=(0, 0, 3), ce=1.0, embedding=0.0, distance="none")
    config.train.final_lr = 0.03
    config.evaluate.plans = ("S0", "S0 S3", "S0 J2")
    config.evaluate.count, config.evaluate.reference = 1500, 2000
    config.speed.plans, config.speed.repeats = ("S0",), 3
    return config
