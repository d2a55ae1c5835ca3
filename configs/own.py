"""Tokenizer, teacher and student of one's own pictures, in colour: what `own_var.py` and `own_llamagen.py` share.

The tokenizer is trained as VQGAN's and LlamaGen's (arXiv 2012.09841, 2406.06525): squared and absolute error, a
perceptual distance, and a discriminator from the middle on. Its stack is the released one from 256 px on (a code is
16 px a side), a leaner one below (8 px a side at 64 px: two convolutions each way on patches of 4 px, which at equal
time draws sharper than residual blocks on pixels).
"""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from dd_jax.configs import common, var

# px: codes; the transformer's width and depth
SIZES = {"64": (1024, 192, 4), "128": (4096, 512, 12), "256": (16384, 768, 16)}
# px: steps and batch of tokenizer, of teacher, of student; pairs
LENGTHS = {
    "64": ((6000, 32), (700, 48), (600, 48), 10_000),
    "128": ((100_000, 64), (100_000, 128), (60_000, 128), 200_000),
    "256": ((100_000, 64), (100_000, 128), (60_000, 128), 200_000),
}


def base(family: str, option: str, others: Sequence[str] = ()) -> ConfigDict:
    """The settings of `option` px; a family adds codes and boundaries. ValueError for another size.

    `others`: what the family has besides.
    """
    if option not in SIZES:
        raise ValueError(f"own_{family}.py:{option}: choose {', '.join((*SIZES, *others))}")
    small, resolution = option == "64", int(option)
    vocab, width, depth = SIZES[option]
    _, teacher, student, pairs = LENGTHS[option]
    config = common.demo(family)
    config.data = common.data("folder:PICTURES", resolution)
    config.data.channels = 3
    config.classifier = ConfigDict({"patch": resolution // 16, "hidden": 128})
    config.tokenizer = ConfigDict({"vocab": vocab, "pixels": 10.0 if small else 1.0, "stack": _stack(option)})
    config.model = ConfigDict({"width": width, "depth": depth, "heads": width // 64})
    config.cache_chunk = 32
    fast: dict[str, Any] = {"muon": True, "lr": 1e-2, "final_lr": 0.03} if small else {"lr": 1e-4, "weight_decay": 0.05}
    fast |= {} if small else {"b2": 0.95, "warmup": 1000, "ema": 0.9999, "checkpoint_every": 1000}
    config.pretrain = ConfigDict(
        {
            "classifier": common.recipe(600 if small else 5000, 64, 1e-3, final_lr=0.0),
            "tokenizer": _tokenizer(option),
            "teacher": common.teaching(*teacher, **fast, grid_every=300 if small else 5000),
        }
    )
    config.pairs = common.pairs(count=pairs, shard=4000, batch=200, labels="balanced")
    config.train = common.distil(*student, **fast, timesteps=(0,), ce=1.0, embedding=0.0, distance="none")
    config.evaluate.update({"count": 1000, "reference": 1000, "batch": 200, "check_count": 0, "check": ""})
    return learned(config) if small else released(config)


def learned(config: ConfigDict) -> ConfigDict:
    """A small teacher that has to bear what it draws itself, and is asked for what it is sure of."""
    config.pretrain.teacher.token_corruption = 0.35
    config.guidance, config.filter.top_p = 3.0, 0.8
    return config


def released(config: ConfigDict) -> ConfigDict:
    """The teacher trained as the family's own (arXiv 2404.02905, 2406.06525): 1e-4 for 256 pictures of a batch.

    VAR skips branches of its blocks; it is not shown mirrored pictures, and its windows, new in every epoch, are ten
    here. LlamaGen has dropout, and ten crops, mirrored too.
    """
    teacher, data = config.pretrain.teacher, config.data
    teacher.update({"lr": 1e-4 * teacher.batch / 256, "views": 10})
    data.crop = "random"
    if config.family == "var":
        teacher.update({"clip": 2.0, "drop_path": 0.1 * config.model.depth / 24})
        teacher.no_decay = config.train.no_decay = var.undecayed(config.model)
        data.crop_share = (1 / 1.125, 1 / 1.125)
    else:
        teacher.dropout = 0.1
        data.flip = True
    return config


def published(config: ConfigDict) -> ConfigDict:
    """A published model's settings for pictures of one's own, whose teacher goes on from the published one.

    Lengths and rates are not measured: the class table learns at the published rate, the trunk at a tenth of it.
    """
    mine, px = base(config.family, "256"), config.data.resolution
    config.data, config.classifier, config.published = mine.data, mine.classifier, ""
    config.data.resolution, config.classifier.patch = px, px // 16
    config.pretrain, config.pairs = mine.pretrain, mine.pairs
    config.tokenizer.stack.remat = True
    config.pretrain.teacher.update({"steps": 20_000, "batch": 64, "warmup": 500, "ema": 0.999, "trunk_lr": 0.1})
    config.pairs.batch = 100
    config.train.update({"steps": 20_000, "batch": 128, "ema": 0.999, "warmup": 400, "lr": 1e-4})
    config.sample.update({"count": 1000, "batch": 50})
    config.evaluate.update({"count": 500, "reference": 500, "batch": 50})
    for drawn in (config.sample, config.evaluate):
        drawn.plans = (*drawn.plans, "S0 J2")
    return released(config)


def _stack(option: str) -> ConfigDict:
    """The convolutions of `option` px."""
    if option == "64":
        return ConfigDict({**common.stack(4), "ch": 128, "z_channels": 64, "background": 0.0, "remat": False})
    ch, encoder, decoder = {"128": (64, 1, 2), "256": (128, 2, 3)}[option]
    blocks = {"encoder_blocks": encoder, "decoder_blocks": decoder, "groups": 32, "attention": True, "mid": True}
    return ConfigDict({"ch": ch, "ch_mult": (1, 1, 2, 2, 4), "z_channels": 2 * ch, "patch": 1, "remat": True, **blocks})


def _tokenizer(option: str) -> ConfigDict:
    """Rates and weights. Published: 1e-4 for batches of 128; LPIPS at weight 1, which wants its ported network."""
    steps, batch = LENGTHS[option][0]
    weights = {"l1": 1.0, "perceptual": "classifier", "perceptual_weight": 0.1, "gan_weight": 0.1, "gan_layers": 3}
    if option == "64":
        short = {"gan_start": steps * 3 // 5, "gan_lr": 2e-4, "gan_width": 16, "gan_layers": 2, "grid_every": 500}
        short |= {"ema": 0.998, "revive_every": 100}
        return common.tokenizing(steps, batch, 3e-3, b2=0.95, **(weights | short))
    long: dict[str, Any] = {"weight_decay": 0.05, "warmup": 1000, "final_lr": 1.0, "ema": 0.9999}
    long |= {"gan_start": 20_000, "grid_every": 1000, "revive_every": 1000, "checkpoint_every": 1000}
    long |= {"dtype": "bfloat16"}
    return common.tokenizing(steps, batch, 1e-4, b2=0.95, **(weights | long))
