"""scikit-learn's 8x8 digits, raster order: 4x4 = 16 tokens. An idea tried in a few minutes.

python -m dd_jax.main --config=configs/digits_llamagen.py
"""

from ml_collections import ConfigDict

from dd_jax.configs import common


def get_config() -> ConfigDict:
    """One-step 8x8 digits, LlamaGen-like."""
    config = common.demo("llamagen")
    config.data = common.data("digits", 8, copies=9, heldout_copies=9, rotate=0.35, scale=0.15, shift=1.2)
    config.classifier = ConfigDict({"patch": 1})
    config.tokenizer = ConfigDict({"side": 0, "code_dim": 4, "vocab": 32, "pixels": 10.0, "stack": common.stack(1)})
    config.cache_chunk = 8
    config.model = ConfigDict({"width": 128, "depth": 3, "heads": 4, "multiple_of": 32, **common.CLEAR})
    config.pretrain = ConfigDict(
        {
            "classifier": common.recipe(300, 128, 2e-3, final_lr=0.0),
            "tokenizer": common.tokenizing(450, 128, 3e-3),
            "teacher": common.teaching(300, 128, 1e-2, muon=True),
        }
    )
    config.pairs = common.pairs(count=16_000, shard=4000, batch=500, labels="balanced")
    config.train = common.distil(310, 128, 1e-2, muon=True, timesteps=(0, 0, 5), embedding=0.0, distance="none", ce=1.0)
    config.evaluate.plans = ("S0", "S0 S5", "S0 J4", "T0:5 S5")
    config.evaluate.count, config.evaluate.reference = 1500, 2000
    config.evaluate.batch = config.evaluate.check_count = 500
    config.speed.plans = ("S0", "S0 S5")
    config.baselines.skip = (8,)
    return config
