"""python -m scripts.card [--out runs/card] [--models llamagen_l var_d16] [--batch 64]

What an accelerator does with full-size models, in one command: `--stage=speed`, from the command to the first picture
with an empty and with a full compile cache, teacher and one step alone and 64 at once, a training step with LPIPS. Made
weights. Each part is a process of its own under its own time limit: what fails says why and costs nothing else. The
same command goes on where it was. OUT/card.json has every figure, with card, driver and versions; OUT/card.md is the
table of docs/performance.md. On a CPU, in minutes: --models digits_llamagen digits_var --batch 4
"""

import argparse
import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dd_jax import configs, factory
from dd_jax.stages.parts import load_params
from dd_jax.system import files, runtime, weights
from dd_jax.system.errors import UserError
from dd_jax.system.progress import LINE_EVERY, duration

PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cudnn-cu12", "libtpu", "flax")
ASKED = "name,driver_version,memory.total,power.limit,clocks.max.sm"  # of nvidia-smi
CARDS = 8  # of which hours of a training are told
MADE = ("tokenizer", "student")
COLD = "first picture, empty cache"


@dataclasses.dataclass(frozen=True)
class Part:
    """One process: flags of `dd_jax.main`, or weights that are made, and how many seconds it may take."""

    model: str
    name: str
    limit: int
    words: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.model}: {self.name}"

    def folder(self, out: Path) -> Path:
        return out / self.model / self.name.replace(", ", "_").replace(" ", "_")

    def command(self, out: Path) -> list[str]:
        """What is run."""
        if not self.words:
            made = f"from dd_jax.scripts import card; card.make({self.model!r}, {str(self.folder(out))!r})"
            return [sys.executable, "-c", made]
        named = [f"--config={self.model}", f"--workdir={self.folder(out)}"]
        given = [word.replace("WEIGHTS", str(out / self.model / "weights")) for word in self.words]
        return [sys.executable, "-m", "dd_jax.main", *named, *given]


def parts(model: str, batch: int) -> list[Part]:
    """All that is asked of a model, in order."""
    speed = ("--stage=speed", "--config.weights.random=true")
    half = (*speed, "--config.dtype.student=bfloat16", "--config.speed.plans=('decode','S0')")
    alone = (*half, "--config.speed.training=false")
    draw: tuple[str, ...] = ("--stage=sample", "--labels=7", "--config.sample.few=1", "--config.sample.plans=('S0',)")
    draw = (*draw, *(f"--config.weights.{part}=WEIGHTS/{part}" for part in MADE))
    step = ("--config.speed.batches=()", "--config.speed.training=true", f"--config.train.batch={batch}")
    return [
        Part(model, "weights", 300),
        Part(model, COLD, 240, draw),
        Part(model, "first picture, full cache", 240, draw),
        Part(model, "speed", 240, speed),
        Part(model, "batch 1", 240, (*alone, "--config.speed.batches=(1,)")),
        Part(model, f"batch {batch}", 300, (*alone, f"--config.speed.batches=({batch},)")),
        Part(model, f"training, batch {batch}", 600, (*half, *step)),
    ]


def make(model: str, folder: str) -> None:
    """Tokenizer and student of a config, drawn at random, as folders of weights."""
    runtime.setup()
    config = importlib.import_module(f"{configs.__name__}.{model}").get_config()
    params = load_params(factory.build(config), config, Path(folder), MADE, random=MADE)
    for part in MADE:
        about = {"id": f"{model}/{part}", "part": part, "config": factory.settled(config).to_dict()}
        weights.save(Path(folder) / part, params[part], about)


def measure(part: Part, out: Path, told: str) -> dict[str, Any]:
    """Run it -> seconds of the whole process, what its speed.json has, and why it failed, if it did."""
    folder, log = part.folder(out), part.folder(out).with_suffix(".log")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    kept = Part(part.model, COLD, 0).folder(out) if part.name.startswith("first") else folder
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(kept.absolute().with_suffix(".cache"))}
    if part.name != "first picture, full cache":
        shutil.rmtree(env["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    begin, why = time.monotonic(), ""
    with open(log, "wb") as file:
        process = subprocess.Popen(part.command(out), stdout=file, stderr=subprocess.STDOUT, env=env)
        try:
            while waiting(process, part.limit - (time.monotonic() - begin)) and not why:
                spent = time.monotonic() - begin
                why = f"not done within {part.limit} s" if spent >= part.limit else ""
                print(f"card: {told}, {duration(spent)} so far: {last(log)[:100]}", flush=True)
        finally:
            process.kill()
            status = process.wait()
    found = {"seconds": round(time.monotonic() - begin, 1), "limit": part.limit, "words": list(part.words)}
    why = why or (f"status {status}: {last(log)}" if status else "")
    return found | {"why": why} | files.read_json(folder / "speed.json", default={})


def waiting(process: subprocess.Popen, left: float) -> bool:
    """Does it still run when its time is over, or a line is due?"""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, min(left, LINE_EVERY)))
    return process.poll() is None


