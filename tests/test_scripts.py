"""Tools say in one line what is wrong with their words, and what they are for; one process runs them all."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dd_jax.scripts import tokenizers
from dd_jax.system.errors import UserError

ROOT = Path(__file__).parents[1]
TOOLS = (
    *("address", "aot", "card", "clicks", "compare", "fake_release", "figures"),
    *("flow_overhead", "loader", "memory", "merge_pairs", "neighbours", "openmoji", "repaints", "serving"),
    *("study", "tokenizers"),
)
DIGITS = "--config=digits_llamagen"
# Words of a command, and what its one line says (argparse shows the usage besides).
WRONG = {
    **{f"{tool}": "--config=NAME is missing: name a file" for tool in ("aot", "memory", "flow_overhead")},
    **{
        f"{tool}": "arguments are required"
        for tool in ("clicks", "compare", "fake_release", "figures", "merge_pairs", "openmoji", "repaints", "study")
    },
    "tokenizers": "arguments are required",
    **dict.fromkeys(("publish_pairs", "serving"), "arguments are required"),
    **{f"{tool} --nope=1 a b": "nope|are required|invalid choice" for tool in (*TOOLS, "publish_pairs")},
    **{f"{tool} --config=nope": "no nope: name a file" for tool in ("aot", "memory", "flow_overhead")},
    **{f"{tool} --config={ROOT}/README.md": "cannot be read" for tool in ("aot", "flow_overhead")},
    f"aot {DIGITS} --config.train.stepz=1": 'Did you mean "steps"',
    f"memory {DIGITS} --config.train.steps=x": "invalid literal",
    f"flow_overhead {DIGITS} --config.train.steps=0": "config.train.steps=0: it must be",
    f"aot {DIGITS} --topology=cpu --config.family=gan": "config.family",
    f"flow_overhead {DIGITS} --config.model.width=7": "must be a multiple of",
    f"aot {DIGITS} more": "unknown argument 'more'",
    f"aot {DIGITS} --mesh=x": "two numbers, as 16,1",
    f"aot {DIGITS} --mesh=1": "two numbers, as 16,1",
    f"aot {DIGITS} --topology=cpu --mesh=3,3": "mesh",
    f"aot {DIGITS} --what=": "choose from train,pairs,sample,text",
    f"aot {DIGITS} --what=_rows": "choose from train,pairs,sample,text",
    f"aot {DIGITS} --topology=cpu --mesh=1,1 --what=text": "this config reads no captions",
    f"aot {DIGITS} --batch=-1": "--batch=-1",
    f"aot {DIGITS} --effort=7": "--effort=7",
    f"aot {DIGITS} --topology=v9:1x1": "--topology=v9:1x1 needs a compiler|no topology v9:1x1",
    f"aot {DIGITS} --topology=cpu --json=gs://x/y": "is a URL",
    f"aot {DIGITS} --topology=cpu --json=/dev/null/x": "cannot write into /dev/null",
    f"aot {DIGITS} --topology=cpu --dump=/dev/null/x": "cannot write into /dev/null",
    f"memory {DIGITS} --batches=1": "three different whole numbers",
    f"memory {DIGITS} --batches=a,b,c": "three different whole numbers",
    f"memory {DIGITS} --depths=0,1,2": "three different whole numbers",
    f"memory {DIGITS} --depths=4,4,4": "three different whole numbers",
    f"flow_overhead {DIGITS} --repeats=0": "--repeats=0",
    f"flow_overhead {DIGITS} --batch=x": "--batch=x",
    f"flow_overhead {DIGITS} --config.weights.teacher=/no/such": "/no/such",
    "card --batch=1": "--batch=1: a number of pictures above 1",
    "card --models nope": "no nope: name a file",
    "card --out gs://x": "is a URL",
    "card --out /dev/null/x": "cannot write into /dev/null",
    "clicks RUN --clicks=-1": "--clicks=-1: a number of clicks",
    "clicks gs://x": "is a URL",
    "compare /no/such": "there is no /no/such/results.jsonl: name work directories",
    "compare gs://x": "is a URL",
    "compare EMPTY": "lacks what is compared",
    "figures /no/such /no/such": "there is no /no/such/grids.npz: name two finished runs",
    "figures /no/such /no/such --out /dev/null/x": "cannot write into /dev/null",
    "fake_release nope --out x": "nope",
    "fake_release vq16 --out x y": "--out takes as many names",
    "fake_release vq16 --out /dev/null/x.pt": "cannot write into /dev/null",
    "fake_release flan_t5_xl --tiny --shards 0 --out x": "--shards=0",
    "loader": "name pictures (folder:PATH, tar:PATTERN, parquet:PATTERN, array_record:PATTERN, npz:FILE, tfds:NAME)",
    "loader folder:x --made=3": "name pictures (folder:PATH",
    "loader mnist": "mnist is none of folder:PATH, tar:PATTERN",
    "loader folder:/no/such": "there is no folder /no/such",
    "loader tar:gs://x/y.tar": "is a URL",
    "loader --made=1": "--made from 2 on",
    "loader --made=9 --side=0": "--side, --batch and --seconds are above 0",
    "loader --made=9 --crop=left": "invalid choice: 'left'",
    "openmoji OUT --side=0": "--side=0: px of a side",
    "openmoji gs://x": "is a URL",
    "openmoji /dev/null/x": "cannot write into /dev/null",
    "neighbours --reference 0": "from 1 on",
    "neighbours --width -1": "from 1 on",
    "neighbours --distances float99": "invalid choice: 'float99'",
    "neighbours --reference 2 --samples 2 --width 4": "2",
    "merge_pairs OUT": "arguments are required",
    "merge_pairs OUT /no/such": "no pair set in /no/such",
    "publish_pairs to /no/such OUT": "no pair set in /no/such|tensorflow",
    "study nope RUN --out OUT": "nope is no module with METHODS",
    "study .nope RUN --out OUT": ".nope is no module with METHODS",
    "study dd_jax.configs.studies RUN --out OUT": "RUN has no trained student",
    "study dd_jax.configs.studies gs://b/x --out OUT": "is a URL",
    "study dd_jax.configs.studies RUN --out /dev/null/x": "cannot write into /dev/null",
    "study dd_jax.configs.studies RUN --out OUT --only=nope": "no method 'nope': it has",
    "study dd_jax.configs.studies RUN --out OUT --seconds=0": "--seconds=0: a number above 0",
    "repaints EMPTY --count=0": "--count=0: a number of pictures",
    "repaints gs://x": "is a URL",
    "repaints EMPTY": "EMPTY has no config.json",
    "tokenizers EMPTY --out OUT": "EMPTY has no config.json",
    "tokenizers EMPTY --out OUT --shown=0": "--shown=0: a number of pictures",
    "tokenizers EMPTY --out /dev/null/x": "cannot write into /dev/null",
    "tokenizers gs://x --out OUT": "is a URL",
    "serving EMPTY": "EMPTY has no config.json",
    "serving EMPTY --requests=0": "--requests=0: give a whole number",
    "serving EMPTY --most=-1": "--most=-1: give a whole number",
    "publish_pairs over a b": "invalid choice: 'over'",
}
HELP = {f"{tool} {word}": "" for tool in (*TOOLS, "publish_pairs") for word in ("--help", "-h")}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """{command: how it ended}."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "EMPTY").mkdir()
    (folder / "EMPTY/results.jsonl").write_text("{}\n")
    lines = [*WRONG, *HELP]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    words = json.dumps([shlex.split(line) for line in lines])
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("run_scripts.py")],
        input=words,
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert [path.name for path in folder.iterdir()] == ["EMPTY"]
    return dict(zip(lines, json.loads(run.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize(("line", "told"), WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_one_line(said, line, told):
    found = said[line]
    assert not found["trace"], found["trace"]
    assert found["rc"] in (1, 2), found
    *usage, last = [row for row in found["err"].splitlines() if row.strip()]
    assert "error: " in last
    assert any(word in last for word in told.split("|")), last
    assert not usage or usage[0].startswith("usage: "), usage


@pytest.mark.parametrize("line", HELP)
def test_help(said, line):
    found = said[line]
    assert (found["rc"], found["trace"], found["err"]) == (0, "", "")
    assert f"python -m scripts.{line.split()[0]}" in found["out"]


def test_tokenizers_side_by_side(tiny_run, tmp_path):
    """Their table has the figures of the runs' own scores; other pictures are refused."""
    runs = [shutil.copytree(tiny_run[0], tmp_path / name) for name in ("one", "two")]
    tokenizers.measure(runs, tmp_path, None, 3)
    scores = json.loads((runs[0] / "tokenizer/scores.json").read_text())
    head, _, *lines = [line.strip("| \n").split(" | ") for line in (tmp_path / "tokenizers.md").open()]
    assert head == [f"held out, {scores['held_out']:,} pictures", "steps", "PSNR", "distance", "edges"]
    assert [line[0] for line in lines] == [*map(str, runs)]
    for _, _, psnr, distance, edge in lines:
        assert [float(psnr), float(distance)] == pytest.approx([scores["psnr"], scores["fd"]], rel=1e-3)
        assert 0 < float(edge) < 1  # blurred
    with Image.open(tmp_path / "tokenizers.png") as img:
        assert img.width > img.height
    config = json.loads((runs[1] / "config.json").read_text())
    config["data"]["background"] = "black"
    (runs[1] / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"two learnt from other pictures than .*one \(data.background=black, there None"
    ):
        tokenizers.opened(runs)


def test_edges_are_differences_of_neighbours():
    img = np.zeros((1, 2, 2, 1), np.float32)
    img[0, 0, 0] = 1.0
    assert tokenizers.edges(img) == 0.5  # two of four pairs
