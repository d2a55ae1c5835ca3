"""What each setting may be. `dd_jax.validate` refuses other values in one line, before anything is computed.

Ranges are as wide as the programs allow: whether a value is wise is not asked.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

MOST = 2**31 - 1  # ids and steps are int32
SEEDS = 2**32 - 1
DTYPES = ("float32", "bfloat16")
STORED = (*DTYPES, "int8")  # what a teacher's weights may be


@dataclasses.dataclass(frozen=True)
class Kind:
    """Values that `fits` holds for, `told` in words; `none`: the setting may be left out."""

    told: str
    fits: Callable[[Any], bool]
    none: bool = False

    def __call__(self, value: Any) -> bool:
        return self.none if value is None else self.fits(value)

    def __str__(self) -> str:
        return self.told + (", or none" if self.none else "")


def whole(least: int = 0, most: int = MOST) -> Kind:
    """An integer."""
    to = f" to {most}" if most < MOST else " on" if least > -MOST else ""
    return Kind(
        f"a whole number from {least}{to}", lambda x: isinstance(x, int) and x is not True and least <= x <= most
    )


def real(least: float = -math.inf, most: float = math.inf, above: bool = False) -> Kind:
    """A finite number; `above`: `least` itself is none of them."""
    told = "a number" + (f" {'above' if above else 'from'} {least:g}" if least > -math.inf else "")
    told += f" to {most:g}" if most < math.inf else "" if above or least == -math.inf else " on"

    def fits(x: Any) -> bool:
        number = isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e30
        return number and least <= x <= most and not (above and x == least)

    return Kind(told, fits)


def choice(*names: str) -> Kind:
    """One of these names."""
    return Kind(f"one of {', '.join(names)}", lambda x: isinstance(x, str) and x in names)


def each(kind: Kind, least: int = 0) -> Kind:
    """A tuple of at least so many."""
    told = f"a list, each {kind}" + (f", {least} at least" if least else "")
    return Kind(told, lambda x: isinstance(x, tuple | list) and len(x) >= least and all(map(kind, x)))


def pair(kind: Kind) -> Kind:
    """Two of them."""
    return Kind(
        f"a list of two, each {kind}", lambda x: isinstance(x, tuple | list) and len(x) == 2 and all(map(kind, x))
    )


def table(fields: dict[str, Kind]) -> Kind:
    """{name: {field: value}}, of these fields."""
    known = ", ".join(f"{name} ({kind})" for name, kind in fields.items())

    def fits(x: Any) -> bool:
        nested = isinstance(x, dict) and all(isinstance(y, dict) for y in x.values())
        return nested and all(key in fields and fields[key](value) for y in x.values() for key, value in y.items())

    return Kind(f"{{name: {{field: value}}}} with fields out of {known}", fits)


def optional(kind: Kind) -> Kind:
    """The same, or none."""
    return dataclasses.replace(kind, none=True)


TEXT = Kind("text", lambda x: isinstance(x, str) and x.isprintable())
NAME = Kind("a name", lambda x: isinstance(x, str) and x.isprintable() and bool(x.strip()))
PATH = Kind("a path", lambda x: TEXT(x) and all(len(part.encode()) < 256 for part in x.split("/")))
FOLDER = optional(PATH)
SWITCH = Kind("true or false", lambda x: isinstance(x, bool))
SECTION = Kind("a section of settings", lambda x: isinstance(x, dict))
SHARE, POSITIVE, SIZE = real(0, 1), real(0, above=True), whole(1, 2**16)
BELOW = Kind("a number from 0 to below 1", lambda x: SHARE(x) and x < 1)

RECIPE = {
    "steps": whole(1),
    "batch": whole(1),
    "lr": real(0),
    "warmup": whole(),
    "final_lr": real(0),
    "clip": POSITIVE,
    "b1": BELOW,
    "b2": BELOW,
    "weight_decay": real(0),
    "no_decay": each(NAME),
    "muon": SWITCH,
    "ema": SHARE,
    "checkpoint_every": whole(1),
    "label_dropout": SHARE,
    "word_dropout": SHARE,
    "token_corruption": SHARE,
    "label_smoothing": SHARE,
    "dropout": BELOW,
    "drop_path": BELOW,
    "from": PATH,
    "trunk_lr": SHARE,
    "views": whole(),
    "revive_every": whole(1),
    "accumulate": whole(1),
    "remat": SWITCH,
    "scan": SWITCH,
    "dtype": choice(*DTYPES),
    "grid_every": whole(),
    "l1": real(0),
    "perceptual": choice("none", "classifier", "lpips"),
    "perceptual_weight": real(0),
    "perceptual_every": whole(1),
    "gan_weight": real(0),
    "gan_adaptive": SWITCH,
    "gan_start": whole(),
    "gan_lr": real(0),
    "gan_width": SIZE,
    "gan_layers": whole(1, 8),
    "gan_r1": real(0),
    "gan_lecam": real(0),
}
RECIPE_NEEDS = ("steps", "batch", "lr")  # the rest has defaults
FILTER = {
    "temperature": real(1e-6, 1e6),
    "top_k": whole(),
    "top_p": Kind("a number above 0 to 1", lambda x: SHARE(x) and x > 0),
}
KINDS = {
    "family": NAME,
    "seed": whole(0, SEEDS),
    "mesh": Kind("two whole numbers, (data, model), above 0 or -1", lambda x: _mesh(x)),
    "published": TEXT,
    "smoke": SWITCH,
    "guidance": real(),
    "cfg_interval": whole(-1),
    "cache_chunk": optional(whole(1)),
    "classifier": optional(SECTION),
    "classifier.patch": SIZE,
    "classifier.hidden": SIZE,
    "classifier.widths": each(SIZE, 2),
    "weights.random": SWITCH,
    "data.name": Kind("a name or a path", lambda x: NAME(x) and PATH(x)),
    "data.resolution": whole(1, 2**14),
    "data.channels": Kind("0, 1 or 3", lambda x: whole()(x) and x in (0, 1, 3)),
    "data.classes": whole(0, 2**24),
    "data.class_names": each(NAME),
    "data.background": optional(NAME),
    "data.crop": choice("centre", "random"),
    "data.crop_share": pair(real(0.1, 1)),
    "data.flip": SWITCH,
    "data.strict": SWITCH,
    "data.captions": choice("none", "first", "any"),
    "data.cache": whole(0, 2**24),
    "data.readers": whole(0, 1024),
    "data.copies": whole(1),
    "data.heldout_copies": whole(1),
    "data.rotate": real(0, 10),
    "data.scale": BELOW,
    "data.shear": real(0, 10),
    "data.shift": real(0, 2**14),
    "tokenizer.code_dim": SIZE,
    "tokenizer.vocab": whole(2, 2**16),  # codes are stored in 16 bits
    "tokenizer.side": whole(0, 2**10),
    "tokenizer.sides": each(whole(1, 2**10)),
    "tokenizer.pixels": real(0),
    "tokenizer.moments": real(0),
    "tokenizer.entropy": real(0),
    "tokenizer.phis": whole(1, 2**10),
    "tokenizer.stack.ch": SIZE,
    "tokenizer.stack.ch_mult": each(whole(1, 2**10), 1),
    "tokenizer.stack.z_channels": SIZE,
    "tokenizer.stack.encoder_blocks": whole(0, 2**10),
    "tokenizer.stack.decoder_blocks": whole(0, 2**10),
    "tokenizer.stack.groups": whole(0, 2**16),
    "tokenizer.stack.attention": SWITCH,
    "tokenizer.stack.mid": SWITCH,
    "tokenizer.stack.background": real(),
    "tokenizer.stack.reach": Kind("an odd number", lambda x: SIZE(x) and x % 2 == 1),
    "tokenizer.stack.patch": SIZE,
    "tokenizer.stack.remat": SWITCH,
    "model.width": SIZE,
    "model.depth": whole(1, 2**10),
    "model.heads": SIZE,
    "model.mlp_ratio": real(0, 2**10, above=True),
    "model.multiple_of": SIZE,
    "model.positions": SWITCH,
    "model.loud_cond": SWITCH,
    "model.cond": whole(1, 2**16),
    "model.caption_dim": whole(0, 2**16),
    "model.gate_init": real(),
    "model.shared_aln": SWITCH,
    "model.l2_norm": SWITCH,
    "text.prompts": FOLDER,
    "text.sizes": SECTION,
    **{f"text.sizes.{name}": SIZE for name in ("width", "heads", "head_dim", "hidden", "tokens", "vocab")},
    "text.sizes.depth": whole(1, 2**10),
    "text.sizes.buckets": whole(4, 2**16),
    "text.sizes.max_distance": whole(2, 2**16),
    "text.dtype": choice(*DTYPES),
    "text.words": SWITCH,
    "text.vocabulary": each(NAME),
    "text.batch": whole(1),
    "text.store": FOLDER,
    "dtype.teacher": choice(*STORED),
    "dtype.student": choice(*DTYPES),
    "flow.name": NAME,
    "flow.evaluations": whole(1, 2**16),
    "flow.readout": choice("x0", "snap"),
    "flow.start": optional(SHARE),
    "flow.end": optional(SHARE),
    "flow.normalise": SWITCH,
    "pairs.count": whole(1),
    "pairs.shard": whole(1),
    "pairs.batch": whole(1),
    "pairs.labels": choice("balanced", "uniform"),
    "pairs.first": optional(whole()),
    "pairs.verify": SWITCH,
    "student.head": choice("logits", "embedding", "both", "flow", "velocity"),
    "student.split": optional(whole()),
    "student.same_step": SWITCH,
    "train.timesteps": each(whole(), 1),
    "train.objective": choice("pairs", "on_policy", "mixed", "refined", "csd"),
    "train.fresh": real(0, 1, above=True),
    "train.tau": real(0, above=True),
    "train.pairs": each(real(0), 1),
    "train.middle": real(0),
    "train.forward_kl": each(real(0), 1),
    "train.reverse_kl": each(real(0), 1),
    "train.csd.start": choice("gts", "residual"),
    "train.csd.start_steps": pair(whole()),
    "train.csd.start_batch": whole(),
    "train.csd.start_lr": real(0),
    "train.csd.score_lr": real(0),
    "train.csd.updates": pair(whole(1)),
    "train.csd.align_at": whole(),
    "train.csd.align": whole(),
    "train.csd.draws": whole(1),
    "train.csd.alpha": real(),
    "train.ce": real(0),
    "train.embedding": real(0),
    "train.distance": NAME,
    "train.distance_batch": whole(),
    "train.remat": SWITCH,
    "train.scan": SWITCH,
    "train.accumulate": whole(1),
    "train.log": each(NAME),
    "train.grid_every": whole(),
    "sample.plans": each(NAME, 1),
    "sample.count": whole(1),
    "sample.scheme": choice("balanced", "uniform"),
    "sample.fast": SWITCH,
    "sample.labels": TEXT,
    "sample.few": whole(1),
    "sample.prompt": TEXT,
    "sample.prompts": PATH,
    "sample.tau": real(0, above=True),
    "sample.seed": optional(whole(0, SEEDS)),
    "sample.batch": whole(1),
    "sample.shard": whole(1),
    "sample.npz": SWITCH,
    "sample.resolution": optional(whole(1, 2**14)),
    "sample.rounding": choice("nearest", "floor"),
    "sample.categorical": SWITCH,
    "sample.smooth": SWITCH,
    "sample.unmasked_prefix": SWITCH,
    "sample.by_plan": table({"split": optional(whole()), **FILTER}),
    "evaluate.count": whole(1),
    "evaluate.reference": whole(),
    "evaluate.batch": whole(1),
    "evaluate.plans": each(NAME),
    "evaluate.beside": each(NAME),
    "evaluate.taus": each(real(0, above=True)),
    "evaluate.check": TEXT,
    "evaluate.check_count": whole(),
    "evaluate.inception": FOLDER,
    "evaluate.reference_statistics": FOLDER,
    "evaluate.protocol": choice("adm", "pytorch_fid", "clean"),
    "evaluate.features_batch": whole(1),
    "evaluate.products": choice("highest", "high", "default"),
    "evaluate.distances": choice("float32", "float16"),
    "evaluate.extras": SWITCH,
    "evaluate.force": SWITCH,
    "evaluate.memory": SWITCH,
    "baselines.onestep": SWITCH,
    "baselines.skip": each(whole()),
    "baselines.skip_drop": each(whole()),
    "speed.plans": each(NAME),
    "speed.batches": each(whole(1)),
    "speed.repeats": whole(1),
    "speed.training": SWITCH,
}
IN = {"ported": NAME, "weights": FOLDER}  # sections that take any name
CLOSED = (
    "model",
    "classifier",
    "tokenizer.stack",
    "text.sizes",
    "filter",
    "sample.filter",
    "flow",
)  # and no other here
PRETRAINED = ("label_dropout", "word_dropout", "token_corruption", "revive_every")  # a teacher's or tokenizer's alone
CUT = ("crop", "crop_share", "flip", "strict", "captions", "cache", "readers")
WARP = ("copies", "heldout_copies", "rotate", "scale", "shear", "shift")
# Settings of a section that is there; of these sections all that is not here may be left out.
WITH = {
    "": ("model.width", "model.depth", "model.heads", "tokenizer.vocab", "tokenizer.code_dim"),
    "text": ("text.prompts", "text.sizes", "text.dtype", "text.words", "text.batch", "text.store"),
    "pretrain": (
        *(f"pretrain.{part}.{name}" for part in ("classifier", "tokenizer", "teacher") for name in RECIPE_NEEDS),
        "pretrain.tokenizer.revive_every",
        *(f"data.{name}" for name in WARP),
    ),
}
LEFT: tuple[str, ...] = ("model.", "classifier", "text.", "tokenizer.", "pretrain.", "sample.seed")
LEFT += ("train.distance_batch", "data.background", "student.head", "sample.tau", "evaluate.taus")
LEFT += ("evaluate.beside", "data.class_names", *(f"data.{name}" for name in CUT))
LEFT += tuple(f"train.{name}" for name in ("objective", "fresh", "tau", "pairs", "middle", "forward_kl", "reverse_kl"))
LEFT += ("train.csd.", "flow.start", "flow.end", "flow.normalise", *(f"data.{name}" for name in WARP))


def of(name: str) -> Kind | None:
    """The kind of the setting `train.lr`; none for one that only a family of one's own has."""
    section, _, last = name.rpartition(".")
    if name in KINDS or section in IN:
        return KINDS.get(name) or IN[section]
    if section == "train" or section.startswith("pretrain."):
        return RECIPE.get(last)
    return FILTER.get(last) if section.endswith("filter") else None


@functools.cache
def sections() -> frozenset[str]:
    """Names that stand for several settings."""
    parts = [name.split(".") for name in (*KINDS, "train.steps", "filter.top_k", "sample.filter.top_k")]
    found = {".".join(part[:i]) for part in parts for i in range(1, len(part))}
    return frozenset({*found, *WITH} - {"", "classifier"})


@functools.cache
def needed() -> tuple[str, ...]:
    """Settings that every config has."""
    trained = [f"train.{name}" for name in RECIPE_NEEDS]
    filters = [f"{section}.{name}" for section in ("filter", "sample.filter") for name in FILTER]
    return (*[name for name in (*KINDS, *trained, *filters) if not name.startswith(LEFT)], "classifier", *WITH[""])


def _mesh(x: Any) -> bool:
    return isinstance(x, tuple | list) and len(x) == 2 and all(isinstance(n, int) and (n > 0 or n == -1) for n in x)
