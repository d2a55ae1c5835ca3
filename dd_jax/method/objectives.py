"""What the student's training minimises, by name: Alg. 2's loss on pairs, and divergences on fresh noises.

`csd` has losses in turns, and a second network: see `csd`. Of the others, a batch has rows of several kinds; one
forward reads them all, and each kind has its loss.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dd_jax.method import flow, losses, on_policy
from dd_jax.method.csd import Csd
from dd_jax.method.fewstep import noise_for
from dd_jax.method.interfaces import Params
from dd_jax.method.layout import Layout
from dd_jax.method.models import Models
from dd_jax.method.student import AHEAD
from dd_jax.system.rng import example_keys, stream

# The share of a batch that are fresh noises; None: config.train.fresh says it.
OBJECTIVES: dict[str, float | None] = {"pairs": 0.0, "on_policy": 1.0, "mixed": None, "refined": None, "csd": 1.0}
# name -> {"cond", "x" (X_t), "t", "id", and a pair's "code"}
Parts = dict[str, dict[str, Any]]
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised: Alg. 2's loss on pairs, divergences from the teacher on fresh noises, or both."""

    timesteps: tuple[int, ...]  # boundaries that pairs draw from, in turns
    split: int
    weights: losses.Weights
    distance: str = "none"  # of the embedding head, by name (see `distances`)
    distance_batch: int = 0  # images that are decoded and compared at a time; 0: all
    fresh: float = 0.0  # share of a batch that are fresh noises, the student's own codes behind them
    refined: bool = False  # they are pairs then, of the codes that one sweep of refinement makes of the student's own
    tau: float = 1.0  # temperature at which these codes are drawn
    # Weights over the training, each a list of values joined by lines.
    pairs: tuple[float, ...] = (1.0,)
    forward: tuple[float, ...] = (1.0,)  # KL(teacher || student)
    reverse: tuple[float, ...] = (0.3,)  # KL(student || teacher)
    csd: Csd | None = None  # conditional score distillation instead of all that
    middle: float = 0.0  # of the same loss (forward) on what the output layer reads behind half of the blocks

    def rows(self, batch: int) -> tuple[int, int]:
        """(pairs, fresh noises) of a batch. CSD reads either of them in a step, and pairs only at its start."""
        if self.csd is not None:
            return (self.csd.start_batch or batch) * (self.csd.first > 0), batch
        fresh = round(self.fresh * batch)
        return batch - fresh, fresh


def rows_of(batch: Any, step: Any, codebook: jax.Array, layout: Layout, objective: Objective, seed: int) -> Parts:
    """What a batch's pairs and fresh noises put into the student. Noise is drawn again from each example's id."""
    parts: Parts = {}
    if "code" in batch:  # Alg. 2: data before each one's boundary, its own noise from it on; boundaries take turns
        code_BxL = batch["code"]
        noise = noise_for(example_keys(stream(seed, "pairs"), batch["id"]), layout.tokens, codebook.shape[-1])
        turn_B = (jnp.arange(len(code_BxL)) + step) % len(objective.timesteps)
        t_B = jnp.asarray(objective.timesteps)[turn_B]
        x_t = layout.mix(t_B, codebook[code_BxL], noise)
        parts["pairs"] = {"cond": batch["cond"], "code": code_BxL, "x": x_t, "t": t_B}
    if "fresh" in batch:
        ids, cond = batch["fresh"]["id"], batch["fresh"]["cond"]
        noise = noise_for(example_keys(stream(seed, "on_policy"), ids), layout.tokens, codebook.shape[-1])
        parts["refined" if objective.refined else "fresh"] = {
            "cond": cond,
            "x": noise,
            "t": jnp.zeros(len(ids), jnp.int32),
        }
    return parts


