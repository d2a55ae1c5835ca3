"""The paper's tables beside ours: the right rows, nothing quick among them, pictures by class."""

import importlib
import json
import re

import numpy as np
import pytest
from test_report import parse

from dd_jax.data import captioned, labels
from dd_jax.data.sampleset import SampleSet
from dd_jax.method.plans import cost
from dd_jax.report import build, picture, rivals, sets, tables
from dd_jax.report.published import ROWS

MODEL = "VAR-d16"
ONE = {"model": MODEL, "plan": "S0", "protocol": "adm", "n": 50_000, "fast": False, "steps": 1, "ms_per_image": 21.5}
ONE |= {"fid": 9.8765, "inception_score": 190.25, "precision": 0.8125, "recall": 0.375, "seed": 3, "guidance": 2.0}
ONE |= {"reference": {"file": "VIRTUAL.npz", "sha256": "c" * 64}, "weights": {"sha256": "d" * 64}}
ONE |= {"sampling": {"weights": {"student": {"sha256": "e" * 64}}}, "sampled_on": ["8 x H100"]}
TWO = ONE | {"plan": "S0 S5", "steps": 2, "fid": 7.654, "ms_per_image": 40.0}
TORCH = ONE | {"protocol": "pytorch_fid", "fid": 9.1111, "inception_score": None, "precision": None, "recall": None}
FAST = ONE | {"fast": True, "n": 5000, "fid": 13.1313}


def lines(text):
    """Table rows of a section, as lists of cell texts."""
    rows = re.findall(r"<tr.*?>(.*?)</tr>", text)
    return [[re.sub("<.*?>", "", x) for x in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row)] for row in rows]


def test_the_published_numbers_are_the_configs_plans():
    """A row that can stand beside ours costs what the paper says, and most are what the config evaluates."""
    name = {"VAR-d16": "var_d16", "VAR-d20": "var_d20", "VAR-d24": "var_d24"}
    name |= {"LlamaGen-L": "llamagen_l", "LlamaGen-B": "llamagen_b", "LlamaGen-T2I": "llamagen_t2i"}
    for row in ROWS:
        if row.model and row.kind in ("AR", "Ours"):
            config = importlib.import_module(f"dd_jax.configs.{name[row.model]}").get_config()
            assert config.published == row.model
            steps = 10 if row.model.startswith("VAR") else 256
            # The paper counts `pre-trained-1-81` as 81: 80 of the teacher and one of the student.
            assert cost(row.plan, steps) == row.steps, row
            assert row.kind == "AR" or row.plan in config.evaluate.plans, row
    assert [sum(row.table == table for row in ROWS) for table in (1, 2, 3, 4)] == [22, 8, 3, 9]


def test_ours_stand_beside_theirs():
    first, *rest = tables.sections([ONE | {"fid": 99.0}, ONE, TWO, TORCH, FAST], MODEL)[1:]
    found = {(row[1], row[2]): row for row in lines(first)}
    row = found["VAR-d16-DD", "S0"]
    assert row[3:10] == ["9.94", "193.6", "0.8", "0.37", "327M", "1", "0.021"]
    assert row[10:] == ["9.88", "190.2", "0.812", "0.375", "9.11", "50000", "0.0215"]  # the newest
    assert found["VAR-d16-DD", "S0 S5"][10] == "7.65"
    assert set(found["LlamaGen-L-DD", "S0"][10:]) == {"\N{EN DASH}"}
    assert found["VQVAE-2", ""][4] == "~45"
    every = "".join(rest)
    for told in ("pytorch_fid", "VIRTUAL.npz cccccccc", "student eeeeeeee, inception dddddddd", "8 x H100"):
        assert told in every


def test_quick_scores_stand_apart():
    parts = tables.sections([ONE, FAST], MODEL)
    holding = [part for part in parts if "13.13" in part]
    assert all("Quick scores" in part for part in holding)
    assert len(holding) == 2  # table and charts
    assert not any("9.88" in part for part in holding)
    assert "Quick" not in "".join(tables.sections([ONE], MODEL))


