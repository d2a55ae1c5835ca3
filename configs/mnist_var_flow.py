"""MNIST as in mnist_var.py, next-scale order, distilled past the paper: flow head, half of each batch on-policy.

    python -m dd_jax.main --config=configs/mnist_var_flow.py

Two CPU cores, 8 to 12 minutes. docs/method.md says what the head is, and what was measured.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common, mnist_var


def get_config() -> ConfigDict:
    """One-step digits, VAR-like, from a flow head."""
    return common.flow(mnist_var.get_config(), two=3)
