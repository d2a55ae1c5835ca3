"""Layout: step numbers, known tokens, masks, slices."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.method.layout import Layout

LAYOUTS = [Layout.raster(3), Layout.scales((1, 2, 3)), Layout((1, 1, 4, 4), cond=3)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps_starts_and_spans_agree(layout):
    for s in range(layout.steps):
        assert np.all(layout.step_L[layout.span(s)] == s)
        assert layout.span(s).stop - layout.span(s).start == layout.sizes[s]
    assert layout.start[-1] == layout.tokens == len(layout.step_L)
    assert np.array_equal(layout.step_N[: layout.cond], np.arange(-layout.cond, 0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_counts_the_tokens_before_a_boundary(layout):
    for t in range(layout.steps + 1):
        assert np.array_equal(layout.known(t), np.arange(layout.tokens) < layout.start[t])
    t_B = jnp.array([0, 1, layout.steps])
    assert np.array_equal(layout.known(t_B).sum(-1), layout.start[np.asarray(t_B)])
    assert np.array_equal(layout.is_data(t_B).sum(-1), layout.cond + layout.start[np.asarray(t_B)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mix_takes_data_before_and_noise_behind(layout):
    shape = (2, layout.tokens, 2)
    mixed = layout.mix(jnp.array([0, 2]), jnp.ones(shape), jnp.zeros(shape))
    assert np.all(mixed[0] == 0)
    assert np.array_equal(mixed[1, :, 0], np.arange(layout.tokens) < layout.start[2])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_put_undoes_take(layout):
    x = jnp.arange(2 * layout.tokens).reshape(2, -1)
    rebuilt = jnp.zeros_like(x)
    for s in range(layout.steps):
        rebuilt = layout.put(rebuilt, s, layout.take(x, s))
    assert np.array_equal(rebuilt, x)


def test_a_step_may_be_traced_only_where_all_have_one_size():
    x = jnp.arange(9)[None]
    assert np.array_equal(jax.jit(LAYOUTS[0].take)(x, 4), [[4]])
    assert LAYOUTS[0].uniform
    assert not LAYOUTS[1].uniform
    with pytest.raises(ValueError, match="static step number"):
        jax.jit(LAYOUTS[1].take)(x, 1)


def test_raster_masks_are_causal():
    layout = Layout.raster(4)
    causal = np.tril(np.ones((17, 17), bool))
    assert np.array_equal(layout.student_mask(), causal)
    assert np.array_equal(layout.student_mask(same_step=True), causal)
    assert np.array_equal(layout.teacher_mask(layout.step_N), causal)


@pytest.mark.parametrize(("case", "same_step"), [("forward", False), ("forward_blockmask", True)])
def test_scale_masks_are_the_reference_ones(case, same_step):
    visible = helpers.arrays(f"var/dd_tiny/{case}.npz")["attn_visible"]
    assert np.array_equal(Layout.scales((1, 2, 3, 4)).student_mask(same_step), visible)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_student_sees_itself_and_what_a_flow_target_depends_on(layout):
    mask, step = layout.student_mask(), layout.step_N
    for i, j in np.ndindex(mask.shape):
        assert mask[i, j] == (i == j or step[j] < step[i])


def test_bands_are_rows_of_one_map_or_scales():
    assert Layout.raster(2).bands == {"row_0": slice(0, 2), "row_1": slice(2, 4)}
    assert Layout.scales((1, 2)).bands == {"scale_0": slice(0, 1), "scale_1": slice(1, 5)}