def test_nothing_run_yet():
    page = "".join(tables.sections([], MODEL))
    assert "9.94" in page
    assert "All scores" not in page
    assert page.count("<svg") == 4  # the published points alone
    assert "".join(tables.sections([ONE | {"model": "mine"}], "mine")).count('class="first"') == 0


def store(folder, plan, side=256, classes=4, count=8, shift=0):
    """A finished set: image i is flat, of value i + shift."""
    settings = {"plan": plan, "count": count, "shard": 4, "seed": 0, "labels": "balanced", "resolution": side}
    made = SampleSet(folder, settings)
    for name, ids in made.shards.items():
        images = (ids + shift).astype(np.uint8)[:, None, None, None] * np.ones((1, side, side, 3), np.uint8)
        made.write(name, images, (ids % classes).astype(np.int32), 1.0, "cpu")


def test_pictures_by_class(tmp_path):
    store(tmp_path / "S0", "S0")
    store(tmp_path / "S0_S5", "S0 S5", shift=100)
    store(tmp_path / "fast" / "S0", "S0", shift=50)
    grid = sets.grid(tmp_path, ["tench, Tinca tinca", "goldfish"])
    assert grid.columns == ["S0", "S0 S5"]
    assert list(grid.rows) == ["tench", "goldfish", "2", "3"]
    assert grid.images.shape == (4, 2, 128, 128, 3)
    np.testing.assert_array_equal(grid.images[:, :, 0, 0, 0], [[i, 100 + i] for i in range(4)])
    assert sets.grid(tmp_path / "fast", [])
    assert sets.grid(tmp_path / "nothing", []) is None


@pytest.mark.parametrize("scores", [[], [ONE, TWO, TORCH, FAST]])
def test_a_work_directory_becomes_a_page(tmp_path, scores):
    (tmp_path / "scores").mkdir()
    for i, row in enumerate(scores):
        (tmp_path / "scores" / f"{i}.json").write_text(json.dumps(row))
    (tmp_path / "scores/torn.json").write_text("{")
    store(tmp_path / "samples/S0", "S0")
    if not scores:
        (tmp_path / "results.jsonl").write_text('{"generator": "teacher"}\n')
    config = {"data": {"name": "imagenet2012", "classes": 1000}, "published": MODEL, "family": "x"}
    page = build.from_workdir(tmp_path, config, {}).read_text()
    checker = parse(page)
    assert "http" not in page
    assert sum(tag == "svg" for tag, _ in checker.tags) == (10 if scores else 6)
    assert "tench" in "".join(checker.text)


def test_demos_keep_their_report(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"generator": "teacher"}\n')
    page = build.from_workdir(tmp_path, {"data": {"name": "mnist"}, "published": ""}, {}).read_text()
    assert "published tables" not in page


def test_rivals_have_a_source_and_a_protocol():
    found = rivals.rivals()
    assert all(one.source and one.protocol and one.kind and one.figures for one in found)
    assert len({one.system for one in found}) == len(found)
    best = {one.system: min((f["fid"] for f in one.figures if f.get("fid")), default=None) for one in found}
    told = {"DD's teachers": 2.51, "DD": 8.92, "DD2": 4.91, "Drifting": 1.54, "LPD": 2.4, "PJD": None}
    assert best.items() >= told.items()


