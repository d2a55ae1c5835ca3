"""Names that saved files and folders may hold under an earlier spelling. What is written now has the newer one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NEWER = {
    "judge": "classifier",
    "label_drop": "label_dropout",
    "word_drop": "word_dropout",
    "corrupt": "token_corruption",
}
# What a run meant that was made before a setting existed, as JSON has it.
MEANT: dict[str, Any] = {
    "tokenizer.entropy": 0.0,
    "tokenizer.stack.remat": False,
    "pretrain.tokenizer.accumulate": 1,
    "pretrain.tokenizer.dtype": "float32",
    "pretrain.tokenizer.l1": 0.0,
    "pretrain.tokenizer.perceptual": "none",
    "pretrain.tokenizer.perceptual_weight": 1.0,
    "pretrain.tokenizer.perceptual_every": 1,
    "pretrain.tokenizer.gan_weight": 0.0,
    "pretrain.tokenizer.gan_adaptive": True,
    "pretrain.tokenizer.gan_start": 0,
    "pretrain.tokenizer.gan_lr": 1e-4,
    "pretrain.tokenizer.gan_width": 64,
    "pretrain.tokenizer.gan_layers": 3,
    "pretrain.tokenizer.gan_r1": 0.0,
    "pretrain.tokenizer.gan_lecam": 0.0,
    "pretrain.teacher.from": "",
    "pretrain.teacher.trunk_lr": 1.0,
    "pretrain.teacher.views": 0,
    "pretrain.teacher.label_smoothing": 0.0,
    "pretrain.teacher.dropout": 0.0,
    "pretrain.teacher.drop_path": 0.0,
    "pretrain.teacher.remat": False,
    "pretrain.teacher.scan": False,
    "pretrain.teacher.accumulate": 1,
    "student.head": "both",
    "train.objective": "pairs",
    "train.fresh": 0.5,
    "train.tau": 1.0,
    "train.pairs": [1.0],
    "train.middle": 0.0,
    "train.forward_kl": [1.0],
    "train.reverse_kl": [0.3],
    "train.csd.start": "gts",
    "train.csd.start_steps": [0, 0],
    "train.csd.start_batch": 0,
    "train.csd.start_lr": 2e-4,
    "train.csd.score_lr": 2e-4,
    "train.csd.updates": [5, 2],
    "train.csd.align_at": 0,
    "train.csd.align": 0,
    "train.csd.draws": 4,
    "train.csd.alpha": 1.0,
    "data.crop": "centre",
    "data.crop_share": [0.8, 1.0],
    "data.flip": False,
    "data.strict": True,
    "data.captions": "none",
    "data.cache": 1024,
    "data.readers": 0,
    "sample.tau": 1.0,
    "evaluate.taus": [],
    "evaluate.beside": [],
}
NAMELESS = {"ada_gss"}  # of models without a shared modulation layer


def newer(settings: Any) -> Any:
    """Settings, nested ({"pretrain": {"judge": ...}}) or flat ({"pretrain.judge.steps": ...}), under today's names."""
    if not isinstance(settings, Mapping):
        return settings
    return {name(key): newer(x) for key, x in settings.items()}


def name(setting: str) -> str:
    """Today's name of `pretrain.judge.steps`."""
    return ".".join(NEWER.get(part, part) for part in setting.split("."))


def apart(value: Any) -> Any:
    """A list of names as it was meant: ("a,b",), which is what a command line makes of NAME=a,b, is ("a", "b")."""
    if not isinstance(value, tuple | list) or not any(isinstance(item, str) for item in value):
        return value
    parts = [item.split(",") if isinstance(item, str) else [item] for item in value]
    stripped = [part.strip() if isinstance(part, str) else part for some in parts for part in some]
    return type(value)(part for part in stripped if part != "")


def same(setting: str, then: Any, now: Any) -> bool:
    """Do two values of a setting mean the same? A list of `no_decay` once had a name that no parameter has.

    Names of classes, and words of captions, were once not noted.
    """
    if setting in ("data.class_names", "text.vocabulary") and (not then or not now):
        return True
    if setting.endswith(".no_decay") and then and now is not None:
        return {*then} - NAMELESS == {*now} - NAMELESS
    return bool(then == now)


def folder(parent: Path, name: str) -> Path:
    """`parent`/`name`, or what stands there under its earlier name."""
    earlier = [parent / old for old, new in NEWER.items() if new == name and (parent / old).exists()]
    return earlier[0] if earlier and not (parent / name).exists() else parent / name
