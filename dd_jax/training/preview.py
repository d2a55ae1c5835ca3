"""A look at the student while it learns: its pictures of always the same noises, and their likelihood."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data.conditions import Conditions, assign
from dd_jax.data.sampleset import sheet, to_uint8
from dd_jax.method.fewstep import generator
from dd_jax.method.interfaces import Cond, Params
from dd_jax.method.models import Models
from dd_jax.system import files, processes, rng
from dd_jax.system.sharding import ALONE, Placement

COUNT = 50  # pictures of a grid
FLOOR = -50.0  # what a code that the teacher's filter forbids counts for


def previewer(
    folder: Path,
    models: Models,
    params: dict[str, Params],
    conditions: Conditions,
    seed: int,
    placement: Placement = ALONE,
    count: int = COUNT,
) -> Callable[[int, Any], dict[str, float]]:
    """(step, state) -> {"nll": ...}, and `folder`/step-00001000.png: one step of the averaged student.

    The score is the teacher's mean negative log-likelihood (guided, nats a token) of the student's codes: a student
    that has learnt nothing is far above the teacher's own samples, a good one close to them.
    """
    count += -count % placement.rows
    ids = placement.mine(count).astype(np.int32)
    rows = placement.batch((ids, conditions(assign(conditions.pool, ids, "balanced", seed))))
    fixed = placement.whole({part: params[part] for part in ("tokenizer", "teacher")})
    generate, root = generator("S0", models), rng.stream(seed, "sample")

    def draw(student: Params, fixed: dict[str, Params], id_B: jax.Array, cond: Cond) -> Any:
        draft = generate({**fixed, "student": student}, cond, rng.example_keys(root, id_B))
        logits = models.filter(models.teacher.parallel(fixed["teacher"], cond, draft.code_BxL))
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), draft.code_BxL[..., None], -1)
        nll = -jnp.mean(jnp.maximum(chosen, FLOOR))
        return placement.everywhere((models.tokenizer.decode(fixed["tokenizer"], draft.token_BxLxC), nll))

    compiled = placement.jit(draw)

    def look(step: int, state: Any) -> dict[str, float]:
        img, nll = compiled(state.ema, fixed, *rows)
        keep(folder, step, img)
        return {"nll": float(nll)}

    return look


def keep(folder: Path, step: int, img_BxRxRxc: jax.Array) -> None:
    """Write `folder`/step-00001000.png, once for all processes."""
    if processes.is_first():
        buffer = io.BytesIO()
        sheet(to_uint8(img_BxRxRxc)).save(buffer, "PNG")
        files.replace(folder / f"step-{step:08d}.png", buffer.getvalue())
