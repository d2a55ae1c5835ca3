"""Everything that a student's training may minimise, on tiny models: for laws that hold for all of it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from dd_jax.data.pairset import PairSet
from dd_jax.method.csd import Csd
from dd_jax.method.losses import Weights
from dd_jax.method.objectives import Objective
from dd_jax.metrics.classifier import Classifier
from dd_jax.stages.train import distance_of
from dd_jax.system import rng

FAMILIES = {"raster": tiny.raster, "scales": tiny.scales}
ONE, NO = (0,), Weights(1.0, 0.0)
ALL: dict[str, tuple[str, Callable[[int], Objective]]] = {  # its head, and itself, of so many AR steps
    "pairs": ("both", lambda steps: Objective((0, 1), steps // 2, Weights(0.1, 1.0), "mse")),
    "on_policy": ("flow", lambda steps: Objective(ONE, steps, NO, fresh=1.0, tau=0.7)),
    "mixed": ("flow", lambda steps: Objective((0, 1), steps, NO, fresh=0.5, middle=0.4, pairs=(1.0, 0.0))),
    "refined": ("logits", lambda steps: Objective(ONE, steps, NO, fresh=0.5, refined=True)),
    "drift": ("logits", lambda steps: Objective(ONE, steps, Weights(0.1, 1.0), "drift")),
    "flow_drift": ("flow", lambda steps: Objective(ONE, steps, Weights(0.1, 1.0), "drift", fresh=0.5, tau=0.7)),
    "csd": ("velocity", lambda steps: Objective(ONE, steps, Weights(0.0, 0.0), fresh=1.0, csd=TURNS)),
}
# Six steps are the shortest training that has every turn.
TURNS = Csd(start_steps=(1, 1), start_lr=1e-3, score_lr=1e-3, updates=(1, 1), align_at=2, align=1, draws=2)
STEPS = 6


class Decoder:
    """Code vectors as pictures of 8 x 8, whatever their number."""

    @staticmethod
    def decode(params: Any, token_BxLxC: jax.Array) -> jax.Array:
        flat = token_BxLxC.reshape(len(token_BxLxC), -1)
        return jnp.pad(flat, ((0, 0), (0, 64 - flat.shape[1]))).reshape(-1, 8, 8, 1)


def case(name: str, family: str) -> tuple[Any, dict[str, Any], Objective, Callable | None]:
    """(models, parameters, objective, distance)."""
    head, make = ALL[name]
    models, params = FAMILIES[family](head=head)
    objective, classifier = make(models.layout.steps), Classifier(8, patch=1)
    if objective.distance == "drift":
        params["classifier"] = jax.jit(classifier.init)(rng.key(0))
    models = dataclasses.replace(models, split=objective.split)
    return models, params, objective, distance_of(objective, Decoder, classifier)


def pairs(tokens: int, count: int = 40) -> PairSet:
    """A set whose codes mean nothing."""
    ids, draw = np.arange(count), np.random.default_rng(0)
    code = draw.integers(0, tiny.VOCAB, (count, tokens)).astype(np.uint16)
    return PairSet(({"id": ids, "label": ids % tiny.CLASSES, "code": code},))
