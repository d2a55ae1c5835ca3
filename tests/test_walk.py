"""Whatever a person sets, on the command line or in a config file: a result or one line, never a traceback."""

import importlib
import sys
import warnings
from pathlib import Path

import jax
import pytest
from absl import flags
from conftest import tiny_config
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from dd_jax import factory, main, overrides, pipeline, settings, stored, validate
from dd_jax.configs import about, kinds
from dd_jax.stages.run import Run, _check
from dd_jax.stages.workdir import STAGES, Workdir
from dd_jax.system.errors import UserError

FOLDER = Path(kinds.__file__).parent
CONFIGS = [path.stem for path in sorted(FOLDER.glob("*.py")) if "def get_config" in path.read_text()]
HUGE = "100000000000000000000"
NUMBERS = ("x", "", "0", "-1", "1", "7", "None", HUGE, "1.5", "true")
WORDS = ("", "nothing", "None", "a:b", "../no/such.file", "\N{SUPERSCRIPT THREE}", "a" * 300, "two\nlines")
TRIED: dict[type, tuple[str, ...]] = {
    int: NUMBERS,
    float: ("x", "", "0", "-1", "None", "1e400", "nan", "-inf", "1e308", "1e-300"),
    bool: ("x", "", "2", "None", "true", "false"),
    str: WORDS,
    tuple: ("x", "", "()", "(0,)", "(-1,)", "(1, 1)", "None", f"({HUGE},)", "(1.5,)", "('x',)", "((),)", "(True,)"),
    dict: ("x", "", "{}", "{'a': 1}", "{1: 2}", "None", "[]", "{'S0': {'nope': 3}}", "{'S0': {'split': -1}}"),
    type(None): (*NUMBERS, *WORDS),
}


def parsed(*words: str) -> ConfigDict:
    """What `main` makes of a command line."""
    argv, values = ["main", *words], flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=argv)
    overrides.read(argv, values)
    config: ConfigDict = values["config"].value
    return config


def everything() -> list[tuple[str, str, object]]:
    """(config, setting, value) of all settings and sections; the same value in several configs is there once."""
    found, seen = [], set()
    for name in CONFIGS:
        config = importlib.import_module(f"dd_jax.configs.{name}").get_config()
        here = dict(settings.flat(config))
        sections = {setting[:i] for setting in here for i, one in enumerate(setting) if one == "."}
        for setting, value in (here | {section: {} for section in sections}).items():
            if (setting, repr(value)) not in seen:
                seen.add((setting, repr(value)))
                found.append((name, setting, value))
    return found


ALL = everything()


def check(system, config, workdir, stage, source=None) -> None:
    here = Run(system, config, Workdir(workdir, config.to_dict(), source))
    _check(here, stage, STAGES if stage == "all" else [stage])


@pytest.fixture
def build(monkeypatch):
    """`pipeline.run`, as far as it goes before anything is computed."""
    monkeypatch.setattr(pipeline.stages, "run", check)
    monkeypatch.setattr(pipeline, "check_recipes", lambda *_: None)  # the shapes of all parameters: a second each time
    return pipeline.run


@pytest.mark.parametrize("name", CONFIGS)
def test_every_setting_takes_a_value_or_says_in_one_line_why_not(name, tmp_path, build):
    warnings.simplefilter("ignore")
    walked = [(setting, text) for one, setting, value in ALL if one == name for text in TRIED[type(value)]]
    for setting, text in walked:
        said = ""
        try:
            build(parsed(f"--config={FOLDER / name}.py", f"--config.{setting}={text}"), tmp_path)
        except UserError as error:
            said = str(error)
        except Exception as error:
            raise AssertionError(f"--config.{setting}={text}") from error
        assert "\n" not in said, (setting, text)
        assert len(said) < 600 + 2 * len(text), (setting, text)


def test_the_walk_is_whole():
    assert len(ALL) > 400
    assert sum(len(TRIED[type(value)]) for _, _, value in ALL) > 4000


@pytest.mark.parametrize("name", CONFIGS)
def test_every_setting_has_a_kind_and_the_configs_fit(name):
    config = validate.check(importlib.import_module(f"dd_jax.configs.{name}").get_config())
    assert [setting for setting, _ in settings.flat(config) if kinds.of(setting) is None] == []


def test_what_the_comments_call_none_can_be_none():
    said = {name for name, text in about.ABOUT.items() if "; none: " in text}
    names = {setting for _, setting, _ in ALL} | {"classifier"}
    known = sorted(name for name in names if (kind := kinds.of(name)) and kind.none)
    assert said - {*known} == set()
    for setting in known:
        name = next(one for one, other, _ in ALL if other == setting or other.startswith(f"{setting}."))
        for word in ("None", "none"):
            config = parsed(f"--config={FOLDER / name}.py", f"--config.{setting}={word}")
            assert config.to_dict() == parsed(f"--config={FOLDER / name}.py", f"--config.{setting}", word).to_dict()
            section, _, field = setting.rpartition(".")
            assert (config[section] if section else config)[field] is None


