"""Other people's folders, homes, paths and environments: what is installed is found, and all else is one line."""

import os
import subprocess
import sys
import tomllib
from argparse import Namespace
from pathlib import Path

import jax
import pytest
from conftest import tiny_config

from dd_jax import configs, pipeline, settings
from dd_jax.data import bundled
from dd_jax.system import files, processes, runtime
from dd_jax.system.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
URLS = ["gs://bucket/x", "s3://bucket/x", "ftp://host/x", "https://host/x", "file:///x"]


def test_packages_are_the_folders():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("dd_jax/**/__init__.py")}
    assert set(told["packages"]) == folders | {*told["package-dir"], "port_weights"}
    assert told["package-dir"] == {f"dd_jax.{name}": name for name in ("configs", "scripts")}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of another project, which has the same names."""
    for name in ("configs", "scripts"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('of another project')")
    (tmp_path / "configs.py").write_text("raise SystemExit('of another project')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", ["dd_jax.main --config=llamagen_l --stage=config", "dd_jax.scripts.compare --help"])
def test_another_projects_folders_hide_nothing(elsewhere, words):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-m", *words.split()], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", ["llamagen_l", "llamagen_l.py", "configs/llamagen_l.py", "./configs/llamagen_l"])
def test_a_config_is_found_by_name(elsewhere, name):
    assert configs.find(name) == str(configs.HERE / "llamagen_l.py")
    assert configs.find(f"{name}:384") == f"{configs.HERE / 'llamagen_l.py'}:384"


def test_a_file_goes_before_a_name(elsewhere, monkeypatch):
    (elsewhere / "configs/llamagen_l.py").write_text("")
    assert configs.find("configs/llamagen_l.py:1") == "configs/llamagen_l.py:1"
    monkeypatch.setenv("HOME", str(elsewhere))
    assert configs.find("~/configs/llamagen_l.py") == str(elsewhere / "configs/llamagen_l.py")


@pytest.mark.parametrize(
    "name", ["llamagen", "llamagen_y", "about", "/configs/llamagen_l.py", "a/llamagen_l", "", *URLS]
)
def test_what_is_no_config_is_one_line(name):
    with pytest.raises(UserError, match="is a URL" if name in URLS else "name a file, or a config .* llamagen_l,"):
        configs.find(name)


def test_words_of_a_command_line(monkeypatch):
    seen = []
    monkeypatch.setattr(settings.app, "run", lambda main: seen.extend(sys.argv))
    monkeypatch.setattr(sys, "argv", ["x", "--config", "var_d16", "-config=var_d20", "--config.seed=3", "--workdir=w"])
    settings.start(print)
    at = [str(configs.HERE / f"var_d{depth}.py") for depth in (16, 20)]
    assert seen == ["x", "--config", at[0], f"-config={at[1]}", "--config.seed=3", "--workdir=w"]
    monkeypatch.setattr(sys, "argv", ["x", "--config=var_d17"])
    with pytest.raises(SystemExit, match=r"error: --config: no var_d17: .*var_d16"):
        settings.start(print)


@pytest.mark.parametrize("url", URLS)
def test_urls_are_refused_wherever_a_path_is_taken(tmp_path, url):
    for path in (url, Path(url)):
        with pytest.raises(UserError, match="is a URL"):
            files.expand(path)
    for change in ({name: url} for name in settings.PATHS):
        config = tiny_config("llamagen")
        config.text = {"prompts": None, "store": None}
        config.update_from_flattened_dict(change)
        with pytest.raises(UserError, match=rf"config.{next(iter(change))}: {url} is a URL"):
            pipeline.run(config, tmp_path, "report")
    with pytest.raises(UserError, match="is a URL"):
        pipeline.load(url)
    with pytest.raises(UserError, match="is a URL"):
        pipeline.run(tiny_config("llamagen"), url, "report")


def test_the_home_directory_is_put_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tiny_config("llamagen")
    given = {name: "~/x" for name in settings.PATHS if not name.startswith("text.")}
    config.update_from_flattened_dict({**given, "data.name": "folder:~/x", "weights.student": "w//student/"})
    settings.spelled(config)
    assert config.data.name == f"folder:{tmp_path}/x"
    assert config.weights.teacher == config.evaluate.inception == config.sample.prompts == f"{tmp_path}/x"
    assert config.weights.student == "w//student/"  # as it was: settings bind a run as they are written
    assert files.spelled("tar:~/a-{0..9}.tar") == f"tar:{tmp_path}/a-{{0..9}}.tar"
    assert [files.spelled(text) for text in ("mnist", "tfds:a/b:1.0.0", "folder:x", "")] == [
        *("mnist", "tfds:a/b:1.0.0", "folder:x", "")
    ]
    args = Namespace(out=Path("~/a"), src=[Path("~/b"), Path("c")], samples="~/d", model="~/e", batch=3, none=None)
    files.spelled_in(args, "samples")
    assert vars(args) == {
        **{"out": tmp_path / "a", "src": [tmp_path / "b", Path("c")], "samples": f"{tmp_path}/d", "model": "~/e"},
        **{"batch": 3, "none": None},
    }


def homeless(*_):
    raise RuntimeError("Could not determine home directory.")


def test_without_a_home_there_is_no_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.setattr(jax.config, "update", lambda name, value: pytest.fail(f"{name}={value}"))
    assert files.cache() is None
    if jax.config.jax_compilation_cache_dir is None:
        runtime.cache_compilations()
    assert len(bundled.load("mnist")[0]) == 4000
    with pytest.raises(UserError, match="no home directory"):
        files.expand("~/run")


@pytest.mark.parametrize("given", ["", "relative", "~/.cache", "{tmp}/file/cache", "/proc/cache"])
def test_a_cache_that_cannot_be(tmp_path, monkeypatch, given):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))  # no folder can be made in it
    monkeypatch.setenv("XDG_CACHE_HOME", given.format(tmp=tmp_path))
    assert files.cache() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert files.cache() == tmp_path / "cache/dd_jax"


@pytest.mark.parametrize(
    "error", [RuntimeError("Unable to initialize backend 'x': it is\nnot there"), AssertionError()]
)
def test_devices_that_are_not_there(monkeypatch, error):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "x")
    with pytest.raises(UserError, match=r"^JAX_PLATFORMS=x: no such device \((Unable.*it is|JAX finds none)\); unset"):
        runtime.find_devices()


@pytest.mark.parametrize(
    "coordinator",
    [
        *("", "localhost", "localhost:", "localhost:x", ":1234", "a b:1", "localhost:0", "localhost:99999", "a:1:2"),
        *("http://localhost:123", "[::1:12", "localhost:1\n", "no-such-host.invalid:1234", "a" * 70 + ".b:12"),
    ],
)
def test_a_coordinator_is_checked_before_it_is_handed_on(monkeypatch, coordinator):
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("handed on"))
    with pytest.raises(UserError, match=r"^--coordinator=[\s\S]*(is not HOST:PORT, such as|: no host )"):
        processes.start(coordinator, 2, 1)


@pytest.mark.parametrize("coordinator", ["localhost:1234", "127.0.0.1:1234", "[::1]:1234"])
def test_a_coordinator_that_is_one(coordinator):
    assert processes._check(coordinator) is None  # and no UserError


def test_a_reader_may_leave_half_way(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        files.show("many lines\n" * 9)
        print("and more")
