"""What a run has trained, as folders that `dd_jax.load` and every config take."""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from dd_jax.method.interfaces import Params
from dd_jax.stages.parts import trained_in
from dd_jax.system import processes, weights

TRAINED = ("tokenizer", "text", "teacher", "student")


def run(config: ConfigDict, workdir: Path, params_of: Callable[..., dict[str, Params]]) -> Path:
    """Write `workdir`/weights/<part> for every part that was trained here. All processes read, the first one writes."""
    folder, ported = workdir / "weights", config.weights
    trained = [part for part in TRAINED if part != "text" or "text" in config]
    made = {part: ported.get(part) or part for part in trained if part != "student"}
    for part in trained:
        if not (workdir / trained_in(part)).exists() or ported.get(part):
            continue
        companions = {name: where for name, where in made.items() if name != part}
        about = {"id": f"{workdir.name}/{part}", "part": part, "companions": companions, "config": config.to_dict()}
        params = params_of(*dict.fromkeys(("tokenizer", part)), dtype="float32")[part]
        params = params["trunk"] if part == "teacher" else params
        if processes.is_first():
            weights.save(folder / part, params, about)
    return folder
