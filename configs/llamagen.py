"""LlamaGen's released sizes (arXiv 2406.06525), distilled as published; `llamagen_b.py` and its like pick one."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from dd_jax.configs import common, imagenet

# width, depth, heads, guidance that the release samples with, split of the published few-step plans
SIZES = {
    "b": (768, 12, 12, 2.0, 80),
    "l": (1024, 24, 16, 2.0, 130),
    "xl": (1280, 36, 20, 1.75, 130),
    "xxl": (1536, 48, 24, 1.75, 130),
    "3b": (3200, 24, 32, 1.65, 130),
}
LEVELS = {16: (1, 1, 2, 2, 4), 8: (1, 2, 2, 4)}  # widths of the tokenizer's levels by its downsampling
OPTIONS = {"256": (256, 16), "384": (384, 16), "vq8": (256, 8)}  # px, and the tokenizer's downsampling
EPOCHS = 70
CAPTION = {"cond": 120, "caption_dim": 2048}  # flan-t5-xl's features


def vq(downsample: int, side: int) -> ConfigDict:
    """The VQ-16 or VQ-8 tokenizer for a side x side grid of codes."""
    stack = ConfigDict({"ch": 128, "ch_mult": LEVELS[downsample], "z_channels": 256})
    return ConfigDict({"side": side, "code_dim": 8, "vocab": 16384, "stack": stack})


def get(size: str, option: str = "") -> ConfigDict:
    """`option`: "256" (default), "384", or "vq8": 256 px through the finer tokenizer, 32 x 32 codes."""
    if option and option not in OPTIONS:
        raise ValueError(f"llamagen_{size}.py:{option}: choose {', '.join(OPTIONS)}")
    resolution, downsample = OPTIONS[option or "256"]
    width, depth, heads, guidance, split = SIZES[size]
    config = imagenet.base("llamagen", resolution)
    grid = "_384" if resolution == 384 else ""
    config.ported.tokenizer = f"vq{downsample}"
    if grid or size in ("b", "l"):
        config.ported.teacher = f"llamagen_{size}{grid}"
    if size in ("b", "l") and not grid:
        config.ported.student = f"llamagen_{size}_dd"
    config.published = f"LlamaGen-{size.upper()}" + (f" ({option})" if option not in ("", "256") else "")
    config.guidance = guidance
    config.tokenizer = vq(downsample, resolution // downsample)
    config.model = ConfigDict({"width": width, "depth": depth, "heads": heads})
    config.student.split = split
    config.train.timesteps = (0, 80)
    config.train.steps = config.pairs.count * EPOCHS // config.train.batch
    config.sample.plans = ("S0", "S0 S80")
    config.sample.scheme = "uniform"  # as in the released script, which scores images of 384 px at 256
    config.sample.resolution = 256 if resolution > 256 else None
    with_teacher = {plan: {"split": 180, "top_k": 8000} for plan in ("S0 T60:80 S80", "S0 T40:80 S80")}
    config.sample.by_plan = with_teacher | {"T0:80 S80": {"split": 220, "top_k": 8000}}
    config.evaluate.plans = ("S0", "S0 S80", *config.sample.by_plan)
    config.speed.plans = ("decode", *config.evaluate.plans)
    return config


def t2i(resolution: int) -> ConfigDict:
    """The text-conditional XL at 256 or 512 px: 120 caption tokens in front, read by flan-t5-xl."""
    config = get("xl")
    config.text = common.text(depth=24)
    config.data.update({"name": "captions", "resolution": resolution})
    config.ported.update({"tokenizer": "vq16_t2i", "teacher": f"llamagen_t2i_xl_{resolution}", "text": "flan_t5_xl"})
    config.tokenizer.side = resolution // 16
    config.model.update(CAPTION)
    config.guidance, config.sample.filter.top_k = 7.5, 1000  # as the release samples; the paper's pairs: guidance 2.0
    config.pairs.count = 3_000_000
    config.train.steps = config.pairs.count * EPOCHS // config.train.batch
    config.student.split = placeholder(int)  # no split was published: the logits head everywhere, and its loss alone
    config.train.distance, config.train.embedding = "none", 0.0
    config.sample.by_plan = ConfigDict()
    config.sample.plans = config.evaluate.plans = config.speed.plans = ("S0", "S0 S80")
    config.evaluate.protocol = "clean"
    config.published = "LlamaGen-T2I" if resolution == 256 else ""
    return config
