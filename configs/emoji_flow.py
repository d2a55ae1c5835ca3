"""Emoji of captions as in emoji_t2i.py, distilled past the paper: flow head, half of each batch on-policy.

    pip install -e '.[emoji]' && python -m dd_jax.main --config=configs/emoji_flow.py

Two CPU cores, 15 to 25 minutes. docs/method.md says what the head is.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common, emoji_t2i


def get_config() -> ConfigDict:
    """One-step pictures of captions, from a flow head."""
    return common.flow(emoji_t2i.get_config(), two=21)
