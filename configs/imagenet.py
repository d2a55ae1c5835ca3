"""What the full-size ImageNet configs share: Distilled Decoding as published (arXiv 2412.17153, App. D)."""

from ml_collections import ConfigDict

from configs import common


def base(family: str, resolution: int) -> ConfigDict:
    """Class-conditional ImageNet at `resolution` px."""
    config = common.demo(family)
    config.data = ConfigDict({"name": "imagenet2012", "resolution": resolution, "channels": 3, "classes": 1000})
    config.judge = ConfigDict({"patch": 16})
    config.guidance = 2.0
    config.cache_chunk = None
    config.pairs = ConfigDict({"count": 1_200_000, "shard": 10_000, "batch": 250, "labels": "uniform"})
    published = {"weight_decay": 0.05, "b2": 0.95, "ema": 0.9999, "final_lr": 1.0, "warmup": 0}
    config.train = common.recipe(
        steps=0, batch=512, lr=1e-4, timesteps=(0,), ce=0.1, embedding=1.0, distance="mse", **published
    )
    return config
