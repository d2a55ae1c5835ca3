"""Repainting: what is kept stays to the last code, what is drawn is the teacher's own, by every word of a plan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

import dd_jax
from dd_jax.data import masks
from dd_jax.method import pinning
from dd_jax.method.fewstep import noise_for, program, run_ops
from dd_jax.method.layout import Layout
from dd_jax.method.models import Knobs
from dd_jax.system.errors import UserError

BATCH = 4
FAMILIES = {"raster": tiny.raster, "scales": tiny.scales}


@functools.cache
def system(family):
    """(models, params, noise, codes of the teacher's from other noise, keep)."""
    models, params = FAMILIES[family]()
    layout = models.layout
    noise = noise_for(jax.random.split(jax.random.key(5), BATCH), layout.tokens, tiny.CODE)
    random = np.random.default_rng(0)
    code = random.integers(0, tiny.VOCAB, (BATCH, layout.tokens)).astype(np.int32)
    keep = random.random((BATCH, layout.tokens)) < 0.6
    return models, params, noise, code, keep


@functools.cache
def compiled(family, plan, pinned):
    models, _, noise, *_ = system(family)
    kinds, sweeps = program(plan, models.layout.steps)
    keys = jax.random.split(jax.random.key(0), BATCH)
    own = models.of(plan)

    def run(params, knobs):
        return run_ops(kinds, own, params, tiny.cond(BATCH), noise, keys, sweeps, knobs)

    return jax.jit(run)


def drawn(family, plan, keep=None):
    """Of codes that are pinned where `keep` is true; None: without any."""
    _, params, _, code, _ = system(family)
    pinned = None if keep is None else pinning.Pinned(jnp.asarray(code), jnp.asarray(keep))
    return compiled(family, plan, keep is not None)(params, Knobs(pinned=pinned))


# Words of all kinds, in two programs a family; the second ends at the fixed point.
WORDS = {"raster": ("T0:9", "S0 T4:6 J*"), "scales": ("T0:3", "S0 J*")}


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_codes_stay_and_the_fixed_point_is_the_teachers_repaint(family):
    models, params, _, code, keep = system(family)
    teachers, refined = (drawn(family, plan, keep) for plan in WORDS[family])
    for draft in (teachers, refined):
        np.testing.assert_array_equal(draft.code_BxL[keep], code[keep])
        np.testing.assert_array_equal(draft.token_BxLxC[keep], params["tokenizer"]["codebook"][code[keep]])
        np.testing.assert_array_equal(draft.exact_B, models.layout.steps)
    np.testing.assert_array_equal(refined.code_BxL, teachers.code_BxL)
    assert (teachers.code_BxL != code).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_kept_is_drawing_and_everything_kept_comes_back(family):
    _, _, _, code, keep = system(family)
    for plan in ("S0", *WORDS[family][: family == "raster"]):
        for own, other in zip(drawn(family, plan), drawn(family, plan, np.zeros_like(keep)), strict=True):
            np.testing.assert_array_equal(own, other)
    for plan in WORDS[family]:
        np.testing.assert_array_equal(drawn(family, plan, np.ones_like(keep)).code_BxL, code)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_keeps_codes_and_draws_the_others_as_ever(family):
    _, params, _, code, keep = system(family)
    free, kept = drawn(family, "S0", np.zeros_like(keep)), drawn(family, "S0", keep)
    np.testing.assert_array_equal(kept.code_BxL, np.where(keep, code, free.code_BxL))
    np.testing.assert_array_equal(kept.token_BxLxC[keep], params["tokenizer"]["codebook"][code[keep]])
    np.testing.assert_array_equal(kept.token_BxLxC[~keep], free.token_BxLxC[~keep])


def test_mixed_codes_keep_their_vectors_too():
    keep, codebook = np.array([[True, False]]), jnp.arange(8.0).reshape(4, 2)
    pinned = pinning.Pinned(jnp.array([[3, 3]]), jnp.asarray(keep))
    layout = Layout.scales((1,), 1)
    pick = pinned.pick(lambda logits, s: (jnp.zeros((1, 1), int), jnp.full((1, 1, 2), 9.0)), layout, codebook)
    code, token = pick(None, 0)
    assert code.tolist() == [[3]]
    assert token.tolist() == [[[6, 7]]]


def test_footprints_are_what_the_mask_touches_at_every_scale():
    hole = np.zeros((1, 8, 8), bool)
    hole[0, 4, 4] = True
    scales = pinning.footprints(hole, Layout.scales((1, 2, 3, 4)))[0]
    assert np.flatnonzero(scales).tolist() == [0, 4, 9, 24]
    assert np.flatnonzero(pinning.footprints(hole, Layout.raster(4))).tolist() == [10]
    keep = ~np.array([[False, True, False, True, False], [False] * 5])
    assert pinning.behind(keep, Layout((1,) * 5)).tolist() == [
        [False, False, True, False, True],
        [False] * 5,
    ]


def test_masks_of_all_kinds():
    """A pixel is drawn anew where any part of it is; a mask is cropped as its picture is."""
    picture = Image.new("L", (16, 8))
    wide = np.zeros((8, 16), bool)
    wide[3, 4], wide[0, 0] = True, True
    crop, fit = (masks.holes(wide, picture, 4, 1, size)[0] for size in ("crop", "fit"))
    assert np.argwhere(crop).tolist() == [[1, 0]]
    assert np.argwhere(fit).tolist() == [[1, 0], [1, 1]]
    square = np.zeros((2, 2, 1), np.uint8)
    square[1, 1] = 1
    same = [square, square[..., 0] * 0.7, Image.fromarray(square[..., 0] * 255), [square], np.stack([square])]
    clear = Image.new("RGBA", (2, 2))
    clear.putpixel((1, 1), (255, 250, 255, 200))
    for mask in [*same, clear]:
        assert np.argwhere(masks.holes(mask, picture, 4, 1)[0]).tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    soft = masks.soft(crop[None], 2)[0]
    np.testing.assert_allclose(soft[1], [1, 2 / 3, 1 / 3, 0], atol=1e-6)
    assert soft[2, 1] == pytest.approx(1 - 2**0.5 / 3)
    np.testing.assert_array_equal(masks.soft(crop[None], 0)[0], crop)


@pytest.fixture(scope="module")
def pipe(tiny_run):
    return dd_jax.load(tiny_run[0])


HOLE = np.zeros((8, 8), bool)
HOLE[2:5, 2:6] = True  # rows 1 and 2, columns 1 and 2 of four tokens a side


PICTURES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)