def test_the_last_word_counts():
    file = f"--config={FOLDER}/digits_llamagen.py"
    assert parsed(file, "--config.cache_chunk=none", "--config.cache_chunk=4").cache_chunk == 4
    assert parsed(file, "--config.cache_chunk=4", "--config.cache_chunk=none").cache_chunk is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def get_config(:\n", r"cannot be read: line 1: invalid syntax"),
        ("def get_config():\n    return 1 / 0\n", r"cannot be read: ZeroDivisionError: division by zero"),
        ("def get_config():\n    raise ValueError('choose\\n256')\n", r"choose 256"),
        ("import no_such_module\n", r"ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1\n", r"no attribute 'get_config'"),
        ("def get_config():\n    return None\n", r"must return a ConfigDict, not a NoneType"),
        ("def get_config():\n    return {'family': 'var'}\n", r"must return a ConfigDict, not a dict"),
        ("def get_config():\n    open('/no/such/file')\n", r"No such file or directory: '/no/such/file'"),
        ("\0", r"cannot be read"),
    ],
)
def test_config_files_that_fail(tmp_path, text, told):
    sys.modules.pop("config_config", None)  # ml_collections loads every file into one module
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=told) as caught:
        validate.check(parsed(f"--config={tmp_path}/mine.py", "--config.seed=3"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["family", "train.steps", "train.timesteps", "sample", "pairs.shard"])
def test_a_config_that_lacks_a_setting(tmp_path, setting):
    text = "from configs import digits_var\n\n\ndef get_config():\n    c = digits_var.get_config()\n"
    (tmp_path / "mine.py").write_text(f"{text}    del c.{setting}\n    return c\n")
    with pytest.raises(UserError, match=rf"config.{setting}\S* is not there: it must be "):
        validate.check(parsed(f"--config={tmp_path}/mine.py"))


def test_what_may_be_none_need_not_be_there():
    config = importlib.import_module("dd_jax.configs.digits_var").get_config()
    del config.classifier, config.pairs.first, config.evaluate.inception
    found = validate.check(config.lock())
    assert (found.classifier, found.pairs.first, found.evaluate.inception) == (None, None, None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config.trian.lr=1"], 'Did you mean "train"'),
        (["--config.train.lrr=1"], r"""py: 'lrr' Did you mean "lr" instead of "lrr"\?; --stage=config prints all"""),
        (["--config.model.depht=1"], 'Did you mean "depth"'),
        (["--config.classifier={'pach': 1}"], r"config.classifier.pach: there is no such .* did you mean .*patch\?"),
        (["--config.sample.by_plan={'S0': {'nope': 3}}"], r"with fields out of split .*, top_k .*, top_p"),
        (["--config.dtype.student=bf16"], "it must be one of float32, bfloat16"),
        (["--config.pairs.shard=0"], r"config.pairs.shard=0: it must be a whole number from 1 on \(pairs of a file\)"),
        (["--config.model.width=7"], "must be a multiple of 4 x heads"),
        (["--config.train.lr=nan"], "config.train.lr=nan: it must be a number from 0 on"),
        (["--config.seed=None"], "invalid literal for int"),
    ],
)
def test_what_the_line_says(words, told, tmp_path, build):
    with pytest.raises(UserError, match=told):
        build(parsed(f"--config={FOLDER}/digits_llamagen.py", *words), tmp_path)


EVERY = "pretrain pairs train sample evaluate speed"


@pytest.mark.parametrize(
    ("setting", "value", "stages", "told"),
    [
        ("sample.labels", "nine", "sample", "no class is called 'nine'"),
        ("sample.plans", ("S0 T9",), "sample", "cannot read 'T9'"),
        ("sample.prompt", "a fox", "sample", "draws classes, not captions"),
        ("sample.prompts", "no.txt", "sample", "draws classes, not captions"),
        ("evaluate.plans", ("S99",), "evaluate", "out of range"),
        ("evaluate.check_count", 0, "evaluate", "check_count=0"),
        ("evaluate.reference", 0, "evaluate", "reference=0"),
        ("evaluate.inception", "no/folder", "evaluate", "reference_statistics is not"),
        ("baselines.skip", (99,), "evaluate", "skip 99: whole numbers less than 16"),
        ("speed.plans", ("decode", "T"), "speed", "cannot read 'T'"),
        ("mesh", (3, 5), "pairs train sample", "there are"),
        ("pairs.first", 7, "pairs", "not a multiple of config.pairs.shard"),
        ("train.accumulate", 5, "train speed", "does not spread over 5 micro-batches"),
        ("weights.teacher", "no/folder", EVERY, "no weights in no/folder"),
        ("student.split", 99, EVERY, "split=99, and the steps are"),
        ("dtype.student", "bf16", EVERY, "one of float32, bfloat16"),
        ("data.resolution", 9, EVERY, "the tokenizer makes one code of 2 px"),
    ],
)
def test_a_failing_stage_answers_before_anything_is_compiled(tiny_run, monkeypatch, setting, value, stages, told):
    config, begun = tiny_config("llamagen"), []
    section, _, field = setting.rpartition(".")
    (config[section] if section else config)[field] = value
    monkeypatch.setattr("dd_jax.system.flops.matmul_rate", lambda *_, **__: begun.append("measured"))

    def listen(event: str, *_: object, **__: object) -> None:
        begun.extend([event] * ("backend_compile" in event))

    jax.monitoring.register_event_duration_secs_listener(listen)
    record = (tiny_run[0] / "stages.json").read_bytes()
    try:
        for stage in stages.split():
            with pytest.raises(UserError, match=told):
                pipeline.run(config, tiny_run[0], stage)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert begun == []
    assert (tiny_run[0] / "stages.json").read_bytes() == record