def test_rivals_stand_apart_from_the_papers_tables():
    text = rivals.section([ONE, FAST])
    checker = parse(text)
    assert "measured on other machines and by other protocols" in text
    assert text.startswith('<section class="apart">')
    assert len(re.findall("<li>", text)) == len(rivals.rivals())
    for one in rivals.rivals():
        assert one.source in "".join(checker.text)
        assert one.protocol in "".join(checker.text)
    assert text.count('class="student" cx') == 2  # steps and time; the quick score is not there
    assert "DD2 VAR-d16: 1, 6.21" in text  # a tooltip says what a number stands for
    assert "arXiv 2510.21003" in text


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ({"data": {"name": "imagenet2012"}, "published": MODEL}, True),
        ({"data": {"name": "imagenet2012"}, "published": ""}, False),
        ({"data": {"name": "digits"}, "published": ""}, False),
        ({"data": {"name": "captions"}, "published": "LlamaGen-T2I", "text": {"words": False}}, False),
    ],
)
def test_rivals_are_for_imagenet_only(tmp_path, config, shown):
    (tmp_path / "results.jsonl").write_text('{"generator": "teacher"}\n')
    page = build.from_workdir(tmp_path, config, {}).read_text()
    assert ("Beside other papers" in page) is shown


def test_named_classes_carry_their_names(tmp_path, monkeypatch):
    """In the picture, in the report, and as files; two classes of one name keep apart."""
    folder = tmp_path / "samples/named"
    store(folder / "S0", "S0", side=64, classes=3, count=8)
    made = SampleSet.found(folder / "S0")
    assert labels.short("imagenet2012", 1000)[207] == "golden retriever"
    names = [labels.short("imagenet2012", 1000)[i] for i in (134, 517, 207)]
    drawn = []
    monkeypatch.setattr(sets, "grid_png", lambda *given: drawn.append(given) or picture.grid_png(*given))
    sets.named_png(made, names)
    images, _, _, rows, wide = drawn[0]
    assert list(rows) == ["crane (134)", "crane (517)", "golden retriever"]
    np.testing.assert_array_equal(images[:, 0, 0, 0, 0], [0, 3, 6, 1, 4, 7, 2, 5, 255])  # the last one is missing
    assert wide == 3
    captioned.write(made, names, named=True)
    found = sorted(path.name for path in (folder / "S0_images/images").iterdir())
    assert found[:2] == ["crane_134-00.png", "crane_134-01.png"]
    assert found[-2:] == ["golden_retriever-00.png", "golden_retriever-01.png"]
    (tmp_path / "results.jsonl").write_text('{"generator": "teacher"}\n')
    page = build.from_workdir(tmp_path, {"data": {"name": "imagenet2012", "classes": 1000}}, {}).read_text()
    assert "Samples of named classes" in page
    assert "golden retriever" in page
    assert "samples/named" in page


def test_pictures_of_an_earlier_list_alone_are_removed(tmp_path):
    store(tmp_path / "S0", "S0", side=8, classes=1, count=2)
    made, images = SampleSet.found(tmp_path / "S0"), tmp_path / "S0_images/images"
    captioned.write(made, ["cat"], named=True)
    (images / "mine.png").write_bytes(b"x")
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"x")
    with (tmp_path / "S0_images/result.jsonl").open("a") as file:
        file.write(json.dumps({"text": "", "image_path": "../outside.png"}) + "\n")
    captioned.write(made, ["dog"], named=True)
    assert {path.name for path in images.iterdir()} == {"dog-00.png", "dog-01.png", "mine.png"}
    assert outside.exists()
    (tmp_path / "S0_images/result.jsonl").write_text("torn")
    captioned.write(made, ["dog"], named=True)


def test_sample_sets_tell_their_batch(tmp_path):
    settings = {"plan": "S0", "count": 2, "shard": 1, "seed": 0, "labels": "balanced", "resolution": 8}
    made = SampleSet(tmp_path / "S0", settings)
    for name in made.shards:
        made.write(name, np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int32), 1.0, "cpu", 64)
    assert SampleSet.found(tmp_path / "S0").manifest["batches"] == [64]
    told = "".join(tables.sections([ONE | {"batch": 64}], MODEL))
    assert "<th>ms / picture</th><th>at once</th>" in told
    assert "<td>64</td>" in told
