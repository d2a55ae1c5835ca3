"""MNIST as in mnist_llamagen.py, distilled past the paper: flow head, half of each batch on-policy.

    python -m dd_jax.main --config=configs/mnist_flow.py

Two CPU cores, 8 to 12 minutes. Expect two thirds of mnist_llamagen.py's distance to the teacher in one step.
docs/method.md says what the head is, and what was measured.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common, mnist_llamagen


def get_config() -> ConfigDict:
    """One-step digits, LlamaGen-like, from a flow head."""
    return common.flow(mnist_llamagen.get_config(), two=16)
