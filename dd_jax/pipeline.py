"""The library: `run` a config, then `dd_jax.load(workdir).sample([3, 7], plan="S0")`."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from dd_jax import factory
from dd_jax.data.conditions import Conditions
from dd_jax.data.sampleset import to_uint8
from dd_jax.method.fewstep import noise_for, run_plan
from dd_jax.method.interfaces import Draft, Params
from dd_jax.method.plans import parse
from dd_jax.stages import run as stages
from dd_jax.stages.parts import PARTS, System, load_params
from dd_jax.stages.workdir import Workdir
from dd_jax.system import rng, weights
from dd_jax.system.errors import UserError


def run(config: ConfigDict, workdir: str | Path, stage: str = "all", source: str | Path | None = None) -> None:
    """One stage of a config in a work directory, or all that are not done: what `python -m dd_jax.main` does.

    `source`: the work directory of a finished run, whose tokenizer, teacher, feature classifier and pairs are taken by
    reference; pairs are drawn anew where their settings differ. It is remembered.
    UserError, in one line, for what cannot be; `stopping.Stopped` after SIGTERM, with everything saved.
    """
    noted = Workdir(workdir, config.to_dict(), source).noted("pretrain")
    config = factory.settled(factory.shrink(config) if config.smoke else config, noted)
    stages.run(factory.build(config), config, workdir, stage, source)


class Pipeline:
    """Models and parameters of one run; one compilation for each plan and batch size."""

    def __init__(self, system: System, params: dict[str, Params]):
        self.system, self.params = system, params
        self._compiled: dict[str, Any] = {}

    @classmethod
    def load(cls, folder: str | Path, trust: Sequence[str] = (), **companions: str | Path) -> "Pipeline":
        """Open a finished work directory, or ported weights (see `dd_jax.load`). UserError if there are none."""
        path = Path(folder).absolute()
        if (path / weights.WEIGHTS).exists():
            return cls._ported(path, companions, trust)
        if not (path / "config.json").exists():
            raise UserError(f"{path} has no config.json: train one with python -m dd_jax.main --workdir={path}")
        config = factory.frozen(json.loads((path / "config.json").read_text()), trust)
        system = factory.build(config)
        return cls(system, load_params(system, config, path))

    @classmethod
    def _ported(cls, path: Path, companions: Mapping[str, str | Path], trust: Sequence[str]) -> "Pipeline":
        """A ported model with the others that it needs: given by part, or looked for beside it."""
        about = weights.describe(path)
        if about["part"] not in ("tokenizer", "teacher", "student"):
            uses = {part: f"--config.weights.{part}" for part in ("lpips", "text", "classifier")}
            use = uses.get(about["part"], "python -m dd_jax.metrics.score")
            raise UserError(f"{path} holds {about['id']}, which draws no images: it is for {use}")
        config = factory.frozen(about["config"], trust)
        config.weights[about["part"]] = str(path)
        for part, name in about["companions"].items():
            folder = Path(companions.get(part, path.parent / name))
            if part in companions or (folder / weights.CONFIG).exists():
                config.weights[part] = str(folder)
        parts = [part for part in PARTS if config.weights.get(part)]
        if "tokenizer" not in parts:
            name = about["companions"].get("tokenizer", "tokenizer")
            raise UserError(f"{path} needs its tokenizer {name}: python -m port_weights {name} --out {path.parent}")
        system = factory.build(config)
        return cls(system, load_params(system, config, path, parts))

    @functools.cached_property
    def conditions(self) -> Conditions:
        """What may be drawn."""
        return self.system.conditions(self.params)

    def _run(self, plan: str) -> Any:
        if plan not in self._compiled:
            self._compiled[plan] = jax.jit(functools.partial(run_plan, plan, self.system.models))
        return self._compiled[plan]

    def noise(self, ids: int | np.ndarray, seed: int = 0) -> jax.Array:
        """(B, L, C) noise of these images of a seed, or of the first so many: image i is the same in any batch."""
        keys = rng.example_keys(
            rng.stream(seed, "sample"), jnp.arange(ids) if isinstance(ids, int) else jnp.asarray(ids)
        )
        return noise_for(keys, self.system.layout.tokens, self.system.tokenizer.code_dim)

    def tokens(
        self,
        labels: ArrayLike,
        plan: str = "S0",
        seed: int = 0,
        noise: jax.Array | None = None,
        ids: np.ndarray | None = None,
    ) -> Draft:
        """Latents and codes of one image a label (see `interfaces.Draft`).

        The images are those numbered `ids` of a seed, by default 0, 1, ...; `noise=` fixes the noise instead.
        """
        cond = self.conditions.of(labels)
        count = len(jax.tree.leaves(cond)[0])
        for op in parse(plan, self.system.layout.steps, self.system.objective.timesteps):
            network = "student" if op.kind == "S" else "teacher"
            if network not in self.params:
                raise UserError(f"plan {plan!r} needs a {network}: dd_jax.load(folder, {network}=FOLDER)")
        ids = np.arange(count) if ids is None else ids
        wanted = (count, self.system.layout.tokens, self.system.tokenizer.code_dim)
        if noise is None:
            noise = self.noise(ids, seed)
        elif noise.shape != wanted:
            raise UserError(f"noise must be {wanted}, one row a label, got {noise.shape}")
        keys = rng.example_keys(jax.random.fold_in(rng.stream(seed, "sample"), 1 << 20), jnp.asarray(ids))
        return self._run(plan)(self.params, cond, jnp.asarray(noise), keys)

    def sample(
        self,
        labels: ArrayLike,
        plan: str = "S0",
        seed: int = 0,
        noise: jax.Array | None = None,
        ids: np.ndarray | None = None,
    ) -> np.ndarray:
        """uint8 images (B, R, R, channels), one a label (see `tokens`)."""
        draft = self.tokens(labels, plan, seed, noise, ids)
        return to_uint8(self._decode(self.params["tokenizer"], draft.token_BxLxC))

    @functools.cached_property
    def _decode(self) -> Any:
        return jax.jit(self.system.tokenizer.decode)
