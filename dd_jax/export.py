"""python -m dd_jax.export FOLDER [--plan S0] [--batch 1,8] [--out one_step.stablehlo] [--platforms cpu,cuda,tpu]

A model's plan, decoder included, as programs that run without dd_jax: `jax.export` writes and reads them, and StableHLO
is what they hold. FOLDER is a finished run, a folder of weights, or hf://owner/name. docs/hub.md shows ten lines that
draw with them.

    python -m dd_jax.export runs/mnist_flow --plan S0 --batch 8 --out one_step.stablehlo

writes one_step.stablehlo, a program (weights, labels (8,) int32, noise (8, L, C) float32) -> uint8 (8, R, R, channels),
and one_step.safetensors, its weights by name. Several batch sizes are a program each, one_step_1.stablehlo and so on,
which share the weights. Captions come as the encoder's features, (B, P, F) and which of their tokens are valid (B, P).
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export as jax_export

from dd_jax.data.sampleset import as_uint8
from dd_jax.method.fewstep import program, run_ops
from dd_jax.method.interfaces import Cond
from dd_jax.method.plans import parse
from dd_jax.pipeline import Pipeline, load
from dd_jax.system import files, hub, runtime, weights
from dd_jax.system.errors import UserError

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
Arrays = dict[str, Any]  # parameters by name, student/layers_0/...


def export(
    pipe: Pipeline, out: Path, plan: str = "S0", batches: Sequence[int] = (1,), platforms: Sequence[str] = ()
) -> list[Path]:
    """Write programs that draw `plan`, one a batch size, and their weights beside them -> the files.

    Sizes are fixed: how a product is summed depends on them, and a program whose batch is a symbol would draw other
    bytes. Weights are arguments, so that programs stay small and share them. `platforms`: where it shall run (default:
    where it is made). UserError for a plan, sizes or platforms that cannot be.
    """
    check(pipe, plan, batches, platforms)
    used: Arrays = {}
    draw = _drawing(pipe, plan)
    given = traverse_util.flatten_dict({part: pipe.params[part] for part in _networks(pipe, plan)}, sep="/")
    made = {}
    for batch in batches:
        inputs = _inputs(pipe, batch)
        write = jax_export.export(jax.jit(draw), platforms=tuple(platforms) or None)
        if not used:  # a decoder needs no encoder
            kept = write(given, *inputs).module_kept_var_idx
            used = {name: given[name] for i, name in enumerate(sorted(given)) if i in kept}
        made[batch] = write(used, *inputs).serialize()
    names = [out if len(made) == 1 else out.with_name(f"{out.stem}_{batch}{out.suffix}") for batch in made]
    for path, data in zip(names, made.values(), strict=True):
        files.replace(path, bytes(data))
    arrays = {name: np.asarray(x) for name, x in used.items()}
    return [*names, weights.write_safetensors(out.with_suffix(".safetensors"), arrays)]


def check(pipe: Pipeline, plan: str, batches: Sequence[int], platforms: Sequence[str]) -> None:
    """UserError for what cannot be exported."""
    for op in parse(plan, pipe.system.layout.steps, pipe.system.objective.timesteps, strict=True):
        if op.kind == "T" and pipe.system.models.of(plan).categorical:
            raise UserError(
                f"plan {plan!r}: this teacher draws by chance, and random keys are not exported: leave T out"
            )
    for part in _networks(pipe, plan):
        if part not in pipe.params:
            raise UserError(f"plan {plan!r} needs a {part}, which {part}= of dd_jax.load, or --{part}, names")
    if not batches or min(batches) < 1:
        raise UserError(f"batch sizes are {', '.join(map(str, batches)) or 'none'}: give whole numbers from 1 on")
    if unknown := [name for name in platforms if name not in PLATFORMS]:
        raise UserError(f"there is no platform {unknown[0]!r}: choose of {', '.join(PLATFORMS)}")
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("writing programs needs flatbuffers: pip install 'dd_jax[export]'")


def _networks(pipe: Pipeline, plan: str) -> list[str]:
    kinds = {op.kind for op in parse(plan, pipe.system.layout.steps)}
    return ["tokenizer", *["student"] * ("S" in kinds), *["teacher"] * bool(kinds - {"S"})]


def _drawing(pipe: Pipeline, plan: str) -> Callable[..., jax.Array]:
    """(weights, labels, noise), or (weights, captions, valid, noise), -> uint8 images."""
    ops, sweeps = program(plan, pipe.system.layout.steps)
    models, captions = pipe.system.models.of(plan), pipe.system.text is not None

    def draw(arrays: Arrays, *inputs: jax.Array) -> jax.Array:
        *shown, noise_BxLxC = inputs
        cond = Cond(caption_BxPxF=shown[0], valid_BxP=shown[1]) if captions else Cond(shown[0])
        params = traverse_util.unflatten_dict(arrays, sep="/")
        no_key_B = jnp.zeros(noise_BxLxC.shape[0])  # nothing is drawn by chance
        token_BxLxC = run_ops(ops, models, params, cond, noise_BxLxC, no_key_B, sweeps).token_BxLxC
        token_BxLxC = jax.lax.optimization_barrier(token_BxLxC)  # as where tokens and pixels are programs of their own
        return as_uint8(pipe.system.tokenizer.decode(params["tokenizer"], token_BxLxC))

    return draw


def _inputs(pipe: Pipeline, batch: int) -> list[jax.ShapeDtypeStruct]:
    """What a program takes besides its weights."""
    noise = jax.ShapeDtypeStruct((batch, *pipe.noise(0).shape[1:]), jnp.float32)
    if pipe.system.text is None:
        return [jax.ShapeDtypeStruct((batch,), jnp.int32), noise]
    sizes = pipe.system.text.sizes
    caption = jax.ShapeDtypeStruct((batch, sizes.tokens, sizes.width), jnp.float32)
    return [caption, jax.ShapeDtypeStruct((batch, sizes.tokens), jnp.bool_), noise]


def _numbers(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(one) for one in text.split(",")))
    except ValueError:
        raise UserError(f"--batch {text}: give batch sizes, as 1,8") from None


def main() -> None:
    parser = argparse.ArgumentParser("python -m dd_jax.export", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=hub.path, help="a finished run, a folder of weights, or hf://owner/name")
    parser.add_argument("--plan", default="S0", help="how to draw (default: S0, one step of the student)")
    parser.add_argument(
        "--batch", default="1", help="pictures at once; several sizes make several programs (default: 1)"
    )
    parser.add_argument("--out", type=Path, default=Path("one_step.stablehlo"), help="default: one_step.stablehlo")
    parser.add_argument("--platforms", default="", help=f"of {','.join(PLATFORMS)} (default: the one of this machine)")
    for part in ("tokenizer", "teacher"):
        parser.add_argument(f"--{part}", type=hub.path, help="its folder, where it is not beside the model")
    args = parser.parse_args()
    try:
        files.spelled_in(args)
        files.check_folder(args.out.parent)
        if args.out.is_dir():
            raise UserError(f"--out {args.out} is a folder: name a file in it")
        batches, platforms = _numbers(args.batch), [one for one in args.platforms.split(",") if one]
        runtime.setup()
        parts = {part: where for part in ("tokenizer", "teacher") if (where := getattr(args, part))}
        if not {"T", "J"} & {word[:1] for word in args.plan.split()}:
            parts["teacher"] = None  # one step needs none
        pipe = load(args.folder, text=None, **parts)
        for path in export(pipe, args.out, args.plan, batches, platforms):
            print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
