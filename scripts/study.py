"""python -m scripts.study STUDY RUN [RUN ...] --out=studies/x [--seconds=250] [--only=dd1,mixed]

Gives ways of training the same charged time and prints a table: each starts from the finished student of each RUN (one
run a seed), takes tokenizer, teacher and pairs from it, and is scored on the noises that the run's own plans are scored
on. STUDY is a module with `METHODS`, such as dd_jax.configs.studies: a name, and what its config changes. The next idea
is a line there.

A step is charged by its matrix products and the share of the machine's rate that it reaches, timed once in turns with
that rate, on a core of 85 GFLOP/s: a busy machine changes nothing. What is finished is not run again.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

import dd_jax
from dd_jax import factory
from dd_jax.stages import speed
from dd_jax.stages.parts import load_params
from dd_jax.system import files
from dd_jax.system.errors import UserError

CORE = 85e9  # FLOP/s of matrix products that a charged second has: README's machine has two such cores
SHOWN = ("fd_teacher", "recall", "precision", "nll", "class_accuracy", "spread", "agreement")


def config_of(run: Path, method: Mapping[str, Any], seconds: float = 0.0, step: float = 0.0) -> ConfigDict:
    """The run's own config, changed as a method says, with as many steps as the time pays for."""
    config = factory.frozen(files.read_json(run / "config.json"))
    with config.unlocked():
        config.update_from_flattened_dict({"baselines.onestep": False, "evaluate.check": "", "evaluate.plans": ("S0",)})
        config.weights.start = str(run / "weights" / "student")
        config.update_from_flattened_dict(dict(method))
        if step:
            config.train.steps = round(seconds / step)
            config.train.warmup = round(0.04 * config.train.steps)
    return config


def charge(run: Path, method: Mapping[str, Any]) -> dict[str, float]:
    """Charged seconds of a step of this method, and what they follow from."""
    config = config_of(run, {**method, "weights.start": None})
    system = factory.build(config)
    params = load_params(system, config, run, ("classifier", "lpips", "tokenizer", "text", "teacher"))
    params["student"] = system.student.init_from_teacher(dd_jax.system.rng.key(0), params["teacher"]["trunk"])
    took = speed.time_training(system, config, params)
    return {"seconds": took["step_gflop"] * 1e9 / took["share_of_matmul"] / CORE, **took}


def rows(run: Path, name: str, method: Mapping[str, Any], out: Path, seconds: float, step: float) -> list[dict]:
    """Train and score one method from one run -> its rows of results.jsonl."""
    config, folder = config_of(run, method, seconds, step), out / f"{run.name}-{name}"
    if not (folder / "results.jsonl").exists():
        for stage in ("train", "evaluate"):
            dd_jax.run(config, folder, stage, source=run)
    found = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    label = {"method": name, "run": run.name, "steps_trained": config.train.steps, "tau": config.sample.get("tau", 1.0)}
    return [{**label, **row} for row in found if row["generator"] == "student"]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Means over runs, with each run's distance behind them."""
    lines = [("method", "tau", "split", *SHOWN, "fd_teacher of each")]
    for key in dict.fromkeys((row["method"], row["tau"], row.get("split", "")) for row in found):
        same = [row for row in found if (row["method"], row["tau"], row.get("split", "")) == key]
        means = [f"{np.mean([_number(row.get(name)) for row in same]):.3f}" for name in SHOWN]
        lines.append((key[0], f"{key[1]:g}", key[2], *means, " ".join(f"{row['fd_teacher']:.2f}" for row in same)))
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(text.ljust(n) for text, n in zip(line, widths, strict=True)).rstrip() for line in lines)


def _number(score: float | None) -> float:
    return np.nan if score is None else score


def main(argv: Sequence[str] | None = None) -> None:
    """Every method on every run, the table after each."""
    parser = argparse.ArgumentParser("python -m scripts.study", description=__doc__.partition("\n\n")[2])
    parser.add_argument("study", help="a module with METHODS, e.g. dd_jax.configs.studies")
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs, one a seed")
    parser.add_argument("--out", type=Path, required=True, help="where runs and table.txt go")
    parser.add_argument("--seconds", type=float, default=250.0, help="charged time of each (default: 250)")
    parser.add_argument("--only", default="", help="names of methods, by commas")
    args = parser.parse_args(argv)
    if not args.seconds > 0:
        parser.error(f"--seconds={args.seconds:g}: a number above 0")
    try:
        files.spelled_in(args)
        files.check_folder(args.out)
        study(args)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")


def study(args: argparse.Namespace) -> None:
    """UserError for what is not there."""
    try:
        methods: dict[str, dict[str, Any]] = importlib.import_module(args.study).METHODS
    except (ImportError, AttributeError, TypeError, ValueError, SyntaxError) as error:
        raise UserError(f"{args.study} is no module with METHODS ({error})") from error
    names = [name for name in args.only.split(",") if name] or list(methods)
    for name in names:
        if name not in methods:
            raise UserError(f"{args.study} has no method {name!r}: it has {', '.join(methods)}")
    for run in args.runs:
        if not (run / "weights" / "student").exists():
            raise UserError(f"{run} has no trained student (weights/student): run it to the end first")
    charges = files.read_json(args.out / "charges.json", default={})
    found: list[dict] = []
    for name in names:
        if name not in charges:
            charges[name] = charge(args.runs[0], methods[name])
            files.replace(args.out / "charges.json", json.dumps(charges, indent=1).encode())
            print(f"{name}: a step is charged {charges[name]['seconds']:.3f} s", flush=True)
        for run in args.runs:
            found += rows(run, name, methods[name], args.out, args.seconds, charges[name]["seconds"])
        files.replace(args.out / "table.txt", table(found).encode())
        print(table(found), flush=True)


if __name__ == "__main__":
    main()
