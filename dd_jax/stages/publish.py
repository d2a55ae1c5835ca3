"""What a run has trained, as folders that `dd_jax.load` and every config take."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from dd_jax.method.interfaces import Params
from dd_jax.stages.parts import trained_in
from dd_jax.stages.workdir import located
from dd_jax.system import processes, weights

PRETRAINED = ("classifier", "tokenizer", "text", "teacher")
ALL = (*PRETRAINED, "student")


def run(
    config: ConfigDict, workdir: Path, params_of: Callable[..., dict[str, Params]], parts: Sequence[str] = ALL
) -> Path:
    """Write `workdir`/weights/<part> for these parts, as far as this run, or one that lends it parts, has trained them.

    All processes read, the first one writes.
    """
    folder, ported = workdir / "weights", config.weights
    used = [part for part in PRETRAINED if part != "classifier" and (part != "text" or "text" in config)]
    made = {part: ported.get(part) or part for part in used}
    for part in parts:
        trained = located(workdir, trained_in(part)).exists() and (part in used or part in ("classifier", "student"))
        if not trained or ported.get(part):
            continue
        companions = {name: where for name, where in made.items() if name != part}
        about = {"id": f"{workdir.name}/{part}", "part": part, "companions": companions, "config": config.to_dict()}
        params = params_of(*dict.fromkeys(("tokenizer", part)), dtype="float32")[part]
        params = params["trunk"] if part == "teacher" else params
        if processes.is_first():
            weights.save(folder / part, params, about)
    return folder
