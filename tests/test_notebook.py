"""The notebook: committed bare, made of what exists, at home in any folder; and it runs, from nothing, at toy size.

And the repository's address, which its badge and first cell have: pyproject.toml's, on every page.
"""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dd_jax import Pipeline
from dd_jax.scripts import address
from dd_jax.system.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / address.NOTEBOOK
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = {cell["id"]: "".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"}
WHOLE = ast.parse("\n".join(CODE.values()))
PICTURES = ("draw", "slerp", "invert", "edit", "guidance")  # cells that show one
SOMEWHERE = "https://github.com/some-one/some.where"
TINY = """
from conftest import tiny_config
from dd_jax.configs import digits_llamagen
digits_llamagen.get_config = tiny_config("llamagen").copy_and_resolve_references
"""


def test_it_is_committed_bare():
    page = json.loads(NOTEBOOK.read_text())
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert page["metadata"] == {"kernelspec": kernel, "language_info": {"name": "python"}}
    for cell in CELLS:
        assert cell["metadata"] == {}, cell["id"]
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), cell["id"]


def test_every_cell_has_a_word_before_it():
    kinds = [cell["cell_type"] for cell in CELLS]
    assert kinds == ["markdown"] + ["markdown", "code"] * (len(kinds) // 2)


def test_its_names_are_bound():
    found = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select=E9,F", str(NOTEBOOK)],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_what_it_takes_from_dd_jax_exists():
    imported = [node for node in ast.walk(WHOLE) if isinstance(node, ast.ImportFrom)]
    for node in (one for one in imported if str(one.module).startswith("dd_jax")):
        for name in (alias.name for alias in node.names):
            parent = importlib.import_module(str(node.module))
            assert hasattr(parent, name) or importlib.util.find_spec(f"{node.module}.{name}"), ast.unparse(node)
    known = {"dd_jax": importlib.import_module("dd_jax"), "pipe": Pipeline}
    called = [node for node in ast.walk(WHOLE) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    calls = [node for node in called if isinstance(node.func.value, ast.Name) and node.func.value.id in known]
    assert {node.func.attr for node in calls} >= {"run", "load", "sample", "slerp", "invert", "edit", "compile"}
    for node in calls:
        taken = inspect.signature(getattr(known[node.func.value.id], node.func.attr)).parameters
        assert {one.arg for one in node.keywords if one.arg} <= set(taken), ast.unparse(node)


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """Runs the first cell in a folder, with dd_jax installed or not -> the commands that it ran."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    find_spec, ran = importlib.util.find_spec, []

    def run(words, check):
        assert check
        ran.append(" ".join(words).replace(str(tmp_path), "HERE").replace(sys.executable, "python"))

    def go(folder, installed, repository=""):
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: find_spec(name) if installed else None)
        if repository:
            (tmp_path / "dd_jax").mkdir()  # git makes it
        exec(json.loads(address.with_address(json.dumps(CODE["setup"]), repository)), {})
        return ran

    return go


def clone(folder):
    (folder / "dd_jax").mkdir(parents=True)
    (folder / "dd_jax/main.py").touch()
    return folder


@pytest.mark.parametrize("start", [".", "notebooks", ".."])
def test_a_clone_is_worked_in(setup, tmp_path, start):
    home = clone(tmp_path / "dd_jax")
    assert setup(home / start, installed=True) == []
    assert (Path.cwd(), sys.path[0]) == (home, str(home))


def test_a_clone_that_is_not_installed_is(setup, tmp_path):
    home = clone(tmp_path / "mine")
    assert setup(home / "notebooks", installed=False) == ["python -m pip install -q -e .[demo]"]
    assert Path.cwd() == home


def test_where_dd_jax_is_installed_nothing_is_done(setup, tmp_path):
    before = [*sys.path]
    assert setup(tmp_path, installed=True) == []
    assert (Path.cwd(), sys.path) == (tmp_path, before)


def test_where_there_is_nothing_it_is_cloned(setup, tmp_path):
    assert setup(tmp_path, installed=False, repository=SOMEWHERE) == [
        f"git clone --depth=1 {SOMEWHERE} HERE/dd_jax",
        "python -m pip install -q -e .[demo]",
    ]
    assert Path.cwd() == tmp_path / "dd_jax"


def test_without_an_address_it_asks_for_one(setup, tmp_path):
    with pytest.raises(AssertionError, match="set REPOSITORY"):
        setup(tmp_path, installed=False)


def test_pages_have_the_address_of_pyproject():
    found = address.address_of((ROOT / "pyproject.toml").read_text())
    for page in address.PAGES:
        text = (ROOT / page).read_text()
        assert text == address.with_address(text, found), f"{page}: run python -m scripts.address"


@pytest.mark.parametrize("page", address.PAGES)
def test_an_address_comes_and_goes(page):
    bare = address.with_address((ROOT / page).read_text(), "")
    full = address.with_address(bare, SOMEWHERE)
    opened = f"{address.COLAB}/github/some-one/some.where/blob/main/{address.NOTEBOOK}"
    assert address.COLAB not in bare  # no badge that leads nowhere
    assert full.count(f"]({opened})") == (page != "docs/install.md")
    assert full.count(f"git clone {SOMEWHERE} dd_jax") == (page in ("README.md", "docs/install.md"))
    assert len(full.splitlines()) == len(bare.splitlines())
    assert address.with_address(full, "") == bare
    if page == address.NOTEBOOK:
        code = "".join(next(cell for cell in json.loads(full)["cells"] if cell["id"] == "setup")["source"])
        assert f'REPOSITORY = "{SOMEWHERE}"  #' in code


def test_the_command_writes_every_page(tmp_path, monkeypatch, capsys):
    for name in (*address.PAGES, "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(re.sub(r"(?m)^.*Repository = .*$", f'Repository = "{SOMEWHERE}"', pyproject.read_text()))
    monkeypatch.setattr(address, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["address"])
    address.main()
    assert capsys.readouterr().out == f"{', '.join(address.PAGES)}: {SOMEWHERE}\n"
    for page in address.PAGES:
        assert (tmp_path / page).read_text() == address.with_address((ROOT / page).read_text(), SOMEWHERE)


def test_only_an_address_that_colab_opens_is_taken():
    told = '[project]\n[project.urls]\nRepository = "{}"'
    assert address.address_of(told.format(SOMEWHERE)) == SOMEWHERE
    assert address.address_of("[project]") == ""
    for wrong in (f"{SOMEWHERE}.git", f"{SOMEWHERE}/", "https://github.com/some-one", "git@github.com:some-one/some"):
        with pytest.raises(UserError, match=r"^pyproject.toml: Repository = .*OWNER/NAME"):
            address.address_of(told.format(wrong))


@pytest.mark.slow
def test_it_runs_from_nothing(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    resources = {"metadata": {"path": str(tmp_path)}}

    page = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(page)
    at = [cell.id for cell in page.cells].index("load")
    page.cells.insert(at, nbformat.v4.new_code_cell(TINY))
    nbclient.NotebookClient(page, timeout=600, resources=resources).execute()
    outputs = {cell.id: cell.outputs for cell in page.cells if cell.cell_type == "code"}
    for name in PICTURES:
        assert [True for one in outputs[name] if "image/png" in one.get("data", {})] == [True], name
    assert not [one for one in outputs["guidance"] if one.get("name") == "stderr"]  # nothing is compiled
    assert "T0:16 equals tokens: True" in outputs["invert"][-1]["text"]
    assert "&lt;!doctype html&gt;" in outputs["page"][0]["data"]["text/html"]

    report = tmp_path / "runs/digits_llamagen/report.html"
    written = report.stat().st_mtime_ns
    again = nbformat.read(NOTEBOOK, 4)
    again.cells = [cell for cell in again.cells if cell.id in ("setup", "load")]
    nbclient.NotebookClient(again, timeout=600, resources=resources).execute()
    assert report.stat().st_mtime_ns == written  # loaded, not trained
