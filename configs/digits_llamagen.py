"""scikit-learn's 8x8 digits, raster order: 4x4 = 16 tokens. An idea tried in about five minutes.

python -m dd_jax.main --config=configs/digits_llamagen.py
"""

from ml_collections import ConfigDict

from configs import common


def stack() -> ConfigDict:
    """A lean tokenizer: two convolutions each way, and codes that see little more than their own patch."""
    fields = {
        "ch": 24,
        "ch_mult": (1, 2),
        "z_channels": 16,
        "encoder_blocks": 0,
        "decoder_blocks": 0,
        "groups": 0,
        "attention": False,
        "mid": False,
        "background": -1.0,
        "reach": 1,
        "patch": 1,
    }
    return ConfigDict(fields)


def get_config() -> ConfigDict:
    """One-step 8x8 digits, LlamaGen-like."""
    config = common.demo("llamagen")
    config.data = ConfigDict(
        {
            "name": "digits",
            "resolution": 8,
            "channels": 1,
            "classes": 10,
            "copies": 9,
            "heldout_copies": 9,
            "rotate": 0.35,
            "scale": 0.15,
            "shear": 0.0,
            "shift": 1.2,
        }
    )
    config.judge = ConfigDict({"patch": 1})
    config.tokenizer = ConfigDict({"side": 4, "code_dim": 4, "vocab": 32, "pixels": 10.0, "stack": stack()})
    config.cache_chunk = 4
    config.model = ConfigDict({"width": 96, "depth": 3, "heads": 3, "multiple_of": 32, "positions": True})
    config.pretrain = ConfigDict(
        {
            "judge": common.recipe(500, 128, 2e-3, final_lr=0.0),
            "tokenizer": common.recipe(700, 128, 3e-3, revive_every=30),
            "teacher": common.recipe(700, 128, 3e-3, label_drop=0.1),
        }
    )
    config.pairs = ConfigDict({"count": 24_000, "shard": 6000, "batch": 500, "labels": "balanced"})
    config.train = common.recipe(800, 128, 3e-3, timesteps=(0, 5), ce=1.0, embedding=0.0, distance="none")
    config.evaluate.plans = ("S0", "S0 S5", "S0 T3:5 S5", "S0 J2", "S0 J4", "T0:5 S5")
    config.speed.plans = ("S0", "S0 S5", "S0 J4")
    config.baselines.skip = (8,)
    return config
