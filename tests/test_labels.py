"""Classes by name or number."""

import pytest

from dd_jax.data import labels
from dd_jax.system.errors import UserError


def test_the_thousand_classes_are_there():
    lines = labels.names("imagenet2012", 1000)
    assert len(lines) == 1000
    assert lines[0].startswith("tench")
    assert lines[207] == "golden retriever"
    assert lines[999].startswith("toilet tissue")


def test_names_synonyms_and_numbers():
    found = labels.find("Golden Retriever, 3, great white shark,carassius auratus", "imagenet2012", 1000)
    assert found == [207, 3, 2, 1]
    assert labels.find("7, 0", "mnist", 10) == [7, 0]


def test_ids_underscores_and_ranges():
    found = labels.find("n02099601, golden_retriever, N02099601, n01440764, n15075141", "imagenet2012", 1000)
    assert found == [207, 207, 207, 0, 999]
    assert labels.find("0-3, 8", "mnist", 10) == [0, 1, 2, 3, 8]
    assert labels.find("sulphur-crested cockatoo", "imagenet2012", 1000) == [89]
    assert len(labels.wordnet("imagenet2012")) == len(set(labels.wordnet("imagenet2012"))) == 1000
    assert list(labels.wordnet("imagenet2012")) == sorted(labels.wordnet("imagenet2012"))


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("\N{SUPERSCRIPT THREE}", r"no class is called"),
        (" , ", r"labels ' , ' name no class"),
        ("9" * 5000, r"label 9+ is out of range"),
        ("-1", r"label -1 is out of range: the classes are 0\.\.999"),
        ("5-2", "a range rises, 2-5"),
        ("998-1000", "label 1000 is out of range"),
        ("n99999999", "no class is called"),
        ("golden retreiver", "did you mean golden retriever"),
        ("golden", r"did you mean golden retriever\?"),
        ("crane", r"names the classes \[134, 517\]: give the number"),
        ("1000", r"out of range: the classes are 0\.\.999"),
        ("qqqqqq", r"no class is called 'qqqqqq'; classes have numbers 0\.\.999"),
    ],
)
def test_what_is_no_class(wanted, told):
    with pytest.raises(UserError, match=told):
        labels.find(wanted, "imagenet2012", 1000)


def test_names_of_ones_own():
    own = ("10", "2", "German Shepherd", "a, b", "n02099601")
    assert labels.short("folder:x", 5, own) == ("10", "2", "German Shepherd", "a, b", "golden retriever")
    assert labels.find("german_shepherd, b, golden retriever, n02099601", "folder:x", 5, own) == [2, 3, 4, 4]
    assert labels.find("10, 2, 0, 2-4", "folder:x", 5, own) == [0, 1, 0, 1, 3, 4]  # a name goes before a number
    with pytest.raises(UserError, match=r"no class is called 'cat'; .* are called 10, 2, german shepherd, "):
        labels.find("cat", "folder:x", 5, own)
    assert labels.find("golden retriever", "tfds:imagenet2012:5.1.0:validation", 1000) == [207]
