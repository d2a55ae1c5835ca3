"""LlamaGen's released sizes (arXiv 2406.06525), distilled as published; `llamagen_b.py` and its like pick one."""

from ml_collections import ConfigDict

from configs import imagenet

# width, depth, heads, steps of the published few-step plans' split
SIZES = {
    "b": (768, 12, 12, 80),
    "l": (1024, 24, 16, 130),
    "xl": (1280, 36, 20, 130),
    "xxl": (1536, 48, 24, 130),
    "3b": (3200, 24, 32, 130),
}
LEVELS = {16: (1, 1, 2, 2, 4), 8: (1, 2, 2, 4)}  # widths of the tokenizer's levels by its downsampling
EPOCHS = 70


def vq(downsample: int, side: int) -> ConfigDict:
    """The VQ-16 or VQ-8 tokenizer for a side x side grid of codes."""
    stack = ConfigDict({"ch": 128, "ch_mult": LEVELS[downsample], "z_channels": 256})
    return ConfigDict({"side": side, "code_dim": 8, "vocab": 16384, "stack": stack})


def get(size: str, option: str = "") -> ConfigDict:
    """`option`: "256" (default), "384", or "vq8" for the finer tokenizer."""
    resolution = int(option or 256) if option != "vq8" else 256
    downsample = 8 if option == "vq8" else 16
    if (resolution, option) not in ((256, ""), (256, "256"), (384, "384"), (256, "vq8")):
        raise ValueError(f"llamagen_{size}.py:{option}: choose 256, 384 or vq8")
    width, depth, heads, split = SIZES[size]
    config = imagenet.base("llamagen", resolution)
    config.tokenizer = vq(downsample, resolution // downsample)
    config.model = ConfigDict({"width": width, "depth": depth, "heads": heads})
    config.student.split = split
    config.train.timesteps = (0, 80)
    config.train.steps = config.pairs.count * EPOCHS // config.train.batch
    config.sample.plans = ("S0", "S0 S80")
    return config