def last(log: Path) -> str:
    """The last line of a log."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def about() -> dict[str, Any]:
    """Card and driver, where NVIDIA's tool tells them, and versions; nothing here touches the device."""
    try:
        asked = ["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader"]
        cards = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        cards = []
    there = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    versions = {"python": platform.python_version()} | {name: there[name] for name in PACKAGES if name in there}
    told = [dict(zip(ASKED.split(","), card.split(", "), strict=True)) for card in cards]
    return {"cards": told, "versions": versions, "xla_flags": os.environ.get("XLA_FLAGS", "")}


def table(found: Mapping[str, Any], models: Sequence[str], batch: int, out: Path) -> str:
    """The figures in Markdown."""
    done = found["parts"]
    columns = [column(done, model, batch, out) for model in models]
    lines = [f"| {name} | {' | '.join(column[name] for column in columns)} |" for name in columns[0]]
    machine: Mapping[str, Any] = next((part["machine"] for part in done.values() if "machine" in part), {})
    card = ", ".join(f"{card['name']}, driver {card['driver_version']}" for card in found["cards"])
    told = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    failed = [f"- {key}: {part['why']}" for key, part in done.items() if part["why"]]
    head = [f"**{card or machine.get('device', 'no device')}** ({told}; made weights; `python -m scripts.card`)", ""]
    return "\n".join([*head, f"| | {' | '.join(models)} |", f"|---|{'---|' * len(models)}", *lines, "", *failed, ""])


def column(done: Mapping[str, Any], model: str, batch: int, out: Path) -> dict[str, str]:
    """{line of the table: what this model has there}; a dash for what is not known."""
    seen = {name: done.get(f"{model}: {name}", {}) for name in (part.name for part in parts(model, batch))}
    cells = {
        name: f"{part['seconds']:.1f} s" if part and not part["why"] else "-"
        for name, part in seen.items()
        if name.startswith(("first", "speed"))
    }
    for size in (1, batch):
        rows = seen[f"batch {size}"].get("plans", [])
        kinds = {"teacher": "T", "one step": "S", "decoder alone": "d"}
        for told, first in kinds.items():
            row = next((row for row in rows if row["plan"].startswith(first)), None)
            cells[f"{told}, {size} at once"] = (
                f"{figure(row['ms_per_image'])} ms each, {figure(row['images_per_s'])} a second, "
                f"{row['share_of_matmul']:.0%} of compute, {row['share_of_stream']:.0%} of bandwidth"
                if row
                else "-"
            )
    cells[f"training step, batch {batch}"] = training(seen, batch, Part(model, "speed", 0).folder(out) / "config.json")
    return cells


def figure(x: float) -> str:
    """Three digits."""
    return f"{x:.3g}" if x < 1000 else f"{x:,.0f}"


def training(seen: Mapping[str, Any], batch: int, config: Path) -> str:
    """A step's time, its share of the peak, and the hours of the config's whole training on `CARDS` such cards."""
    step = seen[f"training, batch {batch}"].get("training")
    recipe = files.read_json(config, default={}).get("train")
    if not step or not recipe:
        return "-"
    hours = recipe["steps"] * recipe["batch"] / batch * step["step_ms"] / 3.6e6 / CARDS
    share = f"MFU {step['mfu']:.1%}" if step["mfu"] else f"{step['share_of_matmul']:.0%} of compute"
    told = f"{figure(step['step_ms'])} ms, {step['step_gflop'] / 1e3:.3g} TFLOP, {share}"
    return f"{told}; all of it {hours:.3g} h on {CARDS}"


def main() -> None:
    parser = argparse.ArgumentParser("python -m scripts.card", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=Path("runs/card"))
    parser.add_argument("--models", nargs="+", default=["llamagen_l", "var_d16"], help="names of configs")
    parser.add_argument("--batch", type=int, default=64, help="pictures at once, and of a training step (default: 64)")
    args = parser.parse_args()
    try:
        files.spelled_in(args)
        check(args.models, args.batch, args.out)
        run(args.out, args.models, args.batch)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: run the same command to go on")


def check(models: Sequence[str], batch: int, out: Path) -> None:
    """UserError for what would be found out late."""
    if batch < 2:
        raise UserError(f"--batch={batch}: a number of pictures above 1")
    for model in models:
        if model not in configs.names():
            raise UserError(f"no {model}: {configs.along()}")
    files.check_folder(out)


def run(out: Path, models: Sequence[str], batch: int) -> None:
    """All parts that are not done -> card.json and card.md, written after each."""
    kept = files.read_json(out / "card.json", f"delete {out}", default={})
    found = about() | {"parts": kept.get("parts", {})}
    if kept and kept != found:
        raise UserError(f"{out / 'card.json'} is of another card, or other versions: name another folder, --out=DIR")
    planned = [part for model in models for part in parts(model, batch)]
    for i, part in enumerate(planned):
        done = found["parts"].get(part.key)
        if done is None or done["why"] or done["words"] != list(part.words):
            left = sum(later.limit for later in planned[i:])
            told = f"{i + 1}/{len(planned)} {part.key}, at most {duration(left)} left"
            found["parts"][part.key] = done = measure(part, out, told)
            print(f"card: {part.key}: {done['why'] or duration(done['seconds'])}", flush=True)
            files.replace(out / "card.json", json.dumps(found, indent=1).encode())
            files.replace(out / "card.md", table(found, models, batch, out).encode())
    print(f"{table(found, models, batch, out)}\nwrote {out / 'card.json'} and {out / 'card.md'}")


if __name__ == "__main__":
    main()
