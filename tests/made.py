"""What the commands of README and docs name, made small: published files, ported weights, runs, pictures, captions."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import snippets
from ml_collections import ConfigDict
from PIL import Image
from stand_in import POOL, SPATIAL, Stand, stand

from dd_jax.configs import llamagen, var
from dd_jax.data import images
from dd_jax.metrics import inception, reference, score
from dd_jax.metrics.inception import Inception
from dd_jax.scripts import fake_release, fake_shards
from dd_jax.stages import fid
from dd_jax.system import files, torch_writer, weights
from port_weights import __main__ as port
from port_weights.catalog import CATALOG

ROOT = Path(__file__).parents[1]
TEXT = {"width": 32, "heads": 4, "head_dim": 16, "hidden": 48, "depth": 2, "vocab": 128}  # as `fake_shards.TINY`
PLANS = ("S0", "S0 S5")


def narrow(config: ConfigDict) -> ConfigDict:
    """A published config with everything small that costs time; its steps, plans and splits stay."""
    config.tokenizer.stack.update({"ch": 8, "ch_mult": (1, 1), "z_channels": 8})
    config.tokenizer.stack.groups = 4
    config.tokenizer.vocab = 64
    config.tokenizer.code_dim = 8
    config.data.resolution = 32  # of two levels; 16 x 16 codes as before
    config.model.update({"width": 32, "depth": 1, "heads": 2})
    config.dtype.teacher = "float32"
    if "text" in config:
        config.text.sizes = ConfigDict(TEXT)
        config.text.dtype = "float32"
        config.model.caption_dim = TEXT["width"]
    config.pairs.update({"count": 8, "shard": 4, "batch": 4})
    config.train.update({"steps": 2, "batch": 4, "checkpoint_every": 2, "distance_batch": 0})
    config.sample.update({"count": 8, "few": 2, "batch": 4, "shard": 4})
    config.sample.resolution = None
    config.sample.filter.top_k = min(config.sample.filter.top_k, 20)
    config.filter.top_k = min(config.filter.top_k, 20)
    config.evaluate.update({"count": 4, "batch": 4, "plans": config.evaluate.plans[:1]})
    config.speed.update({"batches": (1,), "repeats": 1, "plans": ("decode", "S0")})
    config.mesh = (1, 1)
    return config


@pytest.fixture(scope="module")
def small_models():
    """Published configs, and the catalogue of their files, at toy sizes; the networks of scores stood in for."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((llamagen, "get"), (llamagen, "t2i"), (var, "get")):
            patch.setattr(module, name, _narrowed(getattr(module, name)))
        for known in list(CATALOG.values()):
            if known.part in ("tokenizer", "teacher", "student"):
                patch.setitem(CATALOG, known.id, dataclasses.replace(known, config=_narrowed(known.config)))
        sizes = functools.partial(ConfigDict, fake_shards.TINY.sizes())
        patch.setitem(CATALOG, "flan_t5_xl", dataclasses.replace(CATALOG["flan_t5_xl"], config=sizes))
        patch.setattr(inception, "POOL", POOL)
        patch.setattr(inception, "SPATIAL", SPATIAL)
        for user in (fid, score, reference):
            patch.setattr(user, "Extractor", Stand)
        patch.setattr(inception, "load", lambda folder: Inception({}, {"id": "stand", "sha256": "a" * 64}))
        patch.setattr(inception, "check_folder", lambda folder: None)
        yield


def _narrowed(get):
    return lambda *given: narrow(get(*given))


@dataclasses.dataclass
class Room:
    """The folder that a command runs in; what is made for all of them lies in `store`."""

    here: Path
    store: Path
    run: Path  # a finished one

    def weights(self, model: str) -> Path:
        """A ported model, made once."""
        made = self.store / "weights" / model
        if not made.exists() and model == "inception":  # stood in for
            about = {"format": weights.FORMAT, "id": "stand", "part": "inception", "sha256": "a" * 64}
            files.replace(made / weights.CONFIG, json.dumps(about).encode())
        elif not made.exists():
            port.port(CATALOG[model], self.release(model), made.parent)
        (self.here / "weights").mkdir(exist_ok=True)
        if not (link := self.here / "weights" / model).exists():
            link.symlink_to(made)
        return link

    def release(self, model: str, *names: str) -> Path | list[Path]:
        """The published file or files of a model, made once; as `names` in the room."""
        known = CATALOG[model]
        folder = self.store / "published" / model
        if not folder.exists():
            if known.shards:
                how = torch_writer.write_torch, fake_release._random, "safetensors", "float32", 2
                fake_shards.release(folder, fake_shards.TINY, *how)
            else:
                folder.mkdir(parents=True)
                fake_release.release(model, *(folder / f"{i}.pth" for i in range(max(1, len(known.urls)))))
        if known.shards:
            return folder
        found = sorted(folder.iterdir())
        for name, file in zip(names, found, strict=False):
            (self.here / name).symlink_to(file)
        return found if len(found) > 1 else found[0]

    def finished(self, name: str) -> Path:
        """A copy of the finished toy run."""
        return shutil.copytree(self.run, self.here / name, dirs_exist_ok=True)

    def pictures(self, name: str, classes=("cats", "dogs", "owls"), side: int = 40, captioned: bool = False) -> Path:
        """A folder with a subfolder a class; captions beside the pictures, if they are asked for."""
        draw = np.random.default_rng(0)
        for label in classes:
            (self.here / name / label).mkdir(parents=True, exist_ok=True)
            for i in range(24):
                pixels = draw.integers(0, 256, (side, side, 3), np.uint8)
                Image.fromarray(pixels).save(self.here / name / label / f"{i}.png")
                if captioned:
                    (self.here / name / label / f"{i}.txt").write_text(f"one of the {label}, number {i}\n")
        return self.here / name

    def statistics(self, name: str, side: int) -> None:
        """A reference of the network that stands in."""
        draw = np.random.default_rng(1)
        real = images.from_array(draw.integers(0, 256, (60, side, side, 3), np.uint8))
        reference.record(stand(), real, self.here / name)

    def module(self, name: str) -> None:
        """A file of docs/extending.md."""
        for block in snippets.blocks((ROOT / "docs/extending.md").read_text()):
            if block.module == name:
                (self.here / f"{name}.py").write_text(block.code)