def test_edit_keeps_the_picture_around_the_hole(pipe):
    labels, tau = [4, 5, 6, 7], [0.5, 1, 2, 1]
    code = pipe.encode(PICTURES)
    keep = np.broadcast_to(~pinning.footprints(HOLE[None], pipe.system.layout), code.shape)
    draft = pipe.repaint(code, keep, labels, seed=1, tau=tau)
    np.testing.assert_array_equal(draft.code_BxL[keep], code[keep])
    whole = pipe.edit(PICTURES, HOLE, labels, seed=1, blend=None, tau=tau)
    np.testing.assert_array_equal(whole, pipe.decode(draft.token_BxLxC))
    hard = pipe.edit(PICTURES, [HOLE] * 4, labels, seed=1, blend=0, tau=tau)
    np.testing.assert_array_equal(hard, np.where(HOLE[..., None], whole, PICTURES))
    anew = pipe.edit(PICTURES, np.ones((2, 2)), labels, "S0", seed=1, blend=0)
    np.testing.assert_array_equal(anew, pipe.sample(labels, "S0", seed=1))
    np.testing.assert_array_equal(pipe.vary(PICTURES, labels, 1.0, "S0", seed=1), anew)
    assert pipe.edit(PICTURES[:0], HOLE, []).shape == (0, 8, 8, 1)


def test_the_candidate_is_taken_that_the_teacher_finds_likeliest(pipe):
    code, many = pipe.encode(PICTURES)[:1], 4
    keep = ~pinning.footprints(HOLE[None], pipe.system.layout)
    each = pipe.repaint(np.repeat(code, many, 0), np.repeat(keep, many, 0), [1] * many, "J4").code_BxL
    fit = np.where(keep & (np.arange(16) > 5), pipe.log_prob(each, [1] * many), 0).sum(1)
    assert np.sort(fit)[-1] - np.sort(fit)[-2] > 1e-3
    best = pipe.repaint(code, keep, [1], "J4", candidates=many).code_BxL
    np.testing.assert_array_equal(best, each[[fit.argmax()]])


def test_what_cannot_be_is_told_in_one_line(pipe, tiny_run):
    image, code = np.zeros((8, 8), np.uint8), np.zeros((1, 16), int)
    keep = np.ones((1, 16), bool)
    cases = [
        (lambda: pipe.edit(image, np.zeros((8, 8), bool), [1]), "leaves nothing to draw anew"),
        (lambda: pipe.edit(image, np.ones((8, 12), bool), [1]), "8 rows and 12 columns does not fit an image of 8 and"),
        (lambda: pipe.edit(image, np.ones(8, bool), [1]), r"the mask is bool \(8,\): a mask is"),
        (lambda: pipe.edit(image, np.full((8, 8), np.nan), [1]), "the mask goes from nan to nan"),
        (lambda: pipe.edit(image, np.ones((2, 8, 8)), [1]), "there are 2 masks for 1 images"),
        (lambda: pipe.edit(image, "no_such.png", [1]), "the mask is no picture that can be read"),
        (lambda: pipe.edit(image, HOLE, [10]), r"labels must lie in 0\.\.9"),
        (lambda: pipe.edit(image, HOLE, [1, 2]), "there are 2 labels for 1 images"),
        (lambda: pipe.edit(image, HOLE, [1], plan="S0 S3"), "the student was trained for steps"),
        (lambda: pipe.edit(image, HOLE, [1], candidates=0), "candidates=0: how many"),
        (lambda: pipe.edit(image, HOLE, [1], candidates=1.5), "candidates=1.5: how many"),
        (lambda: pipe.edit(image, HOLE, [1], blend=-1), "blend=-1: give the width"),
        (lambda: pipe.edit(image, HOLE, [1], blend="soft"), "blend=soft: give the width"),
        (lambda: pipe.edit(image, HOLE, [1], tone=1), "there is no setting tone="),
        (lambda: pipe.edit(image, HOLE, [1], top_p=2), "top_p=2"),
        (lambda: pipe.edit(image, HOLE, [1], seed=-1), "the seed is -1"),
        (lambda: pipe.vary(image, [1], share=0), r"share=0 of the tokens: it lies in \(0, 1\]"),
        (lambda: pipe.repaint(code, keep[:, 1:], [1]), r"keep is bool \(1, 15\)"),
        (lambda: dd_jax.load(tiny_run[0], teacher=None).repaint(code, keep, [1]), "editing needs a teacher"),
    ]
    for call, told in cases:
        with pytest.raises(UserError, match=told) as error:
            call()
        assert "\n" not in str(error.value)
