"""scripts.card: what fails costs nothing else, what is done is not run again, and both are told."""

import json
import sys
from pathlib import Path

import pytest

from dd_jax.scripts import card
from dd_jax.system.errors import UserError

ROW = {"images_per_s": 50.0, "share_of_matmul": 0.5, "share_of_stream": 0.25}
SPEED = {
    "machine": {"device": "1 x card (gpu)"},
    "training": {"step_ms": 500.0, "step_gflop": 80000.0, "share_of_matmul": 0.5, "mfu": 0.4},
    "plans": [{"plan": plan, "ms_per_image": ms, **ROW} for plan, ms in (("T0:16", 9.0), ("decode", 1.0), ("S0", 2.0))],
}
CONFIG = {"train": {"steps": 7200, "batch": 8}}


def stands_in(part: card.Part, out: Path) -> list[str]:
    """A process in the place of a part's: it leaves what that leaves, and its name in a list."""
    leaves = f"""
import json, pathlib, sys, time
folder = pathlib.Path({str(part.folder(out))!r})
folder.mkdir(parents=True)
with open({str(out / "ran")!r}, "a") as file:
    file.write({part.key!r} + "\\n")
for name, held in (("speed", {SPEED!r}), ("config", {CONFIG!r})):
    (folder / f"{{name}}.json").write_text(json.dumps(held))
"""
    how = {"training, batch 4": "sys.exit('error: out of memory')", "batch 1": "time.sleep(60)"}
    broken = "" if (out / "mended").exists() else how.get(part.name, "")
    return [sys.executable, "-c", leaves + broken]


def test_parts_fail_alone_and_are_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(card.Part, "command", stands_in)
    monkeypatch.setattr(
        card, "parts", lambda model, batch, parts=card.parts: [short(part) for part in parts(model, batch)]
    )
    card.run(tmp_path, ["digits_var"], 4)
    found = json.loads((tmp_path / "card.json").read_text())
    failed = {key: part["why"] for key, part in found["parts"].items() if part["why"]}
    assert failed == {
        "digits_var: batch 1": "not done within 2 s",
        "digits_var: training, batch 4": "status 1: error: out of memory",
    }
    assert found["parts"]["digits_var: batch 1"]["plans"]  # what it had left
    assert "jax" in found["versions"]
    said = capsys.readouterr().out
    assert "5/7 digits_var: batch 1, at most 26 s left, 2.0 s so far" in said
    assert "digits_var: batch 1: not done within 2 s" in said

    (tmp_path / "mended").touch()
    card.run(tmp_path, ["digits_var"], 4)
    ran = (tmp_path / "ran").read_text().splitlines()
    assert len(ran) == 7 + 2
    assert ran[7:] == ["digits_var: batch 1", "digits_var: training, batch 4"]
    told = (tmp_path / "card.md").read_text()
    assert "| teacher, 1 at once | 9 ms each, 50 a second, 50% of compute, 25% of bandwidth |" in told
    assert "| training step, batch 4 | 500 ms, 80 TFLOP, MFU 40.0%; all of it 0.25 h on 8 |" in told
    assert "1 x card (gpu)" in told

    found["versions"]["jax"] = "0.1"
    (tmp_path / "card.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match="of another card, or other versions"):
        card.run(tmp_path, ["digits_var"], 4)


def short(part: card.Part) -> card.Part:
    return card.Part(part.model, part.name, 2 if part.name == "batch 1" else 12, part.words)


@pytest.mark.slow
def test_small_models_on_what_there_is(tmp_path):
    card.run(tmp_path, ["digits_llamagen", "digits_var"], 4)
    found = json.loads((tmp_path / "card.json").read_text())
    assert not any(part["why"] for part in found["parts"].values())
    assert " | - |" not in (tmp_path / "card.md").read_text()
