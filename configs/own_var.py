"""Your own pictures, next-scale order."""

from ml_collections import ConfigDict

from dd_jax.configs import own


def get_config(option: str = "64") -> ConfigDict:
    """VAR-like; `option` is the side in px: "64", "128" or "256"."""
    config, small = own.base("var", option), option == "64"
    config.tokenizer.update({"sides": (), "code_dim": 16 if small else 32, "moments": 1.0})
    config.model.gate_init = 1.0 if small else 1e-3
    config.train.timesteps = (0, 0, 3)
    config.evaluate.plans = config.speed.plans = ("S0", "S0 S3")
    config.sample.plans = config.evaluate.plans
    return config
