"""python -m scripts.aot --config=configs/llamagen_l.py --topology=v5e:4x4 --mesh=16,1 [--what=train,pairs,sample]

Compiles a config's programs (also text, tokenizer and teacher) for chips that are not there: what each will hold,
whether it fits, how many kernels a call starts, what crosses the chips, and how long compiling takes; of a training
also a step's products in TFLOP, less what is computed again, and the hours that all its steps take at 40 % of the
chips' bfloat16 peak. No accelerator is needed, but the platform's compiler is: `pip install libtpu` in the version that
JAX's own [tpu] extra names; for --topology=h100x8, `pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt
nvidia-cuda-nvcc-cu12` in JAX's version (cuDNN's own workspaces are not counted).
--batch is the global one, of all programs; --json=FILE keeps the numbers; --compile=false: products and hours alone.
Training is slow to compile: --config.train.scan=true takes a fraction of the time, and so does --effort=-1, which
optimises less. Any setting can be changed:
--config.train.remat=true --config.train.accumulate=4 --config.dtype.student=bfloat16
"""

import os

os.environ.update({"JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1"})
os.environ["JAX_ENABLE_X64"] = "0"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # that there is no card is known

import copy
import dataclasses
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from dd_jax import factory, overrides
from dd_jax.method.fewstep import generator
from dd_jax.method.interfaces import Cond
from dd_jax.scripts import chips, hlo
from dd_jax.stages import parts, scores, tokenizing, train
from dd_jax.stages.pairs import sampler
from dd_jax.stages.teaching import Lesson, Regularization
from dd_jax.system import files, flops, rng
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import Placement, make_mesh
from dd_jax.text import t5
from dd_jax.training.course import Course
from dd_jax.training.loop import Recipe, TrainState, init_state
from dd_jax.training.throughput import PEAK

CONFIG = config_flags.DEFINE_config_file("config", None, "Settings.")
TOPOLOGY = flags.DEFINE_string("topology", "v5e:4x4", "Chip and shape of the slice.")
MESH = flags.DEFINE_string("mesh", "-1,1", "data,model")
WHAT = flags.DEFINE_list("what", ["train", "pairs", "sample"], "Programs to compile.")
BATCH = flags.DEFINE_integer("batch", 0, "Global batch (default: the config's own for each program).", lower_bound=0)
JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
EFFORT = flags.DEFINE_float("effort", 0.0, "-1: compile in less time and optimise less.", -1.0, 1.0)
COMPILE = flags.DEFINE_bool("compile", True, "false: products and hours of trainings alone.")
DUMP = flags.DEFINE_string("dump", None, "A folder for the compiled programs' text.")

TRAININGS = ("train", "tokenizer", "teacher")
PROGRAMS = ("train", "pairs", "sample", "text", "tokenizer", "teacher")
flags.register_validator("what", lambda names: names and {*names} <= {*PROGRAMS}, f"choose from {','.join(PROGRAMS)}")
flags.register_validator("mesh", lambda text: re.fullmatch(r"-?\d+,-?\d+", text), "two numbers, as 16,1 or -1,1")

GIB = 2**30
MFU = 0.4  # of which hours are told


def shapes(fn: Callable, *args: Any) -> Any:
    return jax.eval_shape(fn, *args)


