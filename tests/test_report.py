"""The report: right numbers, valid and self-contained markup, nothing unescaped."""

import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dd_jax.report import build, machine, svg, taus, words
from dd_jax.report.build import render
from dd_jax.report.picture import Grid, column_strips, grid_png
from dd_jax.report.rows import comparable, picture_key
from dd_jax.report.style import style_sheet
from dd_jax.system.errors import UserError
from dd_jax.training import curves

TEACHER = {"generator": "teacher", "plan": "T0:49", "steps": 49, "fd": 16.1, "fd_teacher": 0.87, "n": 2000}
TEACHER |= {"class_accuracy": 0.978, "nll": 1.39, "agreement": 1.0, "ms_per_image": 3.0, "recall": None}
ONE = TEACHER | {
    "generator": "student",
    "plan": "S0",
    "steps": 1,
    "fd": 22.8,
    "ms_per_image": 0.5,
    "fd_teacher": 6.05,
}
TWO = ONE | {"plan": "S0 S16", "steps": 2, "fd": 20.5}
REFINED = ONE | {"plan": "S0 J*", "steps": 20, "sweeps": 16.7, "exact": 1.0}
BASELINE = ONE | {"generator": "onestep*", "plan": "", "fd": 54.2, "class_accuracy": 0.759}
REAL = {"generator": "real", "plan": "", "steps": None, "fd": 0.0}
RESULTS = [REAL, TEACHER, ONE, TWO, REFINED, BASELINE]
CURVES = {"student": [{"step": i, "loss": 3 / (i + 1), "agreement": i / 100} for i in range(50)]}


