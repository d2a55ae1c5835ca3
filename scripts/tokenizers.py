"""python -m scripts.tokenizers RUN RUN ... --out FOLDER [--lpips weights/lpips_vgg]

Tokenizers that learnt from the same pictures, side by side, by pictures that none of them has seen. A table, also in
FOLDER/tokenizers.md: PSNR, SSIM (11 px or more), the Frechet distance to the originals by the first run's classifier,
LPIPS where its weights are named (or were, by the first run), and edges, the mean difference of neighbouring pixels as
a share of the originals'. And FOLDER/tokenizers.png: originals, then what each makes of them.
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import dd_jax
from dd_jax import factory
from dd_jax.data.pictures import Pictures
from dd_jax.data.sampleset import to_uint8
from dd_jax.metrics.lpips import LPIPS
from dd_jax.report.picture import Grid, grid_png
from dd_jax.stages import parts
from dd_jax.system import files, rng, runtime, weights
from dd_jax.system.errors import UserError
from dd_jax.training.reconstructions import BATCH, HELD_OUT, Reconstructions, compared, spaced

SAME = ("name", "resolution", "channels", "background")  # what makes them the same pictures
COLUMNS = {"psnr": "PSNR", "ssim": "SSIM", "fd": "distance", "lpips": "LPIPS", "edges": "edges"}


def edges(img_NxRxRxc: np.ndarray) -> float:
    """Mean difference of neighbouring pixels, side by side and one above the other."""
    return float(np.mean([np.abs(np.diff(img_NxRxRxc, axis=axis)).mean() for axis in (1, 2)]))


def far(lpips: Path, img: np.ndarray, made: np.ndarray) -> float:
    """Mean LPIPS by the weights of a folder, of images in [-1, 1]. UserError for images of less than 16 px."""
    net, look = LPIPS(), jax.jit(LPIPS().perceptual)
    params = weights.on_device(weights.load(lpips, jax.eval_shape(net.init, rng.key(0)), dtype=None))
    found = [look(params, img[i : i + BATCH], made[i : i + BATCH]) for i in range(0, len(img), BATCH)]
    return float(np.mean(np.concatenate(found)))


def settings(run: Path) -> ConfigDict:
    return factory.frozen(files.read_json(run / "config.json"))


def opened(runs: list[Path]) -> list[dd_jax.Pipeline]:
    """Tokenizers and classifiers. UserError for what is no run, and for runs of other pictures than the first one's."""
    pipes = [dd_jax.load(run, text=None, teacher=None, student=None) for run in runs]
    first, *others = (settings(run).data for run in runs)
    for run, data in zip(runs[1:], others, strict=True):
        if differ := [name for name in SAME if data.get(name) != first.get(name)]:
            told = ", ".join(f"data.{name}={data.get(name)}, there {first.get(name)}" for name in differ)
            raise UserError(f"{run} learnt from other pictures than {runs[0]} ({told}): compare runs of the same ones")
    return pipes


def table(rows: dict[Path, dict[str, float]], count: int) -> str:
    """Markdown, a line a run."""
    shown = [name for name in COLUMNS if any(name in row for row in rows.values())]
    head = [f"held out, {count:,} pictures", "steps", *(COLUMNS[name] for name in shown)]
    lines = [head, ["---"] * len(head)]
    for run, row in rows.items():
        lines.append([str(run), f"{row['steps']:,}", *(f"{row[name]:.4g}" for name in shown)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def measure(runs: list[Path], out: Path, lpips: Path | None, shown: int) -> None:
    """Print and write everything. UserErrors as above."""
    pipes, config = opened(runs), settings(runs[0])
    lpips = lpips or parts.named(config, "lpips", runs[0])
    img = spaced(Pictures(config.data, config.seed).held_out()[0], HELD_OUT)[:]
    judge, seen = pipes[0].system.classifier, pipes[0].params.get("classifier")
    rows, pictures = dict[Path, dict[str, float]](), [spaced(img, shown)[:]]
    for run, pipe in zip(runs, pipes, strict=True):
        looks = Reconstructions(out, pipe.system.tokenizer, pipe.system.layout.maps, pipe.vocab, img, img)
        made = np.concatenate([some for _, some in looks.through(pipe.params["tokenizer"], img)])
        rows[run] = {"steps": settings(run).pretrain.tokenizer.steps, **compared(img, made, judge, seen)}
        rows[run] |= {"edges": edges(made) / edges(img)} | ({"lpips": far(lpips, img, made)} if lpips else {})
        pictures.append(spaced(made, shown)[:])
    told, drawn = table(rows, len(img)), np.concatenate([to_uint8(jnp.asarray(some)) for some in pictures])[:, None]
    print(told, end="")
    files.replace(out / "tokenizers.md", told.encode())
    titles = ["originals", *(run.name for run in runs)]
    png = grid_png(drawn, Grid(drawn, [""]).scale, (), titles, len(pictures[0]))
    print(f"wrote {files.replace(out / 'tokenizers.png', png)}")


def main() -> None:
    parser = argparse.ArgumentParser("python -m scripts.tokenizers", description=__doc__.partition("\n\n")[2])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run whose tokenizer is trained")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the table and the picture")
    parser.add_argument("--lpips", type=Path, help="ported weights of LPIPS")
    parser.add_argument("--shown", type=int, default=10, help="pictures that are shown (default: 10)")
    args = parser.parse_args()
    try:
        files.spelled_in(args)
        if args.shown < 1:
            raise UserError(f"--shown={args.shown}: a number of pictures, 1 or more")
        files.check_folder(args.out)
        runtime.setup()
        measure(args.runs, args.out, args.lpips, args.shown)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
