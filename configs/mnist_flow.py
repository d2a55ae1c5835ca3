"""MNIST, 28x28 px, raster order, past the paper: a flow head, half of each batch on-policy. The default run.

    python -m dd_jax.main                # or --config=configs/mnist_flow.py

The pictures, tokenizer and teacher of mnist_llamagen.py, which is the paper's student. Two CPU cores, 7 to 11 minutes.
Expect three fifths of that student's distance to the teacher in one step. docs/method.md says what the head is.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common, mnist_llamagen


def get_config() -> ConfigDict:
    """One-step digits, LlamaGen-like, from a flow head."""
    config = common.flow(mnist_llamagen.get_config(), two=16)
    config.pairs.count = 12_000  # half of each batch needs none
    config.train.steps = 1_080
    config.train.timesteps = (0,)  # a second step of a flow head gains nothing, sweeps do
    config.evaluate.plans = config.speed.plans = ("S0", "S0 J4")
    return config