class Programs:
    """The programs of a config on a mesh, each as (jitted function, abstract arguments, batch)."""

    def __init__(self, config: ConfigDict, mesh: Mesh):
        self.config, self.mesh, self.system = config, mesh, factory.build(config)
        self.placement, system = Placement(mesh, self.system.rules), self.system
        key = rng.key(0)
        self.params = {"tokenizer": shapes(system.tokenizer.init, key), "student": shapes(system.student.init, key)}
        trunk = shapes(system.teacher_init, key, self.params["tokenizer"])
        kind = jnp.dtype(config.dtype.teacher)
        trunk = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, kind), trunk)
        self.params["teacher"] = system.teacher_params(trunk, self.params["tokenizer"])
        for part in ("classifier", "lpips"):
            if getattr(system, part) is not None:
                self.params[part] = shapes(getattr(system, part).init, key)

    def train(self, batch: int) -> tuple[Any, tuple, int]:
        """Algorithm 2's step."""
        self.config.train.batch = batch or self.config.train.batch
        system, recipe = self.system, Recipe.of(self.config.train)
        distance = train.distance_of(system.objective, system.tokenizer, system.classifier, system.lpips)
        step = train.stepper(recipe, system.objective, system.models, distance, self.config.seed, self.placement)
        frozen = shapes(lambda params: train.frozen_for(system.objective, system.tokenizer, params), self.params)
        given = recipe, system.objective, system.models
        state: TrainState = shapes(lambda params: train.begin(*given, params["student"], params, 0), self.params)
        rows = shapes(lambda: train.example(recipe.batch, system.objective, system.models))
        return step, _stepped(self.placement, state, rows, frozen), recipe.batch

    def tokenizer(self, batch: int) -> tuple[Any, tuple, int]:
        """A step of the tokenizer's training, its discriminator playing if it has one."""
        config, system, place = self.config, self.system, dataclasses.replace(self.placement, rules=())
        self._section("tokenizer", batch)
        trainer, side = parts.tokenizer_trainer(system, config), config.data.resolution
        place.check_batch("--batch", trainer.recipe.batch, trainer.recipe.accumulate)
        state: TrainState = shapes(trainer.begin, self.params["tokenizer"])
        img = jax.ShapeDtypeStruct((trainer.recipe.batch, side, side, system.tokenizer.stack.channels), jnp.float32)
        frozen = {name: self.params[name] for name in (trainer.aims.perceptual,) if trainer.eyes}
        return tokenizing.stepper(trainer, place), _stepped(place, state, {"img": img}, frozen), trainer.recipe.batch

    def teacher(self, batch: int) -> tuple[Any, tuple, int]:
        """A step of the teacher's training, its encoder of captions learning with it if it has one."""
        system, place, section = self.system, self.placement, self._section("teacher", batch)
        pace, recipe = parts.pace(system, self.config), Recipe.of(section)
        place.check_batch("--batch", recipe.batch, recipe.accumulate)
        lesson, tx = Lesson(system, Regularization.of(section), pace), pace.optimizer(recipe)
        step = Course("teacher", Path(), recipe, self.config.seed, place).step(lesson.loss, tx, lesson.draw)
        start = shapes(system.learned_init, rng.key(0), self.params["tokenizer"])
        state: TrainState = shapes(lambda params: init_state(params, tx), start)
        rows = {"code": _ints(recipe.batch, system.layout.tokens)}
        if system.text is None:
            rows["label"] = _ints(recipe.batch)
        else:
            shape = recipe.batch, system.text.cfg.tokens
            rows |= {"token": _ints(*shape), "valid": jax.ShapeDtypeStruct(shape, jnp.bool_)}
        return step, _stepped(place, state, rows, {"tokenizer": self.params["tokenizer"]}), recipe.batch

    def _section(self, part: str, batch: int) -> ConfigDict:
        """The config's own on a part's training, at this batch. UserError where it has none."""
        if "pretrain" not in self.config:
            raise UserError(f"this config trains no {part}: leave it out of --what, or take configs/own_var.py")
        section = self.config.pretrain[part]
        section.batch = batch or section.batch
        return section

    def work(self, what: str, batch: int) -> dict[str, float]:
        """TFLOP of a training's step, the mean over its turns if it has some, and hours of all steps at `MFU`.

        Of the program without rematerialisation: how much of one would be computed again is the compiler's business.
        """
        config = copy.deepcopy(self.config)
        section = config.train if what == "train" else config.pretrain[what]
        for given in filter(lambda given: "remat" in given, (section, config.tokenizer.stack)):
            given.remat = False
        steps, plain = section.steps, Programs(config, self.mesh)
        program, args, _ = getattr(plain, what)(batch)
        plan = plain.system.objective.csd if what == "train" else None
        if plan is None:
            work = flops.count_jaxpr(program.trace(*args).jaxpr.jaxpr, recomputed=False)
        else:
            turns = scores.Turns(plain.system.models, plan, Recipe.of(section), config.seed)
            taken, work = plan.turn(np.arange(steps), np), 0.0
            for turn in plan.turns:
                step = jax.make_jaxpr(lambda state, rows, frozen, turn=turn: turns.turn(turn, frozen, state, rows))
                work += flops.count_jaxpr(step(*args).jaxpr, recomputed=False) * float((taken == turn).mean())
        peak = sum(PEAK.get(device.device_kind, 0.0) for device in self.mesh.devices.flat)
        hours = {"hours": round(steps * work / peak / MFU / 3600, 1)} if peak else {}
        return {"tflop": work / 1e12, **hours}

    def pairs(self, batch: int) -> tuple[Any, tuple, int]:
        """Algorithm 1."""
        (params, *rows), batch = self._rows(("teacher", "tokenizer"), batch or self.config.pairs.batch)
        root = shapes(lambda: rng.stream(self.config.seed, "pairs"))
        given = params, _at(root, self.placement.spread(root))
        return sampler(self.system.models, self.placement), (given, *rows), batch

    def sample(self, batch: int) -> tuple[Any, tuple, int]:
        """Pictures in one step."""
        system, generate = self.system, generator("S0", self.system.models)
        root = rng.stream(self.config.seed, "sample")

        def draw(params: dict, id_B: jax.Array, cond: Cond) -> jax.Array:
            draft = generate(params, cond, rng.example_keys(root, id_B))
            return system.tokenizer.decode(params["tokenizer"], draft.token_BxLxC)

        return self.placement.each(draw), *self._rows(("student", "tokenizer"), batch or self.config.sample.batch)

    def text(self, batch: int) -> tuple[Any, tuple, int]:
        """The encoder of captions, every one as long as it may be."""
        side = self.system.text
        if side is None:
            raise UserError("this config reads no captions: leave text out of --what")
        place, batch = dataclasses.replace(self.placement, rules=t5.RULES), batch or self.config.pairs.batch
        batch += -batch % place.rows
        params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, side.cfg.dtype), shapes(side.init, rng.key(0)))
        rows = _ints(batch, side.cfg.tokens), jax.ShapeDtypeStruct((batch, side.cfg.tokens), jnp.bool_)
        given = place.shardings(params, fsdp=False), place.spread(rows, "data")
        run = place.jit(lambda params, token, valid: t5.encode(side.cfg, params, token, valid))
        return run, jax.tree.map(_at, (params, *rows), (given[0], *given[1])), batch

    def _rows(self, parts: tuple[str, ...], batch: int) -> tuple[tuple, int]:
        batch += -batch % self.placement.rows
        params = {part: self.params[part] for part in parts}
        rows = _ints(batch), shapes(lambda: self.system.teacher.blank(batch))
        given = self.placement.shardings(params, fsdp=False), self.placement.spread(rows, "data")
        params, rows = jax.tree.map(_at, (params, rows), given)
        return (params, *rows), batch


