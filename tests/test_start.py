"""From the command to the first picture: weights that are mapped, programs that are compiled side by side and once."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax
from dd_jax.system import programs, weights
from dd_jax.system.errors import UserError

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled():
    """Seconds of every compilation from here on."""
    found: list[float] = []

    def hear(event: str, seconds: float, **_: object) -> None:
        if event == COMPILED:
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(hear)
    yield found
    jax.monitoring.unregister_event_duration_listener(hear)


@pytest.fixture
def folder(tmp_path):
    params = {"a": {"kernel": np.arange(64, dtype=np.float32).reshape(8, 8), "bias": np.ones(3, np.float32)}}
    params["b"] = {"kernel": np.full((4, 16), 2.5, np.float32)}
    return weights.save(tmp_path / "w", params, {"part": "student", "id": "made"})


def test_weights_stay_in_the_mapped_file(folder):
    mapped = weights.load(folder, None, dtype=None)
    arrays = weights.on_device(mapped)
    for part in ("a", "b"):  # aligned, since the odd one was written last
        assert arrays[part]["kernel"].unsafe_buffer_pointer() == mapped[part]["kernel"].ctypes.data
    np.testing.assert_array_equal(arrays["a"]["bias"], [1, 1, 1])
    half = weights.on_device(mapped, jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(half["b"]["kernel"], np.full((4, 16), 2.5))


def test_neither_writing_nor_donating_reaches_the_file(folder):
    before = (folder / weights.WEIGHTS).read_bytes()
    mapped = weights.load(folder, None, dtype=None)
    mapped["a"]["kernel"][:] = 0
    arrays = weights.on_device(weights.load(folder, None, dtype=None))
    jax.block_until_ready(jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(arrays))
    assert (folder / weights.WEIGHTS).read_bytes() == before
    np.testing.assert_array_equal(weights.load(folder, None)["a"]["kernel"].ravel(), np.arange(64))


def test_numbers_that_are_no_weights_are_one_line(folder):
    weights.write_safetensors(folder / weights.WEIGHTS, {}, buffers={"a/kernel": np.arange(4)})
    with pytest.raises(UserError, match="holds I64 in a/kernel: weights are float32"):
        weights.load(folder, None)


def test_what_was_compiled_together_is_not_compiled_again(compiled):
    first, second = jax.jit(lambda x: jnp.sin(x) @ x.T), jax.jit(lambda p, y: y * p["w"] + 1)
    x, params = jnp.ones((4, 5)), {"w": jnp.ones(4)}
    jax.block_until_ready((x, params))
    compiled.clear()
    programs.compile_together((first, (x,)), (second, (params, jax.ShapeDtypeStruct((4, 4), jnp.float32))))
    assert len(compiled) == 2
    second(params, first(x)).block_until_ready()
    assert len(compiled) == 2


def test_plans_share_the_program_that_decodes(tiny_run, compiled):
    pipe = dd_jax.load(tiny_run[0])
    pipe.sample([1, 2], plan="S0")
    compiled.clear()
    pipe.sample([1, 2], plan="S0 J1")
    one = len(compiled)
    assert pipe._show._cache_size() == 1
    compiled.clear()
    pipe.sample([5, 6], plan="S0 J1")
    assert one
    assert not compiled


def test_drawing_imports_nothing_that_only_training_needs():
    told = "import sys, dd_jax.pipeline; print(*sorted({*sys.modules} & {'orbax', 'grain', 'sklearn', 'tensorstore'}))"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "\n"