def join(parts: Sequence[Any]) -> Any:
    """Trees of arrays (B_k, ...) -> one of (B, ...), the kinds interleaved: examples stay on the device they are on."""
    if len(parts) == 1:
        return parts[0]
    share = math.gcd(*(len(jax.tree.leaves(part)[0]) for part in parts))

    def merge(*rows: jax.Array) -> jax.Array:
        dealt = jnp.concatenate([x.reshape(share, -1, *x.shape[1:]) for x in rows], 1)
        return dealt.reshape(-1, *dealt.shape[2:])

    return jax.tree.map(merge, *parts)


def split(tree: Any, counts: Sequence[int]) -> list[Any]:
    """The inverse of `join`."""
    if len(counts) == 1:
        return [tree]
    share = math.gcd(*counts)
    ends = [sum(counts[: i + 1]) // share for i in range(len(counts))]

    def part(x: jax.Array, end: int, count: int) -> jax.Array:
        rows = x.reshape(share, -1, *x.shape[1:])[:, end - count // share : end]
        return rows.reshape(count, *x.shape[1:])

    return [jax.tree.map(lambda x, end=end, n=n: part(x, end, n), tree) for end, n in zip(ends, counts, strict=True)]


def pairs_loss(
    out: Any, rows: Any, frozen: Any, progress: Any, models: Models, objective: Objective, distance: Any
) -> tuple[jax.Array, Metrics]:
    """Eq. 7. Behind a head that reads ahead the distance is that of the codes which the pairs' noises draw."""
    logits, token, *middle = out
    far = functools.partial(distance, cond=rows["cond"]) if distance else None
    split, codebook = objective.split, frozen["codebook"]
    if far and models.student.head in AHEAD:
        code = on_policy.drawn(models, codebook, rows["x"], logits, objective.tau)
        token, split = losses.straight_through(logits / objective.tau, code, codebook), 0
    given = rows["code"], rows["t"], codebook, models.layout, split, objective.weights, far
    loss, seen = losses.distill_loss(logits, token, *given, objective.timesteps)
    for logits in middle:
        unknown = ~models.layout.known(rows["t"])
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, rows["code"])
        loss += objective.middle * objective.weights.ce * jnp.mean(nll, where=unknown)
    return on_policy.at(objective.pairs, progress) * loss, seen


def fresh_loss(
    out: Any, rows: Any, frozen: dict[str, Params], progress: Any, models: Models, objective: Objective, distance: Any
) -> tuple[jax.Array, Metrics]:
    """Divergences, in nats a token, from the teacher on the student's own codes."""
    logits, _, *middle = out
    _, teacher = on_policy.judged(models, frozen, rows["cond"], rows["x"], logits, objective.tau)
    weight, against = (on_policy.at(schedule, progress) for schedule in (objective.forward, objective.reverse))
    forward, reverse = map(jnp.mean, on_policy.divergences(logits, teacher))
    loss = weight * forward + against * reverse
    for logits in middle:
        loss += objective.middle * weight * jnp.mean(on_policy.divergences(logits, teacher)[0])
    return loss, {"kl": forward, "reverse_kl": reverse}


def refined_loss(
    out: Any, rows: Any, frozen: dict[str, Params], progress: Any, models: Models, objective: Objective, distance: Any
) -> tuple[jax.Array, Metrics]:
    """Cross-entropy to one sweep of the student's own draft: a step nearer to the teacher's codes, and no pairs."""
    logits, _, *middle = out
    noise, codebook = rows["x"], frozen["codebook"]
    draft, teacher = on_policy.judged(models, frozen, rows["cond"], noise, logits, objective.tau)
    code = flow.transport(noise, teacher, codebook, models.solver)
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, code))
    seen = {"ce/refined": loss, "agreement/refined": jnp.mean(draft == code)}
    for logits in middle:
        loss += objective.middle * jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, code))
    return objective.weights.ce * loss, seen


# (heads' outputs, their rows, frozen parameters, progress in [0, 1], models, objective, distance) -> (loss, to log)
LOSSES: dict[str, Callable[..., tuple[jax.Array, Metrics]]] = {
    "pairs": pairs_loss,
    "fresh": fresh_loss,
    "refined": refined_loss,
}
