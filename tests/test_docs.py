"""The pages of docs/: their Python runs, at the smallest size, and what they point to is there."""

import re
from pathlib import Path

import pytest
import snippets
from conftest import tiny_config

from dd_jax.configs import digits_llamagen, digits_var

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_CODE = [page for page in PAGES if snippets.blocks(page.read_text())]
SMALLER = {"S0 S16": "S0 S5"}  # plans of MNIST's 49 steps, where the run that stands for it has 16
RUNS = re.compile(r"\bruns/(mnist_flow|(?:mnist|digits)_llamagen)\b")  # finished runs that a page may open


@pytest.fixture
def small(monkeypatch):
    """The demos on 8x8 digits, so small that compiling is all they cost."""
    for module, family in ((digits_llamagen, "llamagen"), (digits_var, "var")):
        config = tiny_config(family)
        for part in (*config.pretrain.values(), config.train):
            part.steps, part.warmup, part.checkpoint_every = 5, 2, 5
        config.train.grid_every = 0
        monkeypatch.setattr(module, "get_config", config.copy_and_resolve_references)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, small, tmp_path, monkeypatch, request):
    for name in set(RUNS.findall(page.read_text())):
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / "runs" / name).symlink_to(request.getfixturevalue("tiny_run")[0])
    snippets.run_page(page, tmp_path, monkeypatch, SMALLER)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_blocks_run_in_order_in_one_namespace(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(
        "a\n```python\n# idea/own.py\ntwo = 2\n```\n```\nnot python\n```\n"
        "```python\nfrom idea.own import two\n\nx = given + three\n```\n```python\ny = 2 * x\n```\n"
    )
    assert snippets.run_page(page, tmp_path, monkeypatch, {"three": "two"}, given=1)["y"] == 6


def test_what_fails_fails_at_its_line_of_the_page(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("a\nb\n```python\nx = 1\nx / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as failed:
        snippets.run_page(page, tmp_path, monkeypatch)
    assert (str(failed.traceback[-1].path), failed.traceback[-1].lineno + 1) == (str(page), 5)
