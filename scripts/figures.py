"""python -m scripts.figures RASTER_RUN SCALES_RUN [--out docs/pictures]

The pictures of docs/, made again from two finished runs: `configs/digits_llamagen.py` and `configs/digits_var.py`.

    plans_raster.png, plans_scales.png   every plan on the same noises (grids.npz)
    plans.svg                            distance to the teacher against passes and against time (results.jsonl)
    agreement.svg                        how a student's agreement grows (student/curve.jsonl)
    flow.svg                             noise that flows to codes, in a plane; needs no run
"""

import argparse
import itertools
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method import flow
from dd_jax.report import picture, style, svg
from dd_jax.report import rows as table
from dd_jax.system import files, rng
from dd_jax.system.errors import UserError

GAP = 16
CODE_COLOURS = ("#2563eb", "#d2600f", "#0f8a5f", "#a8329e", "#59636e")  # apart for most colour-blind eyes too


def main() -> None:
    """Everything -> a folder."""
    parser = argparse.ArgumentParser("python -m scripts.figures", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("raster", type=Path, help="a finished run of configs/digits_llamagen.py")
    parser.add_argument("scales", type=Path, help="a finished run of configs/digits_var.py")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    args = parser.parse_args()
    try:
        files.spelled_in(args)
        files.check_folder(args.out)
        for name, content in drawn(args.raster, args.scales).items():
            files.replace(args.out / name, content)
            print(f"{args.out / name}: {len(content) / 1e3:.0f} kB")
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")


def drawn(raster: Path, scales: Path) -> dict[str, bytes]:
    """Every picture by its name. UserError for a folder that is no finished run."""
    try:
        return {
            "plans_raster.png": plans_png(raster),
            "plans_scales.png": plans_png(scales),
            "plans.svg": plans_svg(raster),
            "agreement.svg": agreement_svg((raster, scales)),
            "flow.svg": flow_svg(),
        }
    except FileNotFoundError as error:
        raise UserError(f"there is no {error.filename}: name two finished runs") from error


def rows(run: Path) -> list[dict]:
    """What `evaluate` found of each plan and baseline, row by row."""
    return table.drawn([json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()])


def plans_png(run: Path, noises: int = 20) -> bytes:
    """A row a plan, the same noises from left to right, classes 0 to 9 twice."""
    with np.load(run / "grids.npz") as grids:
        kept = [row for row in rows(run) if f"{row['generator']}|{row['plan']}" in grids.files]
        images = np.stack([grids[f"{row['generator']}|{row['plan']}"][:noises] for row in kept])
    names = [
        f"{plan_name(row)}: {row['steps']:.3g} pass{'es' if row['steps'] != 1 else ''}"
        + (f", {row['agreement']:.0%} of codes" if row["generator"] != "teacher" else "")
        for row in kept
    ]
    return picture.grid_png(images[:, :, None].reshape(-1, 1, *images.shape[2:]), 4, [""], names, noises)


def plan_name(row: dict) -> str:
    """A student's or the teacher's plan; a baseline's own name."""
    return row["plan"] if row["generator"] in ("teacher", "student") else row["generator"]


def plans_svg(run: Path) -> bytes:
    """Distance to the teacher against network passes, and against milliseconds."""
    kinds = {"teacher": "teacher", "student": "student"}

    def points(key: str) -> list[svg.Point]:
        found = []
        for row in rows(run):
            kind = "refined" if "J" in row["plan"] else kinds.get(row["generator"], "baseline")
            if row["n"] == max(row["n"] for row in rows(run)):  # a distance of fewer pictures is larger by itself
                found.append(svg.Point(row[key], row["fd_teacher"], plan_name(row), kind))
        return found

    return side_by_side(
        svg.scatter(points("steps"), "Distance to the teacher (lower is better)", "network passes", log_y=True),
        svg.scatter(points("ms_per_image"), "The same against time", "ms a picture, 500 at once", log_y=True),
    )


def agreement_svg(runs: Sequence[Path]) -> bytes:
    """Share of the pair's codes that the student predicts while it trains, a panel a run."""
    panels = []
    for run, order in zip(runs, ("raster order", "next scale"), strict=True):
        lines = [json.loads(line) for line in (run / "student" / "curve.jsonl").read_text().splitlines()]
        curve = [(line["step"], line["agreement"]) for line in lines if "agreement" in line]
        panels.append(svg.curve(curve, f"Agreement, {order}", "training step", log_y=False, kind="student"))
    return side_by_side(*panels)


def flow_svg(noises: int = 60, steps: int = 61) -> bytes:
    """Gaussian noises on their way to five codes of a plane, by Heun's method on `flow.velocity`; sizes show p."""
    codebook = jnp.array([[1.5, 0.9], [-1.3, 1.2], [-0.2, -0.1], [1.0, -1.4], [-1.6, -1.0]])
    prob = jnp.array([0.35, 0.25, 0.2, 0.12, 0.08])
    field = jax.jit(jax.vmap(lambda x, u: flow.velocity(x, u, jnp.log(prob), codebook), (0, None)))
    x, grid = jax.random.normal(rng.key(1), (noises, 2)), 1 - np.geomspace(1, 0.02, steps)
    path = [x]
    for lo, hi in itertools.pairwise(grid):
        slope = field(x, lo)
        x = x + (hi - lo) / 2 * (slope + field(x + (hi - lo) * slope, hi))
        path.append(x)
    code, way = np.asarray(flow.nearest(x, codebook)), np.asarray(jnp.stack(path))
    return standalone(_plane(way, code, np.asarray(codebook), np.asarray(prob)), svg.WIDTH, svg.HEIGHT + 40)


def _plane(way: np.ndarray, code: np.ndarray, codebook: np.ndarray, prob: np.ndarray) -> str:
    """Paths, their starts, and the codes, which are circles of area p."""

    def place(x: np.ndarray) -> tuple[float, float]:
        return svg.WIDTH / 2 + 52 * x[0], svg.HEIGHT / 2 + 26 - 46 * x[1]

    parts = [f'<text class="title" x="{GAP}" y="20">Noise (dots) flows to codes (circles: probability)</text>']
    for i, one in enumerate(code):
        line = " L".join("{:.1f} {:.1f}".format(*place(x)) for x in way[::2, i])
        x, y = place(way[0, i])
        colour = CODE_COLOURS[one]
        parts.append(f'<path d="M{line}" style="stroke:{colour};stroke-width:.8;opacity:.7"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8" style="fill:{colour};stroke:none"/>')
    for one, (c, p) in enumerate(zip(codebook, prob, strict=True)):
        x, y = place(c)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{20 * p**0.5:.1f}" style="fill:{CODE_COLOURS[one]}"/>')
        parts.append(f'<text x="{x:.1f}" y="{y - 20 * p**0.5 - 5:.1f}" text-anchor="middle">{p:g}</text>')
    return "".join(parts)


def side_by_side(*plots: str) -> bytes:
    """Several of the report's plots as one picture."""
    panels = []
    for i, plot in enumerate(plots):
        place = f'<svg x="{i * (svg.WIDTH + GAP)}" width="{svg.WIDTH}" height="{svg.HEIGHT}"'
        panels.append(plot.replace("<svg", place, 1))
    return standalone("".join(panels), len(plots) * (svg.WIDTH + GAP) - GAP, svg.HEIGHT)


def standalone(body: str, width: int, height: int) -> bytes:
    """A picture of its own, in the report's colours, on its background in light and dark."""
    used = re.compile(r"^(svg|path|circle)")
    rules = "\n".join(line for line in style.RULES.splitlines() if used.match(line.strip()))
    rules = rules.replace("svg { width: 100%; height: auto; font-size: 11px; }", "svg { font: 11px sans-serif; }")
    rules += "\n.card { fill: @card; }"
    css = f"{painted(rules, style.LIGHT)}\n@media (prefers-color-scheme: dark) {{\n{painted(rules, style.DARK)}\n}}"
    size = f'width="{2 * width}" viewBox="0 0 {width} {height}"'
    card = f'<rect class="card" width="{width}" height="{height}" rx="10"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{css}</style>{card}{body}</svg>\n'.encode()


def painted(rules: str, colours: dict[str, str]) -> str:
    """Every @name becomes its colour."""
    return re.sub(r"@(\w+)", lambda match: colours[match[1]], rules)


if __name__ == "__main__":
    main()
