"""Every published model that can be ported: what it is, where it is published, and how its keys map."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from configs import llamagen as llamagen_configs
from dd_jax import factory
from dd_jax.errors import UserError
from dd_jax.interfaces import Params
from port_weights import llamagen, tokenizers
from port_weights.rules import Table
from port_weights.source import CONTAINERS

LLAMAGEN = "FoundationVision/LlamaGen"
DISTILLED = "microsoft/distilled_decoding"


@dataclasses.dataclass(frozen=True)
class Known:
    """One published file. `repo` and `file` are those of huggingface.co."""

    id: str
    part: str  # what it is for a config: "tokenizer", "teacher" or "student"
    repo: str
    file: str
    licence: str
    config: Callable[[], ConfigDict]
    table: Callable[[], Table]
    containers: Sequence[str] = CONTAINERS
    companions: tuple[tuple[str, str], ...] = ()  # part -> id of the models that it is used with

    def expected(self) -> Params:
        """Shapes of its parameters."""
        system = factory.build(self.config())
        key = jax.random.key(0)
        if self.part == "tokenizer":
            return jax.eval_shape(system.tokenizer.init, key)
        if self.part == "student":
            return jax.eval_shape(system.student.init, key)
        return jax.eval_shape(system.teacher_init, key, {})

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.expected()))

    def about(self) -> dict[str, Any]:
        """What its folder says of it."""
        return {
            "id": self.id,
            "part": self.part,
            "origin": f"https://huggingface.co/{self.repo} {self.file}",
            "licence": self.licence,
            "companions": dict(self.companions),
            "config": self.config().to_dict(),
        }


def _llamagen() -> list[Known]:
    """Class-conditional teachers, their tokenizers, and the distilled students."""
    found = []
    for size in llamagen_configs.SIZES:
        for resolution in ("256", "384"):
            if resolution == "256" and size not in "bl":
                continue  # only B and L were published at 256 px
            name = f"llamagen_{size}" + ("_384" if resolution == "384" else "")
            file = f"c2i_{size.upper()}_{resolution}.pt"
            config = _bind(size, resolution)
            raw_first = (("", *CONTAINERS[:-1])) if size in ("xxl", "3b") else CONTAINERS
            found.append(Known(name, "teacher", LLAMAGEN, file, "MIT", config, llamagen.teacher, raw_first, (VQ16,)))
    for size in "bl":
        used = (VQ16, ("teacher", f"llamagen_{size}"))
        file = f"LlamaGen-DD/llamagen-{size.upper()}.pt"
        name, order = f"llamagen_{size}_dd", ("ema", *CONTAINERS)
        found.append(Known(name, "student", DISTILLED, file, "MIT", _bind(size), llamagen.student, order, used))
    for name, downsample, option in (("vq16", 16, ""), ("vq8", 8, "vq8")):
        table = _bind_table(len(llamagen_configs.LEVELS[downsample]))
        file = f"vq_ds{downsample}_c2i.pt"
        found.append(Known(name, "tokenizer", LLAMAGEN, file, "MIT", _bind("b", option), table))
    return found


VQ16 = ("tokenizer", "vq16")


def _bind(size: str, option: str = "") -> Callable[[], ConfigDict]:
    return lambda: llamagen_configs.get(size, option)


def _bind_table(levels: int) -> Callable[[], Table]:
    return lambda: tokenizers.vq(levels)


CATALOG = {known.id: known for known in _llamagen()}


def find(name: str) -> Known:
    """UserError for an unknown id."""
    if name not in CATALOG:
        raise UserError(f"unknown model {name!r}: python -m port_weights list shows all of them")
    return CATALOG[name]