def _ints(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _stepped(place: Placement, state: TrainState, rows: Any, frozen: Any) -> tuple:
    """What a training's step takes, where its training puts it."""
    at = place.shardings(state), place.spread(rows, "data"), place.spread(frozen)
    return tuple(jax.tree.map(_at, (state, rows, frozen), at))


def _at(x: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def measure(program: Any, args: tuple, memory: float) -> dict[str, Any]:
    """Compile -> one row: GiB on each chip, of which there are `memory`; kernels, collectives, seconds.

    The peak counts arguments, results that are not written over them, and temporaries.
    """
    begin = time.perf_counter()
    lowered = program.lower(*args)
    row: dict[str, Any] = {"lower_s": round(time.perf_counter() - begin, 1)}
    begin = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        told = re.search(r"[Uu]sed ([\d.]+)G of ", str(error))
        peak, spent = float(told[1]) if told else None, round(time.perf_counter() - begin, 1)
        return row | {"fits": False, "peak_gib": peak, "compile_s": spent, "collectives": {}, "why": str(error)[:4000]}
    row["compile_s"] = round(time.perf_counter() - begin, 1)
    found, text = compiled.memory_analysis(), compiled.as_text()
    size = {name: getattr(found, f"{name}_size_in_bytes") / GIB for name in ("argument", "output", "alias", "temp")}
    held = size["argument"] + size["output"] - size["alias"] + size["temp"]
    row |= {f"{name}_gib": round(value, 3) for name, value in size.items()}
    row |= {"kernels": hlo.kernels(text), "collectives": hlo.collectives(text), "text": text}
    return row | {"peak_gib": round(held, 2), "fits": held < memory}


def table(rows: list[dict[str, Any]]) -> str:
    """For a terminal."""
    columns: tuple[str, ...] = ("program", "batch", "argument_gib", "temp_gib", "peak_gib", "fits", "compile_s")
    columns += ("tflop", "hours", "kernels", "collectives")
    cells = [columns, *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(text.ljust(n) for text, n in zip(line, widths, strict=True)).rstrip() for line in cells)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{n} {kind} {size / GIB:.2f} GiB" for kind, (n, size) in value.items()) or "none"
    value = float(f"{value:.4g}") if isinstance(value, float) else value
    return {"True": "yes", "False": "NO", "None": "-"}.get(str(value), str(value))


def main(argv: list[str]) -> None:
    """Compile what was asked for."""
    jax.config.update("jax_exec_time_optimization_effort", EFFORT.value)
    jax.config.update("jax_memory_fitting_effort", EFFORT.value)
    text, dump = (files.local(flag.value) if flag.value else None for flag in (JSON, DUMP))
    for folder in filter(None, (text and text.parent, dump)):
        files.check_folder(folder)
    devices = chips.devices_of(TOPOLOGY.value)
    kind = devices[0].device_kind
    mesh = make_mesh([int(size) for size in MESH.value.split(",")], devices)
    programs = Programs(CONFIG.value, mesh)
    rows = [compile_one(programs, what, chips.MEMORY.get(kind, 16), dump) for what in WHAT.value]
    if text:
        about = {"topology": TOPOLOGY.value, "mesh": dict(mesh.shape), "jax": jax.__version__}
        files.replace(text, json.dumps(about | {"programs": rows}, indent=1).encode())
    print(f"\n{len(devices)} x {kind}, mesh {dict(mesh.shape)}; GiB are those of one chip\n{table(rows)}")


def compile_one(programs: "Programs", what: str, memory: float, dump: Path | None) -> dict[str, Any]:
    """A row, printed as soon as it is there."""
    program, args, batch = getattr(programs, what)(BATCH.value)
    row = {"program": what, "batch": batch} | (measure(program, args, memory) if COMPILE.value else {})
    row |= programs.work(what, BATCH.value) if what in TRAININGS else {}
    text = row.pop("text", row.get("why", ""))
    if dump:
        files.replace(dump / f"{what}.txt", text.encode())
    print(table([row]), flush=True)
    return row


if __name__ == "__main__":
    overrides.start(main, __doc__)
