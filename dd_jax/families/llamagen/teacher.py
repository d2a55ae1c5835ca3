"""LlamaGen as a `Teacher`: one token a step, static KV cache, classifier-free guidance."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.families.guided import Guided
from dd_jax.families.llamagen.backbone import GPT
from dd_jax.families.llamagen.caption import hide_padding
from dd_jax.method.interfaces import Cond, Params, State
from dd_jax.method.layout import Layout
from dd_jax.nn.dropping import Chance


@dataclasses.dataclass(frozen=True)
class RasterTeacher(Guided):
    """Input position p carries token p - P and predicts token p - P + 1; positions < P are the condition."""

    trunk: GPT
    layout: Layout
    guidance: float = 1.0
    chunk: int | None = None  # steps between growths of the cache: None, one static size
    guided_steps: int | None = None  # steps < this are guided, later ones are not; None: all

    @property
    def weight_S(self) -> np.ndarray:
        """Guidance weight of every step."""
        steps = np.arange(self.layout.steps)
        last = self.layout.steps if self.guided_steps is None else self.guided_steps
        return np.where(steps < last, self.guidance, 1.0).astype(np.float32)

    def weights(self, guidance_B: jax.Array) -> jax.Array:
        last = self.layout.steps if self.guided_steps is None else self.guided_steps
        return jnp.where(np.arange(self.layout.steps) < last, guidance_B[:, None], 1.0)

    def _inputs(self, params: Params, cond: Cond, code_BxM: jax.Array) -> jax.Array:
        """(2B, P + M, D) embedded condition and codes."""
        both = self._apply(params, self._both(cond), method="embed_cond")
        code = self._apply(params, self._repeat(code_BxM, cond.guidance_B), method="embed")
        return self._apply(params, jnp.concatenate([both, code], 1), method="place")

    def start(self, params: Params, cond: Cond, code_BxL: jax.Array, s0: int) -> State:
        cfg, rows = self.trunk.cfg, self.layout.cond + s0
        valid_BxP = self._both(cond).valid_BxP
        h = self._inputs(params, cond, code_BxL[:, :s0])
        shape = (h.shape[0], cfg.heads, rows, cfg.head_dim)
        caches = [(jnp.zeros(shape, cfg.dtype),) * 2 for _ in range(cfg.depth)]
        done = h.shape[1] - 1  # the last row is run by `logits`
        if done:
            mask = hide_padding(np.arange(rows) <= np.arange(done)[:, None], 0, valid_BxP)
            _, caches = self._apply(params, h[:, :-1], self.trunk.cfg.rope[:done], mask, caches, 0, method="run")
        return {"caches": caches, "pending": h[:, -1:], "valid": valid_BxP, "guidance": cond.guidance_B}

    def reserve(self, state: State, steps: int) -> State:
        more = self.layout.cond - 1 + steps - state["caches"][0][0].shape[2]
        grow = ((0, 0), (0, 0), (0, max(more, 0)), (0, 0))
        return {**state, "caches": jax.tree.map(lambda x: jnp.pad(x, grow), state["caches"])}

    def logits(self, params: Params, state: State, s: jax.Array | int) -> tuple[jax.Array, State]:
        position = self.layout.cond - 1 + s
        rows = state["caches"][0][0].shape[2]
        rope = jax.lax.dynamic_slice_in_dim(jnp.asarray(self.trunk.cfg.rope), position, 1, 0)
        mask = hide_padding(jnp.arange(rows)[None] <= position, position, state["valid"])
        h, caches = self._apply(params, state["pending"], rope, mask, state["caches"], position, method="run")
        logits = self._guide(self._apply(params, h, method="logits"), state["guidance"], s)
        return logits, {**state, "caches": caches}

    def append(self, params: Params, state: State, s: jax.Array | int, choice: Any) -> State:
        h = self._apply(params, self._repeat(choice, state["guidance"]), method="embed")
        return {**state, "pending": self._apply(params, h, self.layout.cond + s, method="place")}

    def forward(self, params: Params, cond: Cond, code_BxL: jax.Array, chance: Chance | None = None) -> jax.Array:
        return self._apply(params, cond, code_BxL, self._mask, chance, method="teach")

    def features(self, params: Params, cond: Cond, code_BxL: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self._apply(params, cond, code_BxL, self._mask, method="read")

    @property
    def _mask(self) -> np.ndarray:
        return self.layout.teacher_mask(self.layout.step_N[:-1])

    def parallel(self, params: Params, cond: Cond, code_BxL: jax.Array) -> jax.Array:
        logits = self.forward(params, self._both(cond), self._repeat(code_BxL, cond.guidance_B))
        return self._guide(logits, cond.guidance_B, np.arange(self.layout.steps))

    def window(
        self, params: Params, state: State, cond: Cond, code_BxL: jax.Array, first_B: jax.Array, width: int
    ) -> tuple[jax.Array, State]:
        position_B = self._repeat(self.layout.cond - 1 + first_B, cond.guidance_B)
        rows = self.layout.cond + self.layout.tokens - 1

        def cut(x: jax.Array, first: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(x, first, width, 0)

        h = jax.vmap(cut)(self._inputs(params, cond, code_BxL[:, :-1]), position_B)
        rope = jax.vmap(cut, (None, 0))(jnp.asarray(self.trunk.cfg.rope), position_B)
        at_BxM = position_B[:, None] + jnp.arange(width)
        mask = hide_padding(jnp.arange(rows) <= at_BxM[..., None], position_B, state["valid"])
        h, caches = self._apply(params, h, rope, mask, state["caches"], position_B, method="run")
        logits = self._apply(params, h, method="logits")
        steps_BxM = first_B[:, None] + jnp.arange(width)
        return self._guide(logits, cond.guidance_B, steps_BxM), {**state, "caches": caches}