def grid(noises=2):
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8, 1), np.uint8)
    return Grid(images, ["Teacher\n49 steps", "One step", "onestep*"], ["0", "1", "2", "3"][: 4 // noises], noises)


class Checker(HTMLParser):
    """Every tag closed in order; collects the text."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag not in self.void
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def parse(page):
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    return checker


def test_the_headline_states_what_was_won():
    facts = {"title": "demo", "stages": {"train": 100.0, "pairs": 20.0}, "matmul_gflop": 120 * 85.0}
    page = build.render(RESULTS, [grid()], CURVES, {"train": {"steps": 5}}, facts)
    checker = parse(page)
    text = re.sub(r"\s+", " ", "".join(checker.text))
    assert "49 steps → 1 step" in text
    assert "6.0\N{MULTIPLICATION SIGN} faster (3 to 0.5 ms a picture)" in text
    assert "Class accuracy 97.8% → 97.8%, Frechet distance to real pictures 16.1 → 22.8 (20.5 with two steps)." in text
    assert "(onestep*): class accuracy 75.9%, Frechet distance to real pictures 54.2." in text
    assert "2 min 00 s" in text
    same = "the same on the two cores that README's minutes are of (170 GFLOP/s)about 1 min 00 s"
    assert f"{same} (wall time \N{MULTIPLICATION SIGN} 85 / 170;" in text
    assert sum(tag == "svg" for tag, _ in checker.tags) == 8
    assert sum(tag == "img" for tag, _ in checker.tags) == 3
    assert "<td>\N{EN DASH}</td>" in page  # recall was null


def test_the_curve_against_tau_has_the_temperature_that_all_is_drawn_at():
    row = {"generator": "student", "plan": "S0", "recall": 0.6, "precision": 0.8, "nll": 1.9}
    given = [
        row | {"fd_teacher": 5.0},
        row | {"tau": 1.0, "fd_teacher": 7.0},
        row | {"plan": "S0 J4", "fd_teacher": 3.0},
    ]
    (section,) = taus.sections(given, 0.7)
    assert section.count("<circle") == 4 * 2  # four charts, of .7 and 1
    assert not taus.sections(given[:1], 0.7)  # no flow head's


def test_the_page_needs_nothing_else():
    page = build.render(RESULTS, [grid()], CURVES, {}, {})
    for _, attributes in parse(page).tags:
        source = attributes.get("src") or attributes.get("href") or "data:"
        assert source.startswith("data:") or source == "#words"  # a place on this page
    assert "http" not in page


def test_everything_is_escaped():
    evil = '<script>alert("x")</script>'
    row = ONE | {"generator": "teacher" + evil, "plan": "S0" + evil, evil: evil, "flag": True}
    nasty = Grid(grid().images, [evil] * 3, [evil] * 2, 2, evil, evil)
    facts = {"title": evil, "stages": {evil: 1.0}, "versions": {evil: evil}, evil: evil}
    curves = {evil: CURVES["student"]}
    page = build.render(
        [TEACHER, row, BASELINE | {"generator": "onestep" + evil}], [nasty], curves, {evil: evil}, facts
    )
    assert "<script" not in page
    assert 'alert("x")' not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.S)
    parse(page)


@pytest.mark.parametrize(
    "results", [[], [TEACHER], [ONE], [REAL], [TEACHER, {"generator": "student", "plan": "S0", "steps": 1}]]
)
def test_partial_results_still_make_a_page(results):
    parse(build.render(results, [], {}, {}, {}))


def test_a_slower_student_is_not_called_faster():
    page = build.render([TEACHER, ONE | {"ms_per_image": 6.0}], [], {}, {}, {})
    assert "2.0\N{MULTIPLICATION SIGN} the time" in page
    assert "faster" not in page


@pytest.mark.parametrize(
    ("generator", "plan", "kind"),
    [
        ("teacher", "T0:10", "teacher"),
        ("student", "S0 T4:5 S5", "student"),
        ("student", "S0 J4", "refined"),
        ("onestep*", "", "baseline"),
        ("onestep*", "J*", "baseline"),
        ("skip-3", None, "baseline"),
        ("real", "", "other"),
    ],
)
def test_kinds(generator, plan, kind):
    assert build.kind({"generator": generator, "plan": plan}) == kind


def test_distances_of_fewer_pictures_are_left_out():
    few = REFINED | {"n": 250}
    *kept, found = comparable([REAL, TEACHER, ONE, few])
    assert kept == [REAL, TEACHER, ONE]
    assert not {"fd", "fd_teacher", "recall"} & found.keys()
    assert found["agreement"] == few["agreement"]


def test_write_replaces_the_file(tmp_path):
    path = build.write(tmp_path / "sub" / "report.html", "é")
    assert build.write(path, "ü").read_text(encoding="utf-8") == "ü"
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def finished(workdir):
    """A work directory as the stages leave it: example i is of class i % 2."""
    workdir.mkdir()
    (workdir / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in RESULTS))
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    np.savez(workdir / "grids.npz", **{f"{r['generator']}|{r['plan']}": images for r in RESULTS[1:]})
    with curves.Writer(workdir / "student" / "curve.jsonl") as writer:
        for row in CURVES["student"]:
            writer.write(**row)
    timed = {1: (9.0, 3.0), 64: (3.0, 0.5)}
    plans = [
        {"plan": plan, "batch": batch, "ms_per_image": ms, "share_of_stream": 0.124, "memory_gb": 0.00435 * batch**2}
        for batch, both in timed.items()
        for plan, ms in zip(("T0:49", "S0"), both, strict=True)
    ]
    machine = {"jax": "1.2.3", "cores": 2, "stream_gbs": 24.66}
    speed = {"machine": machine, "training": {"share_of_matmul": 0.5, "matmul_gflops": 85}, "plans": plans}
    (workdir / "speed.json").write_text(json.dumps(speed))
    return workdir


def test_a_work_directory_becomes_a_page(tmp_path):
    workdir = finished(tmp_path / "run")
    config = {"data": {"name": "mnist", "classes": 2}, "family": "raster"}
    record = {
        "train": {"done": True, "seconds": 60.0, "matmul_gflop": 5100.0},
        "pairs": {"done": False, "seconds": 9.0},
    }
    path = build.from_workdir(workdir, config, record)
    text = re.sub(r"\s+", " ", "".join(parse(path.read_text(encoding="utf-8")).text))
    assert "mnist \N{MIDDLE DOT} raster" in text
    assert "student: loss" in text
    assert "1 min 00 s" in text
    assert "30 s (wall time \N{MULTIPLICATION SIGN} 85 / 170;" in text
    assert "reaches 50% of that" in text
    assert "jax 1.2.3" in text
    assert Image.open(workdir / "grid.png").width > 100


def test_a_run_on_own_pictures_shows_what_it_learnt_from(tmp_path):
    workdir = finished(tmp_path / "run")
    told = {"name": "folder:x", "classes": {"<b>at": 3, "dog": 1200}, "train": 1100, "held_out": 103}
    (workdir / "pictures.json").write_text(json.dumps(told | {"lines": ["sizes: 8 x 8 px"]}))
    scores = {"psnr": 21.456, "ssim": 0.9, "held_out": 103, "maps": [1, 2], "counted": 1100}
    scores |= {"used/0": 0.25, "used/1": 0.815, "perplexity/0": 3.2, "perplexity/1": 812.4}
    (workdir / "tokenizer" / "grids").mkdir(parents=True)
    (workdir / "tokenizer" / "scores.json").write_text(json.dumps(scores))
    Image.new("RGB", (4, 4)).save(workdir / "tokenizer" / "grids" / "last.png")
    with curves.Writer(workdir / "teacher" / "curve.jsonl") as writer:
        writer.write(**{"step": 9, "loss": 2.0, "nll/row_0": 1.25, "accuracy/row_0": 0.5})
    page = parse(build.from_workdir(workdir, {}, {}).read_text(encoding="utf-8"))
    text = " ".join(page.text)
    for expected in ("<b>at", "1,200", "1,100 to train on, 103 held out; sizes: 8 x 8 px", "PSNR 21.46 dB, SSIM 0.900",
                     "2 x 2", "81.5%", "812", "1,100 training pictures", "row 0 1.25 50.0%"):  # fmt: skip
        assert expected in text
    assert text.index("1,200") < text.index("<b>at")  # the largest class first
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"].count("reconstructions") == 1


def test_pictures_are_sorted_by_class(tmp_path):
    grid = build._grid(finished(tmp_path / "run") / "grids.npz", RESULTS, ["cat", "dog"])
    assert grid.noises == 2
    assert list(grid.columns) == [
        "Teacher\n49 steps",
        "One step\nS0",
        "Two steps\nS0 S16",
        "Certified\nS0 J*",
        "onestep*\none step",
    ]
    np.testing.assert_array_equal(grid.images[:, 0, 0, 0, 0], [0, 2, 1, 3])
    assert grid.rows == ["cat", "dog"]


def test_what_is_missing_is_left_out_or_named(tmp_path):
    with pytest.raises(UserError, match=r"no .*results.jsonl: run --stage=evaluate first"):
        build.from_workdir(tmp_path, {}, {})
    (tmp_path / "results.jsonl").write_text('{"torn')
    with pytest.raises(UserError, match="evaluate again"):
        build.from_workdir(tmp_path, {}, {})
    (tmp_path / "results.jsonl").write_text(json.dumps(TEACHER) + "\n")
    parse(build.from_workdir(tmp_path, {}, {}).read_text(encoding="utf-8"))


def test_strips_put_noises_side_by_side():
    g = grid()
    strips = column_strips(g.images, 2, 1)
    assert strips.shape == (3, 2 * 9 - 1, 2 * 9 - 1, 2)
    np.testing.assert_array_equal(strips[1, 9:, :8, 0], g.images[2, 1, :, :, 0])
    np.testing.assert_array_equal(strips[1, :8, 9:, 0], g.images[1, 1, :, :, 0])
    assert (strips[:, 8, :, 1] == 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_png(channels):
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 8, 8, channels), np.uint8)
    plain = Image.open(io.BytesIO(grid_png(images, 3)))
    headed = Image.open(io.BytesIO(grid_png(images, 3, ["Teacher\n49 steps", "One step"], ["0", "1"], 2)))
    assert plain.size[1] == 35 * 3 + 8
    assert headed.size[1] == 17 * 3 + 48
    first = np.asarray(plain)[4:28:3, 4:28:3]
    np.testing.assert_array_equal(first[..., :channels], images[0, 0])


def test_grids_check_what_they_get():
    with pytest.raises(ValueError, match="uint8"):
        Grid(np.zeros((2, 1, 8, 8, 1)), ["a"])
    with pytest.raises(ValueError, match="headings"):
        Grid(np.zeros((2, 1, 8, 8, 1), np.uint8), ["a", "b"])


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("values", [(1.0, 49.0), (3.0, 3.0), (0.51, 6.64), (1e-5, 1e6), (9.9, 10.1)])
def test_axes_have_ticks_inside(values, log):
    axis = svg.axis(values, 10, 110, log)
    assert 2 <= len(axis.ticks) <= 14
    assert all(9.9 <= axis.place(tick) <= 110.1 for tick in axis.ticks)
    assert all(10 <= axis.place(value) <= 110 for value in values)


def test_captions_have_a_page_of_two_splits(tmp_path):
    workdir = finished(tmp_path / "run")
    rows = [row | {"split": split, "caption_found": 0.5} for split in ("seen", "held out") for row in RESULTS[:3]]
    (workdir / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    images = np.zeros((4, 8, 8, 3), np.uint8)
    grids = {picture_key(row): images for row in rows}
    grids |= {f"names|{split}": np.array(["red fox", "a <fox>", "c", "d"]) for split in ("seen", "held out")}
    np.savez(workdir / "grids.npz", **grids)
    page = build.from_workdir(workdir, {"data": {"name": "emoji", "classes": 384}}, {}).read_text()
    assert "Captions seen" in page
    assert "Captions held out" in page
    assert "a &lt;fox&gt;" in page
    assert "CC BY-SA 4.0" in page
    assert "caption found" in page
    assert "CC BY-SA 4.0" in (workdir / "grid.png.license").read_text()
    grid = build._grid(workdir / "grids.npz", rows[:3], range(384))
    assert grid.columns == ["Real", "Teacher\n49 steps", "One step\nS0"]
    assert list(grid.rows) == ["red fox", "a <fox>", "c", "d"]


EVALUATED = {"data": {"name": "mnist", "classes": 2}, "family": "raster", "evaluate": {"batch": 500}}


def ancestors(page, wanted):
    """Of every tag `wanted`: the classes and names of what it stands in."""
    found, path = [], []

    class Walk(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag in Checker.void:
                return
            if tag == wanted:
                found.append(list(path))
            path.append({tag, *(dict(attrs).get("class") or "").split()})

        def handle_endtag(self, tag):
            path.pop()

    Walk().feed(page)
    return found


def test_nothing_is_wider_than_a_narrow_window(tmp_path):
    """What keeps a page of 420 px whole: tables scroll in a box of their own, facts wrap, nothing has a least width."""
    page = build.from_workdir(
        finished(tmp_path / "run"), EVALUATED, {"train": {"done": True, "seconds": 9.0, "matmul_gflop": 1}}
    )
    page = page.read_text()
    tables = ancestors(page, "table")
    assert len(tables) == 3
    assert all("scroll" in path[-1] for path in tables)
    assert all("grid" in set().union(*path) for path in ancestors(page, "img"))
    facts = ancestors(page, "dd")
    assert any("facts" in path[-2] for path in facts)
    style = style_sheet()
    assert all(f".{box} {{ overflow-x: auto" in style for box in ("scroll",))
    assert re.search(r"\.grid \{[^}]*overflow-x: auto", style)
    assert re.search(r"dl\.facts > div \{[^}]*flex-wrap: wrap", style)
    assert re.search(r"main \{[^}]*overflow-wrap: anywhere", style)
    widths = re.findall(r"(?<!td\.wrap \{ white-space: normal; )min-width: (\d+)px", style)
    assert max(map(int, widths)) < 420 - 2 * 24
    assert not re.search(r"minmax\(\d+px", style)  # a column of a grid may be as narrow as the page


def test_every_speed_names_its_batch(tmp_path):
    page = build.from_workdir(finished(tmp_path / "run"), EVALUATED, {}).read_text()
    text = re.sub(r"\s+", " ", "".join(parse(page).text))
    assert "6.0\N{MULTIPLICATION SIGN} faster (3 to 0.5 ms a picture, 500 at once)." in text
    assert "At batch 1: 9 to 3 ms a picture, 3.0\N{MULTIPLICATION SIGN}." in text
    assert "64 at once: 3 to 0.5 ms a picture, 6.0\N{MULTIPLICATION SIGN}." in text
    for told in ("500 at once; shorter is better", "ms / picture, 500 at once", "ms a picture, 500 at once"):
        assert told in text
    assert "<h3>At batch 1</h3>" in page
    assert "<h3>64 at once</h3>" in page
    assert "<th>batch" not in page
    alone = build._timed([ONE | {"n": 250}, REAL], EVALUATED)
    assert [row.get("batch") for row in alone] == [250, None]


def test_words_are_a_readers(tmp_path):
    page = build.from_workdir(finished(tmp_path / "run"), EVALUATED, {}).read_text()
    shown = re.sub(r"<pre>.*?</pre>|<style>.*?</style>", "", page, flags=re.S)
    for insider in ("stream_gbs", "share of", "memory gb", "reference machine", "judge", "0.004"):
        assert insider not in shown.split("<h2>Speed</h2>")[1].split("<dl")[0]
    for told in ("24.7 GB/s", "4.35 MB", "17.8 GB", "12%"):
        assert told in shown
    words = shown.split('id="words"')[1].split("</dl>")[0]
    for word in (
        "feature classifier",
        "token",
        "noise",
        "certified",
        "sweeps",
        "NLL",
        "agreement",
        "onestep*",
        "J*",
        "T0:49",
    ):
        assert f"<dt>{word}</dt>" in words
    assert "not through Inception" in words
    assert "skip-8" not in words  # only what the page uses
    assert words.count("<dt>") == len(set(re.findall("<dt>(.*?)</dt>", words)))


@pytest.mark.parametrize(("gigabytes", "told"), [(0.00435, "4.35 MB"), (0.9996, "1000 MB"), (2.345, "2.35 GB")])
def test_memory_has_a_unit_that_fits(gigabytes, told):
    assert machine.memory(gigabytes) == told


def test_words_are_those_of_the_runs_own_plans():
    rows = [TEACHER, TWO, REFINED | {"plan": "S0 T4:5 S5 J2"}, REFINED, BASELINE | {"generator": "skip-3"}]
    told = words.section(rows)
    for word in ("<dt>S0, S16, S5</dt>", "step 0 or 16 or 5 on", "<dt>T0:49, T4:5</dt>", "steps 0 to 48, or 4 alone,"):
        assert word in told
    for word in ("<dt>J2, J*</dt>", "2 times, or until nothing changes", "<dt>skip-3</dt>", "its last 3 steps"):
        assert word in told
    assert "T0:16" not in told
    assert build._heading(rows[2]).startswith("Refined 2x\n")
    assert build._heading(REFINED).startswith("Certified\n")


def test_distances_of_few_pictures_say_so():
    counted = [row | {"held_out": 15, "feature_dim": 64} for row in RESULTS]
    page = render(counted, [], {}, {}, {})
    assert "15 held-out pictures and 2000 drawn ones, where 64 features want 640" in page
    assert "feature_dim" not in page
    assert "uncertain" not in render([row | {"held_out": 640} for row in counted], [], {}, {}, {})
