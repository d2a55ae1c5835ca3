"""Emoji, 32x32 px colour, text to image: "purple fox" -> 64 tokens, raster order.

    pip install -e '.[emoji]' && python -m dd_jax.main --config=configs/emoji_t2i.py

The encoder of captions, a tiny T5, learns with the teacher. Pictures are OpenMoji's (CC BY-SA 4.0), recoloured, each
under four skies; of every object one colour is held out. Two CPU cores, 15 to 20 minutes. Expect one step to agree with
the teacher on six of seven codes, and its caption to be found among 51 in 19 of 20 pictures, in five of six where the
colour was held out.
"""

from ml_collections import ConfigDict

from dd_jax.configs import common


def get_config() -> ConfigDict:
    """One-step pictures of captions, LlamaGen-like."""
    config = common.demo("llamagen")
    config.data = common.data("emoji", 32)
    config.classifier = ConfigDict({"patch": 2, "hidden": 128})
    stack = ConfigDict({**common.stack(2), "background": 1.0, "ch": 32})
    config.tokenizer = ConfigDict({"side": 0, "code_dim": 8, "vocab": 1024, "pixels": 10.0, "stack": stack})
    sizes = {"width": 64, "depth": 2, "heads": 4, "head_dim": 16, "hidden": 128, "tokens": 4}
    config.text = common.text(words=True, dtype="float32", **sizes)
    config.cache_chunk = 32
    config.guidance = 1.5
    config.model = ConfigDict({"width": 128, "depth": 5, "heads": 4, "multiple_of": 32, **common.CLEAR})
    config.model.update({"cond": 4, "caption_dim": 64})
    regularization = {"label_dropout": 0.1, "word_dropout": 0.1, "token_corruption": 0.35}
    config.pretrain = ConfigDict(
        {
            "classifier": common.recipe(1000, 128, 2e-3, final_lr=0.0),
            "tokenizer": common.tokenizing(900, 64, 1e-2),
            "teacher": common.recipe(500, 64, 1e-2, muon=True, **regularization),
        }
    )
    config.pairs = common.pairs(count=16_000, shard=4000, batch=200, labels="balanced")
    config.train = common.distil(500, 64, 1e-2, muon=True, timesteps=(0, 21), ce=1.0, embedding=0.0, distance="none")
    config.evaluate.plans = ("S0", "S0 S21", "S0 J4")
    config.evaluate.update({"count": 600, "reference": 1000, "batch": 200, "check_count": 50})
    config.speed.plans = ("S0", "S0 S21")
    return config
