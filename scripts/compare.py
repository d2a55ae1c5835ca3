"""Ratios of finished runs, side by side: python -m scripts.compare runs/A runs/B ...

One column a work directory: what one step and refinement won over onestep*, and what is left to the teacher.
"""

import argparse
import json
import sys
from pathlib import Path

from dd_jax.report.rows import drawn
from dd_jax.system import files
from dd_jax.system.errors import UserError


def ratios(workdir: Path) -> dict[str, float | str]:
    """The figures of one run, from its results.jsonl, speed.json and stages.json. UserError where one is missing."""
    try:
        return _ratios(workdir)
    except FileNotFoundError as error:
        raise UserError(f"there is no {error.filename}: name work directories of finished runs") from error
    except (LookupError, StopIteration, TypeError, ValueError) as error:
        said = str(error) or type(error).__name__
        raise UserError(f"{workdir} lacks what is compared ({said}): run all stages, with onestep* and S0") from error


def _ratios(workdir: Path) -> dict[str, float | str]:
    rows = drawn([json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()])
    held = [row for row in rows if row.get("split") not in (None, rows[0].get("split"))]
    rows = [row for row in rows if row not in held]
    by_plan = {row["plan"]: row for row in rows if row["generator"] == "student"}
    teacher = next(row for row in rows if row["generator"] == "teacher")
    base = next(row for row in rows if row["generator"] == "onestep*")
    one = by_plan["S0"]
    gap = base["nll"] - teacher["nll"]
    out: dict[str, float | str] = {
        "FD teacher / one step / onestep*": f"{teacher['fd']:.1f} / {one['fd']:.1f} / {base['fd']:.1f}",
        "FD one step / onestep*": one["fd"] / base["fd"],
        "FD to teacher, same ratio": one["fd_teacher"] / base["fd_teacher"],
        "FD to teacher of the teacher": teacher["fd_teacher"],
        "class accuracy of the teacher": teacher["class_accuracy"],
        "class accuracy, one step - teacher": one["class_accuracy"] - teacher["class_accuracy"],
        "class accuracy, one step - onestep*": one["class_accuracy"] - base["class_accuracy"],
        "agreement of one step": one["agreement"],
        "recall teacher / one step": f"{teacher['recall']:.3f} / {one['recall']:.3f}",
        "NLL gap closed by one step": (base["nll"] - one["nll"]) / gap,
    }
    if "caption_found" in one:
        unseen: dict = next((row for row in held if row["plan"] == "S0"), {})
        out |= {
            "PSNR of reconstructions, dB": next(row["psnr"] for row in rows if "psnr" in row),
            "caption found by one step": one["caption_found"],
            "caption found, one step / teacher": one["caption_found"] / teacher["caption_found"],
            "caption found, one step - onestep*": one["caption_found"] - base["caption_found"],
            "caption found by one step, held out": unseen.get("caption_found", "-"),
        }
    for plan, row in by_plan.items():
        if plan != "S0":
            out[f"NLL {plan} - NLL S0"] = row["nll"] - one["nll"]
            if row["n"] == one["n"]:  # fewer pictures look farther from any others
                out[f"FD to teacher {plan} / S0"] = row["fd_teacher"] / one["fd_teacher"]
        if "identical" in row and row["plan"].endswith("J*"):
            out[f"{plan}: images identical to the teacher's"] = row["identical"]
            out[f"{plan}: sweeps / steps"] = row["sweeps"] / teacher["steps"]
    return out | _times(workdir)


def _times(workdir: Path) -> dict[str, float | str]:
    """Wall time, also in units of a 170 GFLOP/s machine, and the training step's share of the matmul rate."""
    stages = json.loads((workdir / "stages.json").read_text())
    out: dict[str, float | str] = {"minutes": sum(entry["seconds"] for entry in stages.values()) / 60}
    work = sum(entry["matmul_gflop"] for entry in stages.values())
    out["minutes x matmul rate / 170 GFLOP/s"] = work / 170 / 60
    if (workdir / "speed.json").exists():
        training = json.loads((workdir / "speed.json").read_text())["training"]
        out["training step, share of matmul rate"] = training["share_of_matmul"] if training else "-"
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR")
    args = parser.parse_args()
    try:
        files.spelled_in(args)
        columns = [ratios(workdir) for workdir in args.workdirs]
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    for name in columns[0]:
        cells = [column.get(name, "-") for column in columns]
        print(f"{name:<44}", *(cell if isinstance(cell, str) else f"{cell:8.3f}" for cell in cells), sep="  ")


if __name__ == "__main__":
    main()
