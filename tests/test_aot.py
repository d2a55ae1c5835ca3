"""Programs compiled for devices that are not there; here for eight that this CPU stands for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = ("model.width=256", "model.depth=2", "model.heads=2", "tokenizer.stack.ch=8", "tokenizer.stack.z_channels=8")
TAUGHT = tuple(f"pretrain.teacher.{switch}" for switch in ("remat=true", "scan=true", "accumulate=2"))


def compiled(folder, config, what, *settings, devices=8, batch=16):
    """{program: its row} of scripts.aot."""
    flag = f"--xla_force_host_platform_device_count={devices} --xla_cpu_parallel_codegen_split_count=1"
    said = folder / "said.json"
    words = [f"--config={ROOT}/configs/{config}.py", f"--mesh={devices},1", f"--what={what}", f"--batch={batch}"]
    words += [setting if setting[:2] == "--" else f"--config.{setting}" for setting in (*SMALL, *settings)]
    run = subprocess.run(
        [sys.executable, "-m", "scripts.aot", "--topology=cpu", "--effort=-1", f"--json={said}", *words],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flag},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return {row["program"]: row for row in json.loads(said.read_text())["programs"]}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llamagen", "var"])
def test_a_teacher_is_cut_over_devices_and_costs_what_it_does_on_one(family, tmp_path):
    alone = compiled(tmp_path, f"digits_{family}", "teacher", devices=1)["teacher"]
    eight = compiled(tmp_path, f"digits_{family}", "teacher", *TAUGHT)["teacher"]
    assert eight["tflop"] == alone["tflop"] > 0  # neither pieces nor what is computed again count
    assert 0 < eight["argument_gib"] < alone["argument_gib"] / 4
    assert eight["collectives"]
    assert not alone["collectives"]


def test_a_tokenizer_s_products_are_told_without_compiling(tmp_path):
    row = compiled(tmp_path, "digits_var", "tokenizer", "--compile=false", devices=1)["tokenizer"]
    assert row["tflop"] > 0
    assert "compile_s" not in row


WORK = """
import json, sys
from dd_jax.scripts import aot
from dd_jax.configs import digits_llamagen
from dd_jax.system.sharding import make_mesh

for steps, start in json.loads(sys.argv[1]):
    config = digits_llamagen.get_config()
    config.model.depth = 1
    config.student.update({"head": "velocity", "split": None})
    config.train.update({"objective": "csd", "timesteps": (0,), "steps": steps, "embedding": 0.0, "distance": "none"})
    config.train.csd.update({"start_steps": tuple(start), "updates": (2, 2)})
    programs = aot.Programs(config, make_mesh((1, 1)))
    print(programs.work("train", 16)["tflop"] * steps)
"""


def test_steps_that_take_turns_cost_their_mean():
    asked = (12, (2, 4)), (15, (2, 4)), (18, (2, 4)), (13, (2, 5)), (14, (2, 6))  # the rest: two scores, a student
    words = [sys.executable, "-c", WORK, json.dumps(asked)]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    twelve, fifteen, eighteen, one, two = map(float, run.stdout.split()[-5:])
    assert fifteen - twelve == pytest.approx(eighteen - fifteen, rel=1e-4)
    assert one - twelve == pytest.approx(two - one, rel=1e-4)
    assert fifteen - twelve > 2 * (one - twelve) > 0  # the student's update is dearer than one of the start


@pytest.mark.slow
@pytest.mark.parametrize("config", ["llamagen_l_csd", "llamagen_l_flow"])
def test_what_crosses_devices_does_not_grow_with_the_batch(config, tmp_path):
    """Weights and their gradients cross, not activations: neither of guidance's two rows nor of draws of x_t."""
    more = ("tokenizer.stack.ch=32", "tokenizer.vocab=512", "filter.top_k=0")
    more += ("train.csd.start_batch=0",) * config.endswith("csd")
    small, large = (compiled(tmp_path, config, "train", *more, batch=batch)["train"] for batch in (16, 64))
    crossing = [sum(given for _, given in row["collectives"].values()) for row in (small, large)]
    assert crossing[1] < 1.2 * crossing[0]
    assert large["temp_gib"] > 2 * small["temp_gib"]
