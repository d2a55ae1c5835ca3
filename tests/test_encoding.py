"""Pictures in: codes, pictures of codes and the noise of pictures, through the library."""

import numpy as np
import pytest
from PIL import Image

import dd_jax
from dd_jax.system.errors import UserError
from dd_jax.system.programs import in_programs


@pytest.fixture(scope="module")
def pipe(tiny_run):
    return dd_jax.load(tiny_run[0])


@pytest.fixture(scope="module")
def images(pipe):
    return pipe.sample([1, 2, 3, 4, 5, 6, 7], plan="T0:16", seed=5)


def test_codes_of_pictures_and_back(pipe, images):
    code = pipe.encode(images)
    assert (code.shape, code.dtype) == ((7, 16), np.int32)
    np.testing.assert_array_equal(pipe.encode(images / 255), code)
    np.testing.assert_array_equal(pipe.encode([Image.fromarray(x[..., 0]) for x in images]), code)
    np.testing.assert_array_equal(pipe.encode(images[2]), code[2:3])
    assert pipe.encode(Image.new("RGB", (300, 200)), size="fit").shape == (1, 16)
    again = pipe.decode(code)
    assert (again.shape, again.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(pipe.reconstruct(images), again)
    np.testing.assert_array_equal(pipe.reconstruct(again[:3]), pipe.decode(pipe.encode(again[:3])))
    draft = pipe.tokens([1, 2, 3])
    np.testing.assert_array_equal(pipe.decode(draft.token_BxLxC), pipe.sample([1, 2, 3]))
    assert pipe.encode([]).shape == (0, 16)
    assert pipe.decode(code[:0]).shape == (0, 8, 8, 1)


def test_batches_of_any_size_are_few_programs():
    sizes = []

    def run(x, y):
        sizes.append(len(x))
        return {"sum": x + y, "twice": 2 * x}

    for count in (1, 2, 3, 5, 16, 37):
        x, y = np.arange(count), np.ones((count, 1))[:, 0]
        found = in_programs(run, (x, y), 16)
        np.testing.assert_array_equal(found["sum"], x + 1)
        np.testing.assert_array_equal(found["twice"], 2 * x)
    assert sizes == [1, 2, 4, 8, 16, 16, 16, 8]


def test_the_noise_of_pictures_draws_them(pipe, images):
    labels = [1, 2, 3, 4, 5, 6, 7]
    noise = pipe.invert(images, labels)
    assert noise.shape == (7, 16, pipe.system.tokenizer.code_dim)
    np.testing.assert_array_equal(pipe.sample(labels, plan="T0:16", noise=noise), pipe.reconstruct(images))
    found = pipe.noise_of(pipe.encode(images), labels)
    np.testing.assert_array_equal(found.noise, noise)
    assert np.asarray(found.exact).all()
    assert np.abs(pipe.invert(images, labels, seed=1) - noise).max() > 0.1
    np.testing.assert_allclose(pipe.invert(images[:5], labels[:5]), noise[:5], atol=1e-3)
    assert pipe.invert([], []).shape == (0, *noise.shape[1:])
    told = {"guidance": 3.5, "temperature": 1.4}  # each draws from its own noise alone
    other = pipe.invert(images, labels, **told)
    np.testing.assert_array_equal(pipe.sample(labels, plan="T0:16", noise=other, **told), pipe.reconstruct(images))
    assert not np.array_equal(pipe.tokens(labels, plan="T0:16", noise=other).code_BxL, pipe.encode(images))


def test_what_cannot_be_is_told_in_one_line(pipe, images, tiny_run):
    code = pipe.encode(images)
    vocab, dim = pipe.vocab, pipe.system.tokenizer.code_dim
    cases = [
        (lambda: pipe.encode(images.astype(np.float32)), "floats must lie in"),
        (lambda: pipe.encode(images, size="zoom"), "size='zoom' is unknown"),
        (lambda: pipe.decode(code[:, :4]), r"codes are int32 \(7, 4\): give whole numbers \(B, 16\), or tokens"),
        (lambda: pipe.decode(code * 1.0), rf"codes are float64 \(7, 16\).*\(B, 16, {dim}\)"),
        (lambda: pipe.decode(code + vocab), rf"codes must lie in 0\.\.{vocab - 1}"),
        (lambda: pipe.decode(code - vocab), "codes must lie in"),
        (lambda: pipe.decode(np.full((1, 16, dim), np.nan)), "not finite"),
        (lambda: pipe.decode([[1], [2, 3]]), "codes are no array"),
        (lambda: pipe.invert(images, [1, 2]), "there are 2 labels for 7 images"),
        (lambda: pipe.invert(images[:1], [10]), r"labels must lie in 0\.\.9"),
        (lambda: pipe.invert(images[:1], [1], seed=-1), "the seed is -1"),
        (lambda: pipe.invert(images[:1], [1], tau=0.5), "there is no setting tau=: choose from guidance"),
        (lambda: pipe.invert(images[:1], [1], top_p=0), "top_p=0: give one number, in"),
        (lambda: pipe.noise_of(code[:, 1:], [1] * 7), r"give whole numbers \(B, 16\)"),
        (lambda: dd_jax.load(tiny_run[0], teacher=None).invert(images[:1], [1]), "inversion needs a teacher"),
    ]
    for call, told in cases:
        with pytest.raises(UserError, match=told) as error:
            call()
        assert "\n" not in str(error.value)
