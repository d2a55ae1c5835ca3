"""Where a training's numbers go: JSON lines always, TensorBoard and Weights & Biases where asked for.

`curve.jsonl` is a pure function of the run, whatever interrupted it; what depends on the machine's mood is in
`speed.jsonl`. With several processes only the first one writes.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from dd_jax.system import processes
from dd_jax.system.errors import UserError
from dd_jax.training.curves import Writer


class Sink(Protocol):
    """Takes one row of numbers a call."""

    def write(self, step: int, **scalars: Any) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `folder`/tensorboard, by tensorboardX."""

    def __init__(self, folder: Path, resume: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise UserError("config.train.log has tensorboard: pip install -e '.[tensorboard]'") from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=resume)

    def write(self, step: int, **scalars: Any) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, float(value), step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, the same one after a restart; its own environment variables set the rest."""

    def __init__(self, folder: Path, resume: int) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError("config.train.log has wandb: pip install -e '.[wandb]'") from error
        name = "/".join(folder.absolute().parts[-2:])
        own = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]
        self._run = wandb.init(project="dd_jax", name=name, id=own, resume="allow", dir=str(folder))

    def write(self, step: int, **scalars: Any) -> None:
        self._run.log({name: float(value) for name, value in scalars.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


KINDS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": Wandb}


def check(log: Sequence[str]) -> None:
    """UserError for a name that no sink has."""
    for name in log:
        if name not in KINDS:
            raise UserError(f"config.train.log has {name!r}: choose from {', '.join(KINDS)}")


class Sinks:
    """All of one training. `resume`: the first step that will be written (again); `log`: names out of KINDS."""

    def __init__(self, folder: Path, resume: int, log: Sequence[str] = ()) -> None:
        check(log)
        self._files: dict[str, Sink] = {}
        self._others: list[Sink] = []
        self._folder, self._resume = folder, resume
        if processes.is_first():
            self._file("curve")
            self._others = [KINDS[name](folder, resume) for name in log]

    def _file(self, name: str) -> Sink:
        if name not in self._files:
            self._files[name] = Writer(self._folder / f"{name}.jsonl", resume=self._resume)
        return self._files[name]

    def write(self, step: int, curve: dict[str, Any], speed: dict[str, Any]) -> None:
        """The numbers of `step`: what the run is, and how fast it was."""
        for name, numbers in (("curve", curve), ("speed", speed)):
            if numbers and processes.is_first():
                self._file(name).write(step, **numbers)
        for sink in self._others:
            sink.write(step, **curve, **speed)

    def close(self) -> None:
        for sink in (*self._files.values(), *self._others):
            sink.close()

    def __enter__(self) -> "Sinks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
