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


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("golden retreiver", "did you mean golden retriever"),
        ("crane", r"names the classes \[134, 517\]: give the number"),
        ("1000", r"out of range: the classes are 0\.\.999"),
        ("qqqqqq", r"no class is called 'qqqqqq'; classes have numbers 0\.\.999"),
    ],
)
def test_what_is_no_class(wanted, told):
    with pytest.raises(UserError, match=told):
        labels.find(wanted, "imagenet2012", 1000)
