"""Going on from weights of other classes: rows that are kept, a trunk that stays, what cannot be; both families."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import tiny_config

from dd_jax import factory, overrides, pipeline
from dd_jax.configs import own_llamagen, own_var, var
from dd_jax.data import labels
from dd_jax.scripts import fake_release
from dd_jax.stages import parts
from dd_jax.stages.finetune import Start
from dd_jax.stages.teaching import Regularization, train_teacher
from dd_jax.stages.workdir import Workdir
from dd_jax.system import rng, weights
from dd_jax.system.errors import UserError
from dd_jax.training.course import Course
from dd_jax.training.loop import Recipe, init_state
from port_weights import __main__ as port
from port_weights.catalog import CATALOG

pytestmark = pytest.mark.xdist_group("finetune")
FAMILIES = ("llamagen", "var")
THEIRS = ("lion", "7", "volcano", "3", "tench")  # of the published model; ours are ten digits
KEPT = {7: 1, 3: 3}


def published(config, folder: Path) -> Path:
    """A tokenizer, a teacher and a student of five classes, with strong weights, as porting leaves them."""
    config = config.copy_and_resolve_references()
    config.data.update({"classes": len(THEIRS), "class_names": THEIRS, "name": "folder:gone", "channels": 1})
    config = factory.settled(config)
    system = factory.build(config)
    tokenizer = tiny.strong(jax.eval_shape(system.tokenizer.init, rng.key(0)))
    made = {
        "tokenizer": tokenizer,
        "teacher": tiny.strong(jax.eval_shape(system.teacher_init, rng.key(0), tokenizer), 1),
        "student": tiny.strong(jax.eval_shape(system.student.init, rng.key(0)), 2),
    }
    for part, params in made.items():
        about = {"id": f"known_{part}", "part": part, "config": config.to_dict()}
        about["companions"] = {} if part == "tokenizer" else {"tokenizer": "tokenizer"}
        weights.save(folder / part, jax.tree.map(np.asarray, params), about)
    return folder


def own(family: str, folder: Path, **teacher):
    """A run on digits that goes on from these weights."""
    config = tiny_config(family)
    config.weights.tokenizer = str(folder / "tokenizer")
    config.pretrain.teacher.update({"from": str(folder / "teacher"), "muon": False, "lr": 1e-2} | teacher)
    return factory.settled(config)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return published(tiny_config(family), tmp_path_factory.mktemp(family))


def table(system, trunk):
    for name in system.class_table:
        trunk = trunk[name]
    return np.asarray(trunk)


def without_table(system, trunk):
    return {k: v for k, v in trunk.items() if k != system.class_table[0]}


def begun(config, folder: Path):
    """(system, the teacher's start, tokenizer's parameters)."""
    system = factory.build(config)
    codes = weights.on_device(weights.load(folder / "tokenizer", None))
    begin = parts.going_on(config, "teacher", folder)
    return system, begin, codes


def taught(config, folder: Path, where: Path, **recipe):
    """The trunk after its training on codes that follow from the class."""
    system, begin, codes = begun(config, folder)
    draw = np.random.default_rng(0)
    label = np.arange(80, dtype=np.int32) % 10
    code = draw.integers(0, system.tokenizer.vocab, (10, system.layout.tokens))[label]
    made = Recipe(**{"steps": 12, "batch": 16, "lr": 1e-2, "warmup": 2, "ema": 0.0, "checkpoint_every": 6} | recipe)
    given = Course("teacher", where, made), codes, code, label
    return system, train_teacher(system, *given, begin=begin, pace=parts.pace(system, config))["trunk"]


def losses(where: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (where / "curve.jsonl").open()]


def test_rows_of_classes_that_keep_a_name_are_kept(family, folder):
    config = own(family, folder)
    system, begin, codes = begun(config, folder)
    theirs = weights.load(folder / "teacher", None)
    fitted = begin.load(jax.eval_shape(system.teacher_init, rng.key(0), codes), system.class_table)
    rows, before = table(system, fitted), table(system, theirs)
    assert rows.shape == (11, before.shape[1])
    np.testing.assert_array_equal(rows[-1], before[-1])
    for mine, old in KEPT.items():
        np.testing.assert_array_equal(rows[mine], before[old])
    for new in {*range(10)} - {*KEPT}:
        np.testing.assert_allclose(rows[new], before[:-1].mean(0), rtol=1e-6, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, without_table(system, fitted), without_table(system, theirs))
    assert (
        begin.told
        == f"teacher: from {folder}/teacher: 2 of 10 classes keep their row: 3, 7; the others begin at the mean of all"
    )


def test_a_frozen_trunk_stays_to_the_bit_and_a_slow_one_moves_less(family, folder, tmp_path):
    far, theirs = {}, weights.load(folder / "teacher", None)
    for share in (0.0, 0.1, 1.0):
        config = own(family, folder, trunk_lr=share)
        system, trunk = taught(config, folder, tmp_path / str(share))
        moved = jax.tree.map(
            lambda a, b: np.abs(a - b).max(), without_table(system, trunk), without_table(system, theirs)
        )
        far[share] = max(jax.tree.leaves(moved))
        seen = losses(tmp_path / str(share))
        assert seen[-1] < seen[0], share
        assert np.abs(table(system, trunk)[7] - table(system, theirs)[KEPT[7]]).max() > 1e-3
    assert far[0.0] == 0
    assert 1e-4 < far[0.1] < 0.3 * far[1.0]


def test_what_is_frozen_has_no_moments(family, folder):
    system, begin, codes = begun(config := own(family, folder, trunk_lr=0.0), folder)
    start = {"trunk": begin.load(jax.eval_shape(system.teacher_init, rng.key(0), codes), system.class_table)}
    state = init_state(
        start, parts.pace(system, config).optimizer(Recipe(4, 4, 1e-3, no_decay=(system.class_table[0],)))
    )
    shapes = [x.shape for x in jax.tree.leaves(state.opt) if x.ndim]
    assert shapes == [table(system, start["trunk"]).shape] * 2


def test_resumed_equals_uninterrupted(family, folder, tmp_path):
    config = own(family, folder, trunk_lr=0.0 if family == FAMILIES[0] else 0.1)
    _, whole = taught(config, folder, tmp_path)
    shutil.rmtree(tmp_path / "12")
    _, again = taught(config, folder, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, whole, again)


def test_the_orthogonalised_optimizer_takes_part(family, folder, tmp_path):
    if family != FAMILIES[0]:
        pytest.skip("knows nothing of families")
    theirs = weights.load(folder / "teacher", None)
    for share in (0.0, 0.1):
        config = own(family, folder, trunk_lr=share)
        system, trunk = taught(config, folder, tmp_path / str(share), muon=True, weight_decay=0.1)
        same = jax.tree.map(np.array_equal, without_table(system, trunk), without_table(system, theirs))
        assert all(jax.tree.leaves(same)) == (share == 0)


@pytest.mark.slow
def test_pairs_and_student_follow(family, folder, tmp_path, capsys):
    """The whole path but for scores: teacher on the own classes, pairs, and a student that began as a published one."""
    config = own(family, folder, trunk_lr=0.0)
    config.weights.start = str(folder)  # its student
    for stage in ("pretrain", "pairs", "train"):
        pipeline.run(config, tmp_path, stage)
    told = capsys.readouterr().out
    assert "teacher: from " in told
    assert (
        f"student: from {folder}/student: 2 of 10 classes keep their row: 3, 7; the others begin at the teacher's"
        in told
    )
    system = factory.build(config)
    teacher, theirs = weights.load(tmp_path / "weights/teacher", None), weights.load(folder / "teacher", None)
    jax.tree.map(np.testing.assert_array_equal, without_table(system, teacher), without_table(system, theirs))
    assert weights.describe(tmp_path / "weights/student")["config"]["data"]["classes"] == 10
    again = tiny_config(family)  # a run, too, is something to go on from
    again.weights.tokenizer, again.pretrain.teacher["from"] = str(folder / "tokenizer"), str(tmp_path)
    assert parts.going_on(factory.settled(again), "teacher", tmp_path / "b").whole
    assert Workdir(tmp_path, config.to_dict()).done("train")


def test_a_student_keeps_its_rows_and_takes_the_teachers(family, folder):
    config = own(family, folder)
    config.weights.start = str(folder / "student")
    system, begin, codes = begun(config, folder)
    trunk = begin.load(jax.eval_shape(system.teacher_init, rng.key(0), codes), system.class_table)
    found = parts.start(system, config, folder, {"trunk": trunk})
    theirs = weights.load(folder / "student", None)
    rows, before = table(system, found["trunk"]), table(system, theirs["trunk"])
    for mine, old in (*KEPT.items(), (-1, -1)):
        np.testing.assert_array_equal(rows[mine], before[old])
    np.testing.assert_array_equal(rows[0], table(system, trunk)[0])
    jax.tree.map(
        np.testing.assert_array_equal,
        without_table(system, found["trunk"]),
        without_table(system, theirs["trunk"]),
    )


CASES = {
    "model.width=64": (
        {"model.width": 64},
        r"has model.width=32, and config.model.width=64: set --config.model.width=32",
    ),
    "model.depth=2": ({"model.depth": 2}, r"has model.depth=1, and config.model.depth=2: set --config.model.depth=1"),
    "model.heads=4": ({"model.heads": 4}, r"has model.heads=2, and config.model.heads=4"),
    "vocab": ({"tokenizer.vocab": 16}, r"has tokenizer.vocab=32, and config.tokenizer.vocab=16"),
    "no folder": ({"pretrain.teacher.from": "nowhere"}, r"no weights in nowhere"),
    "no tokenizer": ({"weights.tokenizer": None}, r"knows one tokenizer's codes: name it, --config.weights.tokenizer"),
    "two": ({"data.class_names": ("lion", "Lion", *"23456789")}, r"'lion' and 'Lion' are both its class 0: name them"),
    "rate": (
        {"pretrain.teacher.from": "", "pretrain.teacher.trunk_lr": 0.5},
        r"trunk_lr=0.5, and nothing is gone on from",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_one_line_before_anything_runs(case, family, folder, tmp_path):
    config = own(family, folder)
    changed, told = CASES[case]
    for name, value in changed.items():
        section, _, field = name.rpartition(".")
        target = config
        for one in section.split("."):
            target = target[one]
        target[field] = value
    with pytest.raises(UserError, match=told) as error:
        pipeline.run(config, tmp_path, "pretrain")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "classifier").exists()


def test_other_parts_and_finished_teachers_are_refused(family, folder, tmp_path):
    config = own(family, folder)
    config.pretrain.teacher["from"] = str(folder / "tokenizer")
    with pytest.raises(UserError, match=r"tokenizer holds a tokenizer: name a teacher's folder, or a run that has one"):
        pipeline.run(config, tmp_path, "pretrain")
    config = own(family, folder)
    config.weights.teacher = str(folder / "teacher")
    with pytest.raises(
        UserError, match=r"config.weights.teacher=.* is finished, config.pretrain.teacher.from=.* leave one"
    ):
        pipeline.run(config, tmp_path, "pretrain")


def test_codes_of_another_tokenizer_are_refused(family, folder, tmp_path):
    other = shutil.copytree(folder / "tokenizer", tmp_path / "other")
    about = weights.describe(other)
    params = jax.tree.map(lambda x: x + 1, weights.load(other, None))
    weights.save(other, params, about)
    config = own(family, folder)
    config.weights.tokenizer = str(other)
    with pytest.raises(
        UserError, match=r"knows the codes of tokenizer, and config.weights.tokenizer=.*other is another one"
    ):
        pipeline.run(config, tmp_path / "run", "pretrain")


def test_another_family_is_refused(tmp_path):
    folder = published(tiny_config("var"), tmp_path)
    config = own("llamagen", folder)
    with pytest.raises(UserError, match=r"is of the family var, the config of llamagen: choose one of var"):
        parts.going_on(config, "teacher", tmp_path)


def test_nothing_in_common_is_told(family, folder):
    config = own(family, folder)
    config.data.class_names = tuple("abcdefghij")
    told = parts.going_on(config, "teacher", folder).told
    assert told.endswith("0 of 10 classes keep their row; the others begin at the mean of all")


@pytest.mark.parametrize("words", [["--config.pretrain.teacher.from=a b"], ["--config.pretrain.teacher.from", "a b"]])
def test_the_command_line_takes_a_word_of_pythons(words):
    argv = ["main", *words, "--config.seed=3"]
    assert overrides.take_words(argv) == {"pretrain.teacher.from": "a b"}
    assert argv == ["main", "--config.seed=3"]


def test_names_across_sets():
    imagenet = ("imagenet2012", 1000, ())
    mine = ("folder:x", 5, ("n02099601", "golden_retriever ", "Volcano", "my dog", "crane"))
    assert labels.counterparts(mine, imagenet) == ((207,), (207,), (980,), (), (134, 517))
    assert labels.counterparts(imagenet, imagenet)[134] == (134,)
    assert labels.counterparts(imagenet, mine)[207] == (0,)  # by its id, which goes before what it stands for
    assert labels.counterparts(("tfds:imagenet2012:5.1.0", 1000, ()), imagenet)[517] == (517,)
    assert labels.counterparts(("folder:x", 2, ("3", "tench, Tinca tinca")), imagenet) == ((), (0,))
    assert labels.names("imagenet2012", 3) == ("0", "1", "2")  # fine-tuned on others: nobody knows which


@pytest.mark.parametrize(("module", "option"), [(own_var, "d16"), (own_llamagen, "l"), (own_llamagen, "b_384")])
def test_published_sizes_on_own_pictures(module, option):
    config = module.get_config(option)
    config.data.classes = 12
    system = factory.build(config)
    assert (system.classes, config.pretrain.teacher.trunk_lr) == (12, 0.1)
    with pytest.raises(ValueError, match=f"choose 64, 128, 256, .*{option}"):
        module.get_config("512")


@pytest.mark.parametrize(
    ("module", "option", "lr", "undecayed"),
    [
        (own_var, "d36", 2.5e-5, ("pos_1LC", "lvl_embed", "ada_gss")),
        (own_var, "256", 5e-5, ("pos_1LC", "lvl_embed")),
        (own_llamagen, "l", 2.5e-5, ()),
        (own_llamagen, "128", 5e-5, ()),
    ],
)
def test_teachers_of_published_sizes_are_trained_as_released(module, option, lr, undecayed):
    config = module.get_config(option)
    config.data.classes = 12
    teacher, system = config.pretrain.teacher, factory.build(config)
    assert (teacher.b1, teacher.b2, teacher.weight_decay, teacher.label_dropout) == (0.9, 0.95, 0.05, 0.1)
    assert (teacher.lr, teacher.no_decay, config.train.no_decay) == (lr, undecayed, undecayed)
    tokenizer = jax.eval_shape(system.tokenizer.init, rng.key(0))
    Recipe.of(teacher).check(jax.eval_shape(system.learned_init, rng.key(0), tokenizer))
    left_out = 0.1 * config.model.depth / 24 if module is own_var else 0.1
    assert (teacher.drop_path or teacher.dropout, teacher.label_smoothing, teacher.views) == (left_out, 0.0, 10)
    assert (config.data.crop, config.data.flip) == ("random", module is own_llamagen)
    assert {"S0", "S0 J2"} <= {*config.evaluate.plans}
    small = module.get_config("64").pretrain.teacher
    assert (small.b2, small.muon, small.no_decay, small.dropout, small.drop_path) == (0.99, True, (), 0.0, 0.0)


@pytest.mark.slow
def test_the_published_width(tmp_path, monkeypatch):
    """VAR-d16's width, one layer, twelve classes, three of them ImageNet's: kept rows, falling loss, a student."""
    theirs = var.get(16)
    theirs.model.depth = 1
    known = dataclasses.replace(CATALOG["var_d16"], config=theirs.copy_and_resolve_references)
    monkeypatch.setitem(CATALOG, "var_d16", known)
    folder = port.port(known, fake_release.release("var_d16", tmp_path / "var_d16.pth"), tmp_path)
    config = own_var.get_config("d16")
    names = ("n02099601", "volcano", "tench", *(f"mine {i}" for i in range(9)))
    config.data.update({"classes": 12, "class_names": names})
    config.model.depth, config.dtype.teacher = 1, "float32"
    config.pretrain.teacher["from"] = str(folder)
    system = factory.build(config)
    begin = Start.of("config.pretrain.teacher.from", folder, "teacher", config, None)
    codes = {"quantizer": jax.jit(system.tokenizer.quantizer.init)(rng.key(0))}  # all that a teacher knows of it
    fitted = begin.load(jax.eval_shape(system.teacher_init, rng.key(0), codes), system.class_table)
    rows, before = table(system, fitted), table(system, weights.load(folder, None))
    assert rows.shape == (13, 1024)
    np.testing.assert_array_equal(rows[[0, 1, 2, -1]], before[[207, 980, 0, -1]])
    label = np.array([0, 11], np.int32)  # a class that they know, a new one: every step reads both
    code = np.random.default_rng(0).integers(0, 4096, (2, system.layout.tokens))
    recipe = Recipe(steps=5, batch=2, lr=1e-2, warmup=1, ema=0.0, checkpoint_every=5)
    given = Course("teacher", tmp_path / "teacher", recipe), codes, code, label, Regularization(label_dropout=0.0)
    after = train_teacher(system, *given, begin=begin, pace=parts.pace(system, config))["trunk"]
    seen = losses(tmp_path / "teacher")
    print(begin.told, seen)
    assert seen[-1] < seen[0] - 0.1
    student = system.student.init_from_teacher(rng.key(0), after)
    np.testing.assert_array_equal(table(system, student["trunk"]), table(system, after))
    x = jnp.zeros((1, system.layout.tokens, 32))
    logits, _ = system.student(student, system.teacher.blank(1), x, jnp.zeros(1, jnp.int32))
    assert np.isfinite(np.asarray(logits)).all()
