"""MNIST as in mnist_var.py, next-scale order, distilled past the paper: flow head, half of each batch on-policy.

    python -m dd_jax.main --config=configs/mnist_var_flow.py

Two CPU cores, 8 to 12 minutes. In this order the head is behind the student of mnist_var.py at equal time: see
docs/method.md.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common, mnist_var


def get_config() -> ConfigDict:
    """One-step digits, VAR-like, from a flow head."""
    return common.flow(mnist_var.get_config(), two=3)
