"""python -m scripts.repaints RUN [--count 200]

Repaints held-out pictures behind random boxes of a third of their tokens, by the teacher, by a few passes and by the
best of eight. Of each: in how many the run's classifier finds the class (the caption among 51), and what the kept
tokens just below the hole cost the teacher, in nats: a raster model does not see them as it draws.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import dd_jax
from dd_jax import factory
from dd_jax.data.examples import floats
from dd_jax.data.pictures import Pictures
from dd_jax.data.sampleset import to_uint8
from dd_jax.method import pinning
from dd_jax.method.layout import Layout
from dd_jax.metrics.classified import AMONG, caption_found, look
from dd_jax.system import files, runtime
from dd_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Case:
    """Pictures to repaint, what they show, and where."""

    img_BxRxRxc: np.ndarray  # uint8
    number_B: np.ndarray
    label: list[int] | list[str]
    hole_BxSxS: np.ndarray  # bool, of the finest map


def holes(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Bool (count, side, side): boxes of any shape, of about a third of all squares."""
    draw, hole = np.random.default_rng(seed), np.zeros((count, side, side), bool)
    for one in hole:
        rows = draw.integers(-(-side // 3), side)  # never the last row too: there is one below
        columns = min(side, round(side * side / 3 / rows))
        top, left = draw.integers(side - rows), draw.integers(side - columns + 1)
        one[top : top + rows, left : left + columns] = True
    return hole


def below(hole_BxSxS: np.ndarray, layout: Layout) -> np.ndarray:
    """Bool (B, L): kept tokens of the finest map in the row under the hole."""
    edge = np.zeros_like(hole_BxSxS)
    edge[:, 1:] = hole_BxSxS[:, :-1] & ~hole_BxSxS[:, 1:]
    whole = np.zeros((len(edge), layout.tokens), bool)
    whole[:, -edge[0].size :] = edge.reshape(len(edge), -1)
    return whole


def plans(steps: int) -> dict[str, tuple[str, int]]:
    """Title -> plan and candidates."""
    return {
        "the teacher": (f"T0:{steps}", 1),
        "the student": ("S0", 1),
        "refined": ("S0 J4", 1),
        "refined, best of 8": ("S0 J4", 8),
    }


def measure(pipe: dd_jax.Pipeline, case: Case) -> None:
    """Print a line a way to repaint. RuntimeError if a kept token changed."""
    layout, classifier = pipe.system.layout, pipe.system.classifier
    assert classifier is not None
    code_BxL = pipe.encode(case.img_BxRxRxc)
    keep_BxL = ~pinning.footprints(case.hole_BxSxS, layout)
    edge_BxL = below(case.hole_BxSxS, layout) & keep_BxL

    def line(title: str, code_BxL: np.ndarray) -> None:
        seen = look(classifier, pipe.params["classifier"], floats(pipe.decode(code_BxL)))[1]
        captions = seen.shape[1] >= AMONG
        found = caption_found(seen, case.number_B) if captions else np.mean(seen.argmax(-1) == case.number_B)
        nats = -pipe.log_prob(code_BxL, case.label)[edge_BxL].mean()
        print(f"{title:26} found {found:.3f}   just below {nats:.2f} nats", flush=True)

    print(f"{len(case.label)} pictures, {1 - keep_BxL.mean():.2f} of their tokens drawn anew")
    line("as they were", code_BxL)
    for title, (plan, many) in plans(layout.steps).items():
        new_BxL = np.asarray(pipe.repaint(code_BxL, keep_BxL, case.label, plan, many).code_BxL)
        if (new_BxL != code_BxL)[keep_BxL].any():
            raise RuntimeError("a kept token changed")
        line(f"{title}: {plan}", new_BxL)


def case_of(folder: Path, pipe: dd_jax.Pipeline, count: int) -> Case:
    """The first held-out pictures of a run. UserError for weights, and for runs that nothing judges."""
    if pipe.system.classifier is None:
        raise UserError(f"{folder} has no feature classifier, which could find the class: name a run of a demo")
    config = factory.frozen(files.read_json(folder / "config.json"))
    img, number = Pictures(config.data, config.seed).held_out()
    img, number_B = img[:count], np.asarray(number[:count])
    text = pipe.system.text
    label = number_B.tolist() if text is None else [text.prompts.captions[i] for i in number_B]
    return Case(to_uint8(jnp.asarray(img)), number_B, label, holes(len(img), pipe.system.layout.maps[-1]))


def main() -> None:
    parser = argparse.ArgumentParser("python -m scripts.repaints", description=__doc__.partition("\n\n")[2])
    parser.add_argument("run", type=Path, help="a finished run with a classifier")
    parser.add_argument("--count", type=int, default=200, help="how many pictures (default: 200)")
    args = parser.parse_args()
    try:
        files.spelled_in(args)
        if args.count < 1:
            raise UserError(f"--count={args.count}: a number of pictures, 1 or more")
        runtime.setup()
        pipe = dd_jax.load(args.run)
        measure(pipe, case_of(args.run, pipe, args.count))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
