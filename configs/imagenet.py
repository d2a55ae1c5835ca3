"""What the full-size ImageNet configs share: Distilled Decoding as published (arXiv 2412.17153, App. D)."""

from typing import Any

from ml_collections import ConfigDict

from dd_jax.configs import common


def base(family: str, resolution: int) -> ConfigDict:
    """Class-conditional ImageNet at `resolution` px: 1.2 M pairs, batch 512, AdamW (.9, .95), EMA .9999."""
    config = common.demo(family)
    config.data = ConfigDict({"name": "imagenet2012", "resolution": resolution, "channels": 3, "classes": 1000})
    config.ported = ConfigDict({"lpips": "lpips_vgg"})  # part -> what `python -m port_weights` knows it as
    config.classifier = None  # no network of our own looks at photographs
    config.dtype.teacher = "bfloat16"  # as released; the flow stays in float32
    config.pairs = common.pairs(count=1_200_000, shard=10_000, batch=250, labels="uniform")
    published = {"weight_decay": 0.05, "b2": 0.95, "ema": 0.9999, "final_lr": 1.0, "warmup": 0}
    # LPIPS takes about 1 GB an image while its gradient is taken: this many are decoded and compared at a time.
    heads = {"ce": 0.1, "embedding": 1.0, "distance": "lpips", "distance_batch": 64}
    config.train = common.distil(steps=0, batch=512, lr=1e-4, timesteps=(0,), **heads, **published)
    config.train.checkpoint_every = 1000
    config.sample.update({"count": 50_000, "batch": 128, "categorical": True})
    config.evaluate.update({"count": 64, "reference": 0, "batch": 16, "check": "", "check_count": 0})
    config.baselines.update({"onestep": False})
    config.speed.update({"batches": (1, 8), "repeats": 3, "training": False})  # a step at batch 512 wants a pod
    return config


def by_scores(config: ConfigDict, batch: int, lr: float, score_lr: float, warmup: int, **csd: Any) -> ConfigDict:
    """The same model by conditional score distillation (Distilled Decoding 2, arXiv 2510.21003, Tables 8, 10 and 11).

    As printed: Adam (.9, .95), EMA .9999, linear warm-up over `warmup` score updates. Not printed, and ours: no weight
    decay, constant rates, the clip of the family's own config, `draws`.
    """
    config.student.update({"head": "velocity", "split": None})
    config.train.update({"objective": "csd", "timesteps": (0,), "embedding": 0.0, "distance": "none"})
    config.train.update({"batch": batch, "lr": lr, "warmup": warmup, "final_lr": 1.0, "weight_decay": 0.0})
    config.train.no_decay = ()
    config.train.csd.update({"score_lr": score_lr, **csd})
    config.sample.by_plan = ConfigDict()
    config.sample.plans = config.evaluate.plans = ("S0",)
    config.speed.plans = ("decode", "S0")
    kept = {part: id for part, id in config.ported.items() if part not in ("student", "lpips")}
    config.ported = ConfigDict(kept)  # that student is another one; nothing is compared by LPIPS
    return config
