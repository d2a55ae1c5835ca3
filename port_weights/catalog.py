"""Every published model that can be ported: what it is, where it is published, and how its keys map."""

import dataclasses
import functools
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dd_jax.configs import llamagen as llamagen_configs
from dd_jax.configs import var as var_configs
from dd_jax.system.errors import UserError
from port_weights import lpips, models, rules, t5
from port_weights.rules import Table
from port_weights.source import CONTAINERS

LLAMAGEN = "FoundationVision/LlamaGen"
LLAMAGEN_T2I = "peizesun/llamagen_t2i"
VAR = "FoundationVision/var"
DISTILLED = "microsoft/distilled_decoding"
RAW_FIRST = ("", *CONTAINERS[:-1])  # FSDP trainers save the bare state dict
EMA_FIRST = ("ema", *CONTAINERS)
TRAINER_FIRST = ("trainer.ema_parameters", "trainer.var_wo_ddp", *CONTAINERS)


@dataclasses.dataclass(frozen=True)
class Known:
    """One published model. `repo` and `file` are those of huggingface.co, unless there are `urls`."""

    id: str
    part: str  # what it is for a config: "tokenizer", "teacher", "student", "lpips", "text"; or "inception", for scores
    repo: str
    file: str
    config: Callable[[], ConfigDict]
    containers: Sequence[str] = CONTAINERS
    companions: tuple[tuple[str, str], ...] = ()  # part -> id of the models that it is used with
    licence: str = "MIT"
    urls: tuple[str, ...] = ()  # files from elsewhere, which make one model together
    sha256: tuple[str, ...] = ()  # how their checksums begin
    shards: tuple[str, ...] = ()  # the index and the files of a model that was published in several
    beside: tuple[str, ...] = ()  # files without weights that it is used with, copied as they are
    elsewhere: Callable[[], Table] | None = None  # how its keys map in a file of others

    @property
    def files(self) -> tuple[str, ...]:
        """All names under `repo`."""
        return (*(self.shards or (self.file,)), *self.beside)

    def expected(self) -> models.Params:
        """Shapes of its parameters."""
        return models.expected(self.config(), self.part)

    def table(self) -> Table:
        """How its keys map."""
        return models.table(self.config(), self.part)

    def table_for(self, keys: Iterable[str]) -> Table:
        """The table of a file with these keys: the published one's, unless they are the other's."""
        other = self.elsewhere and self.elsewhere()
        return other if other and not rules.wanted(other, self.expected()).isdisjoint(keys) else self.table()

    @property
    def parameters(self) -> int:
        """How many numbers were trained, as noted: counting them all takes most of a minute."""
        return int(_noted()[self.id])

    def count(self) -> int:
        """How many numbers were trained, counted."""
        return models.count(self.config(), self.part)

    def wrapped(self, weights: Mapping[str, Any]) -> Any:
        """A state dict as the published file holds it: inside its first container."""
        tree: Any = OrderedDict(weights)
        for part in reversed([part for part in self.containers[0].split(".") if part]):
            tree = {part: tree}
        return tree

    def about(self, config: ConfigDict) -> dict[str, Any]:
        """What its folder says of it."""
        return {
            "id": self.id,
            "part": self.part,
            "origin": " + ".join(self.urls) or f"https://huggingface.co/{self.repo} {self.file}",
            "licence": self.licence,
            "companions": dict(self.companions),
            "config": config.to_dict(),
        }


@functools.cache
def _noted() -> dict[str, int]:
    found: dict[str, int] = json.loads((Path(__file__).parent / "parameters.json").read_text())
    return found


VQ16 = ("tokenizer", "vq16")