def test_what_is_compiled_is_noticed():
    """The test above would see it."""
    begun: list[str] = []

    def listen(event: str, *_: object, **__: object) -> None:
        begun.extend([event] * ("backend_compile" in event))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x * 41.25)(1.0)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert begun


@pytest.mark.parametrize(
    "word",
    [
        "--stage=",
        "--stage=trian",
        "--stage=None",
        "--staeg=all",
        "--processes=x",
        "--processes=",
        "--processes=2",
        "--process=1.5",
        "--config=",
        "--config=nothing",
        "--config=llamagen_l:512",
        f"--config={FOLDER}/llamagen_l.py:512",
        f"--config={FOLDER}",
        "--from=no/run",
        "--labels=,",
        "--labels=\N{SUPERSCRIPT THREE}",
        "--labels=10",
        "--prompt=a fox",
        "--prompts=no.txt",
        "--prompts=tfds:",
        "--workdir=gs://bucket/run",
        "--workdir=/dev/null/run",
        "stage",
        "--config.seed",
        "--config.=3",
        "--config..=3",
        "--config.seed.x=3",
        "--noconfig.seed",
        "--config.pairs=none",
    ],
)
def test_every_flag_says_in_one_line_what_is_wrong(tmp_path, monkeypatch, capsys, word, build):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main.runtime, "setup", lambda: None)
    config = [] if word.startswith("--config=") else [f"--config={FOLDER}/digits_llamagen.py"]
    monkeypatch.setattr(sys, "argv", ["main", *config, f"--workdir={tmp_path}/run", word])
    before = {name: main.flags.FLAGS[name].value for name in ("stage", "processes", "process", "labels", "prompt")}
    try:
        with pytest.raises(SystemExit) as caught:
            main.entry()
    finally:
        main.flags.FLAGS.unparse_flags()
        for name in before:
            main.flags.FLAGS[name].unparse()
    said = str(caught.value.code) if isinstance(caught.value.code, str) else capsys.readouterr().err
    assert "Traceback" not in said
    assert len([line for line in said.splitlines() if line.strip()]) == 1, said


def test_two_configs_are_one_too_many():
    file = f"--config={FOLDER}/digits_llamagen.py"
    with pytest.raises(UserError, match=r"^--config is given 2 times \(.*digits_llamagen.py, mnist_var\): give one"):
        parsed(file, "--config=mnist_var")


def test_a_run_brings_its_own_settings(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    run = tiny_run[0]
    assert stored.run_of([f"--from={run}", "--workdir", "none"]) == run
    assert stored.run_of([f"--workdir={run}", "--from=none"]) == run
    assert stored.run_of([f"--workdir={run}", "--config=mnist_var"]) is None
    assert main.implied(["--workdir=none"]) == main.DEFAULT
    words = f"--config={stored.FILE}:{run}", "--config.evaluate.inception=some", "--config.train.lr=1.0"
    found, made = parsed(*words), factory.settled(tiny_run[1])
    assert (found.evaluate.inception, found.train.lr) == ("some", 1.0)
    found.evaluate.inception, found.train.lr = None, made.train.lr
    assert found.to_dict() == made.to_dict()
    validate.check(found)


def test_a_run_that_names_code_brings_no_settings(tiny_run, tmp_path, capsys):
    text = (tiny_run[0] / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"adams3"', '"evil:run"'))
    with pytest.raises(SystemExit, match=r"config\.flow\.name is 'evil:run', code .*: if you trust it, give --config="):
        main.implied([f"--from={tmp_path}"])
    (tmp_path / "config.json").write_text(text[:9])
    with pytest.raises(SystemExit, match=r"config.json is damaged .*: give --config=FILE"):
        main.implied([f"--from={tmp_path}"])


def test_the_bare_command_is_the_default_run(monkeypatch):
    """`python -m dd_jax.main`, README's first command, has no words to read a run from."""
    begun: list[list[str]] = []
    monkeypatch.setattr(settings, "start", lambda *_, **__: begun.append(sys.argv[1:]))
    monkeypatch.setattr(sys, "argv", ["main"])
    main.entry()
    assert begun == [[f"--config={main.DEFAULT}"]]
