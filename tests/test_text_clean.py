"""Caption cleaning against the reference's outputs, and tokens."""

import sys

import helpers
import numpy as np
import pytest

from dd_jax.scripts.fake_shards import spiece
from dd_jax.system.errors import UserError
from dd_jax.text.clean import clean, once
from dd_jax.text.tokens import EOS, PAD, UNKNOWN, SentencePiece, Words

CASES = helpers.read_json("text/caption_cleaning.json")


def test_the_reference_captions():
    assert [once(case["in"]) for case in CASES] == [case["once"] for case in CASES]
    assert [clean(case["in"]) for case in CASES] == [case["out"] for case in CASES]


def test_a_caption_without_an_end_takes_no_hour():
    assert len(clean("a.b- " * 100_000)) < 20_000


@pytest.mark.parametrize(
    ("caption", "found"),
    [("a <![half fox", "a half fox"), ("\ud800 fox", "? fox"), ("a\x00b", "ab"), ("<" * 999, "<" * 999), (7, "7")],
)
def test_odd_captions_break_nothing(caption, found):
    assert clean(caption) == found


def test_a_missing_library_is_named(monkeypatch):
    from dd_jax.text import clean as module

    module._needs.cache_clear()
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(UserError, match=r"needs ftfy: pip install 'dd_jax\[text\]'"):
        clean("a red fox")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A SentencePiece model made here."""
    return spiece(tmp_path_factory.mktemp("spiece") / "spiece.model")


def test_pieces_end_with_the_mark_and_are_padded_behind(pieces):
    tokenizer = SentencePiece(pieces, 12)
    captions = ["a red fox", "", "one two three " * 400]
    token, valid = tokenizer(captions)
    assert (token.dtype, token.shape, valid.dtype) == (np.int32, (3, 12), bool)
    assert valid.sum(1).tolist()[1:] == [1, 12]
    assert [row[keep][-1] for row, keep in zip(token, valid, strict=True)] == [EOS] * 3
    assert (token[~valid] == PAD).all()
    ids = tokenizer.model.encode(captions[2])
    assert token[2].tolist() == [*ids[:11], EOS]
    alone, _ = tokenizer(captions[:1])
    np.testing.assert_array_equal(alone[0], token[0])


def test_a_folder_is_as_good_as_its_file(pieces):
    assert SentencePiece(pieces.parent).digest == SentencePiece(pieces).digest != SentencePiece(pieces, 7).digest


def test_wrong_models_are_named(tmp_path):
    with pytest.raises(UserError, match=r"spiece.model does not exist: it is published beside"):
        _ = SentencePiece(tmp_path).vocab
    (tmp_path / "spiece.model").write_bytes(b"\x0a\xff not a model")
    with pytest.raises(UserError, match="is no SentencePiece model"):
        _ = SentencePiece(tmp_path).vocab


def test_words():
    tokenizer = Words.of(["purple fox", "red fox"], 4)
    assert tokenizer.words == ("fox", "purple", "red")
    token, valid = tokenizer(["red fox", "green fox", "", "red red red red red"])
    assert token.tolist() == [[5, 3, EOS, PAD], [UNKNOWN, 3, EOS, PAD], [EOS, PAD, PAD, PAD], [5, 5, 5, EOS]]
    assert valid.sum(1).tolist() == [3, 3, 1, 4]
    assert tokenizer.vocab == 6
    assert tokenizer.digest != Words.of(["red fox"], 4).digest