def _llamagen() -> list[Known]:
    """Teachers, their tokenizers, and the distilled students."""
    get, t2i = llamagen_configs.get, llamagen_configs.t2i
    found: list[Known] = []
    used: tuple[tuple[str, str], ...]
    for name, file, option in (("vq16", "vq_ds16_c2i.pt", ""), ("vq8", "vq_ds8_c2i.pt", "vq8")):
        found.append(Known(name, "tokenizer", LLAMAGEN, file, functools.partial(get, "b", option)))
    found.append(Known("vq16_t2i", "tokenizer", LLAMAGEN_T2I, "vq_ds16_t2i.pt", functools.partial(t2i, 256)))
    for size in llamagen_configs.SIZES:
        raw = RAW_FIRST if size in ("xxl", "3b") else CONTAINERS
        for option in ("256", "384") if size in "bl" else ("384",):  # only B and L were published at 256 px
            name = f"llamagen_{size}" + ("_384" if option == "384" else "")
            file, config = f"c2i_{size.upper()}_{option}.pt", functools.partial(get, size, option)
            found.append(Known(name, "teacher", LLAMAGEN, file, config, raw, (VQ16,)))
    for size in "bl":
        name, file = f"llamagen_{size}_dd", f"LlamaGen-DD/llamagen-{size.upper()}.pt"
        used = (VQ16, ("teacher", f"llamagen_{size}"))
        found.append(Known(name, "student", DISTILLED, file, functools.partial(get, size), EMA_FIRST, used))
    for stage, px in ((1, 256), (2, 512)):
        name, file = f"llamagen_t2i_xl_{px}", f"t2i_XL_stage{stage}_{px}.pt"
        used = (("tokenizer", "vq16_t2i"), ("text", "flan_t5_xl"))
        found.append(Known(name, "teacher", LLAMAGEN_T2I, file, functools.partial(t2i, px), CONTAINERS, used))
    return found


def _var() -> list[Known]:
    """Teachers, the tokenizer that they share, and the distilled students."""
    get, found = var_configs.get, []
    tokenizer = ("tokenizer", "var_vae")
    vae = "vae_ch160v4096z32.pth"  # as the transformers, saved without a container
    found.append(Known("var_vae", "tokenizer", VAR, vae, functools.partial(get, 16), RAW_FIRST))
    for depth in var_configs.DEPTHS:
        name, file, config = f"var_d{depth}", f"var_d{depth}.pth", functools.partial(get, depth)
        found.append(Known(name, "teacher", VAR, file, config, RAW_FIRST, (tokenizer,)))
    for depth in (16, 20, 24):
        name, file, config = f"var_d{depth}_dd", f"VAR-DD/var-d{depth}.pth", functools.partial(get, depth)
        used = (tokenizer, ("teacher", f"var_d{depth}"))
        found.append(Known(name, "student", DISTILLED, file, config, TRAINER_FIRST, used))
    return found


def _eyes() -> list[Known]:
    """What compares images: LPIPS in training, the Inception of FID, whose two files hold the same weights."""
    names = " + ".join(url.rsplit("/", 1)[1] for url in lpips.URLS)
    licence = "BSD-3-Clause (torchvision) + BSD-2-Clause (lpips)"
    more: dict[str, Any] = {
        "licence": licence,
        "urls": lpips.URLS,
        "sha256": lpips.SHA256,
        "elsewhere": lpips.flax_table,
    }
    found = [Known("lpips_vgg", "lpips", "torchvision, lpips", names, ConfigDict, **more)]
    for name, repo, release, prefix in (
        ("inception", "mseitzer/pytorch-fid", "fid_weights", "pt_inception"),
        ("inception_fidelity", "toshas/torch-fidelity", "v0.2.0", "weights-inception"),
    ):
        file = f"{prefix}-2015-12-05-6726825d.pth"  # ends in the first digits of its checksum
        urls = (f"https://github.com/{repo}/releases/download/{release}/{file}",)
        more = {"licence": "Apache-2.0", "urls": urls, "sha256": ("6726825d",)}
        found.append(Known(name, "inception", repo, file, ConfigDict, RAW_FIRST, **more))
    return found


def _text() -> list[Known]:
    """The encoder of captions."""
    more: dict[str, Any] = {"licence": "Apache-2.0", "shards": t5.FILES, "beside": t5.BESIDE}
    file = "model-0000[12]-of-00002.safetensors"
    return [Known("flan_t5_xl", "text", "google/flan-t5-xl", file, t5.config, RAW_FIRST, **more)]


CATALOG = {known.id: known for known in (*_llamagen(), *_var(), *_eyes(), *_text())}


def find(name: str) -> Known:
    """UserError for an unknown id."""
    if name not in CATALOG:
        raise UserError(f"unknown model {name!r}: python -m port_weights list shows all of them")
    return CATALOG[name]
