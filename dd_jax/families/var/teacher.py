"""VAR as a `Teacher`: one scale a step, KV cache, running feature map, guidance growing with the scale."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.families.guided import Guided
from dd_jax.families.var.backbone import VAR
from dd_jax.families.var.quantizer import Quantizer
from dd_jax.method.interfaces import Cond, Params, State
from dd_jax.method.layout import Layout
from dd_jax.nn.dropping import Chance


@dataclasses.dataclass(frozen=True)
class ScaleTeacher(Guided):
    """`params` are {"trunk": the transformer's, "quantizer": the tokenizer's codebook and phis}."""

    trunk: VAR
    quantizer: Quantizer
    layout: Layout
    guidance: float = 0.0
    unmasked_prefix: bool = False  # the reference's Alg. 4: a draft sees scales behind it; parity only
    chunk: int | None = None  # nothing to size: keys and values are appended

    @property
    def weight_S(self) -> np.ndarray:
        """Guidance weight 1 + guidance s / (S - 1): none at the first scale, all of it at the last."""
        ramp = np.arange(self.layout.steps) / max(self.layout.steps - 1, 1)
        return (1 + self.guidance * ramp).astype(np.float32)

    def weights(self, guidance_B: jax.Array) -> jax.Array:
        ramp = np.arange(self.layout.steps) / max(self.layout.steps - 1, 1)
        return 1 + guidance_B[:, None] * ramp.astype(np.float32)

    def start(self, params: Params, cond: Cond, code_BxL: jax.Array, s0: int) -> State:
        cond_BxD = self._apply(params, self._both(cond), method="embed_cond")
        h = self._apply(params, cond_BxD, method="start_token")
        f_hat = self.quantizer.zeros(code_BxL.shape[0])
        state = {"cond": cond_BxD, "f_hat": f_hat, "pending": h, "caches": None, "guidance": cond.guidance_B}
        rows = [h]
        for s in range(s0):
            state = self.append(params, state, s, self.layout.take(code_BxL, s))
            rows.append(state["pending"])
        if self.unmasked_prefix:
            return {**state, "pending": jnp.concatenate(rows, 1)}  # one pass, everything sees everything
        if s0:
            done = jnp.concatenate(rows[:-1], 1)
            mask = self.layout.teacher_mask(self.layout.step_L[: done.shape[1]])
            _, state["caches"] = self._apply(params, done, cond_BxD, mask, method="run")
        return state

    def reserve(self, state: State, steps: int) -> State:
        return state  # keys and values are appended scale by scale

    def logits(self, params: Params, state: State, s: jax.Array | int) -> tuple[jax.Array, State]:
        h, caches = self._apply(params, state["pending"], state["cond"], None, state["caches"], method="run")
        logits = self._apply(params, h[:, -self.layout.sizes[s] :], state["cond"], method="logits")
        return self._guide(logits, state["guidance"], s), {**state, "caches": caches}

    def append(self, params: Params, state: State, s: jax.Array | int, choice: Any) -> State:
        if not isinstance(s, int):
            raise TypeError("scales have different sizes: the step must be static")
        if s + 1 == self.layout.steps:
            return state
        quantizer, weights = self.quantizer, params["quantizer"]
        token = choice[1] if isinstance(choice, tuple) else quantizer.codebook(weights)[choice]
        f_hat = quantizer.accumulate(weights, s, token, state["f_hat"])
        x = quantizer.next_input(f_hat, s)
        first = int(self.layout.start[s + 1])
        pending = self._apply(params, self._repeat(x, state["guidance"]), first, method="embed")
        return {**state, "f_hat": f_hat, "pending": pending}

    def forward(self, params: Params, cond: Cond, code_BxL: jax.Array, chance: Chance | None = None) -> jax.Array:
        return self._forced(params, cond, code_BxL, "teach", chance)

    def features(self, params: Params, cond: Cond, code_BxL: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self._forced(params, cond, code_BxL, "read")

    def _forced(self, params: Params, cond: Cond, code_BxL: jax.Array, method: str, *chance: Chance | None) -> Any:
        x = self.quantizer.teacher_input(params["quantizer"], code_BxL)
        return self._apply(params, cond, x, self.layout.teacher_mask(self.layout.step_L), *chance, method=method)

    def parallel(self, params: Params, cond: Cond, code_BxL: jax.Array) -> jax.Array:
        logits = self.forward(params, self._both(cond), self._repeat(code_BxL, cond.guidance_B))
        return self._guide(logits, cond.guidance_B, self.layout.step_L)
