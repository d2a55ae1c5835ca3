"""MNIST, 28x28 px, raster order: 49 tokens, one a step. The paper's student.

    python -m dd_jax.main --config=configs/mnist_llamagen.py

Two CPU cores, 7 to 11 minutes. Expect one step to agree with the teacher on half of all codes, and a Frechet
distance to the teacher of about a tenth of onestep*'s.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common


def get_config() -> ConfigDict:
    """One-step digits, LlamaGen-like."""
    config = common.demo("llamagen")
    config.data = common.data("mnist", 28, copies=6, heldout_copies=4, rotate=0.2, scale=0.1, shear=0.1, shift=2.0)
    config.classifier = ConfigDict({"patch": 2})
    config.tokenizer = ConfigDict({"side": 0, "code_dim": 4, "vocab": 64, "stack": common.stack(2)})
    config.cache_chunk = 25
    config.model = ConfigDict({"width": 128, "depth": 4, "heads": 4, "multiple_of": 32, **common.CLEAR})
    config.pretrain = ConfigDict(
        {
            "classifier": common.recipe(300, 128, 2e-3, final_lr=0.0),
            "tokenizer": common.tokenizing(310, 128, 3e-3),
            "teacher": common.teaching(230, 64, 1e-2, muon=True),
        }
    )
    config.pairs = common.pairs(count=19_000, shard=4000, batch=250, labels="balanced")
    # Three quarters of a batch learn to draw in one step, a quarter the second one of two.
    timesteps = (0, 0, 0, 16)
    config.train = common.distil(700, 64, 1e-2, muon=True, timesteps=timesteps, embedding=0.0, distance="none", ce=1.0)
    config.train.final_lr = 0.03
    config.evaluate.plans = ("S0", "S0 S16", "S0 T8:16 S16", "S0 J8")
    config.speed.plans = ("S0", "S0 S16")
    return config
