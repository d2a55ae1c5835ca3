"""How fast a training is: tokens/s, and MFU, the share of the devices' peak that the model's own products take."""

import time
from collections.abc import Callable
from typing import Any

import jax

from dd_jax.system import flops

# FLOP/s of dense bfloat16 products, as the makers give them.
PEAK = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


class Throughput:
    """Speed between two looks at it. `trace(*args)` is a step's jaxpr, `tokens` what one step learns from."""

    def __init__(
        self, trace: Callable[..., Any], tokens: int, devices: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._trace, self._tokens, self._devices, self._clock = trace, tokens, devices, clock
        self._work = self._peak = 0.0
        self._seen: tuple[int, float] | None = None

    def begin(self, *args: Any) -> None:
        """Count the FLOPs of a step with these arguments. What is traced here need not be when it is called."""
        self._work = flops.count_jaxpr(self._trace(*args), recomputed=False)
        kind = jax.local_devices()[0].device_kind
        # A machine that no table knows is measured: its rate of float32 products.
        self._peak = self._devices * PEAK[kind] if kind in PEAK else flops.matmul_rate(side=1024, repeats=3)

    def look(self, done: int) -> dict[str, float]:
        """Numbers since the last look, now that `done` steps are finished; none at first, since that saw compiling."""
        now, before = self._clock(), self._seen
        self._seen = done, now
        if before is None or done == before[0]:
            return {}
        seconds = (now - before[1]) / (done - before[0])
        return {"tokens_per_s": self._tokens / seconds, "mfu": self._work / seconds / self._peak}
