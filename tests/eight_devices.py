"""python tests/eight_devices.py FAMILY FOLDER: one device against two meshes of eight pretended ones.

A program of its own, since the number of devices is fixed when JAX starts. It asserts, and prints what it measured.
"""

import dataclasses
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import objectives
import tiny

from dd_jax.data.conditions import Classes
from dd_jax.families.llamagen.build import RULES as RASTER
from dd_jax.families.llamagen.tokenizer import VQ
from dd_jax.families.var.build import RULES as SCALES
from dd_jax.families.var.tokenizer import VQVAE
from dd_jax.method import losses
from dd_jax.method.interfaces import Cond
from dd_jax.metrics.classifier import Classifier
from dd_jax.nn.conv import ConvStack
from dd_jax.stages.finetune import Pace, at, put
from dd_jax.stages.pairs import sample_codes, sampler
from dd_jax.stages.teaching import Regularization, train_teacher
from dd_jax.stages.tokenizing import Aims, Trainer
from dd_jax.stages.tokenizing import stepper as tokenizer_stepper
from dd_jax.stages.train import Objective, batches, begin, distance_of, frozen_for, stepper
from dd_jax.system import rng
from dd_jax.system.checkpoint import Checkpoints
from dd_jax.system.sharding import ALONE, DATA, Placement, make_mesh
from dd_jax.training.course import Course
from dd_jax.training.loop import Recipe, TrainState, init_state

STEPS, BATCH = 20, 16
PLAYERS = ("params", "ema", "discriminator")
MAKE = {"llamagen": (tiny.raster, RASTER), "var": (tiny.scales, SCALES)}
TABLE = {"llamagen": ("cls_embedding", "embedding"), "var": ("class_emb", "embedding")}


def relative(a, b) -> float:
    """|a - b| / |b| over whole trees."""
    square = [sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(tree)) for tree in (jax.tree.map(np.subtract, a, b), b)]
    return (square[0] / square[1]) ** 0.5


def codes(models, params, placement: Placement) -> np.ndarray:
    """Twenty pairs, eight at a time: the last batch is padded."""
    ids = np.arange(20, dtype=np.int32)
    params, root = placement.put(params, fsdp=False), rng.stream(0, "pairs")
    classes = Classes(tiny.CLASSES)
    return np.concatenate([*sample_codes(models, params, root, ids, ids % tiny.CLASSES, 8, classes, placement)])


def trained(models, params, placement: Placement, accumulate: int = 1) -> tuple[TrainState, np.ndarray]:
    """The state and the losses after STEPS steps."""
    layout, codebook = models.layout, params["tokenizer"]["codebook"]
    recipe = Recipe(STEPS, BATCH, lr=1e-3, warmup=5, weight_decay=0.05, ema=0.9, accumulate=accumulate)
    objective = Objective((0, 1), layout.steps // 2, losses.Weights(0.1, 1.0), "mse")
    step = stepper(recipe, objective, models, distance_of(objective, None, None), 0, placement)
    state = init_state(params["student"], recipe.optimizer(), placement)
    frozen, draw, seen = placement.whole({"codebook": codebook}), np.random.default_rng(0), []
    for i in range(STEPS):
        code = draw.integers(0, len(codebook), (BATCH, layout.tokens), np.int32)
        ids = np.arange(BATCH * i, BATCH * (i + 1), dtype=np.int32)
        batch = placement.batch({"id": ids, "cond": Cond(ids % tiny.CLASSES), "code": code})
        state, metrics = step(state, batch, frozen)
        seen.append(float(metrics["loss"]))
    return state, np.array(seen)


def trained_by(name: str, family: str, placement: Placement) -> tuple[TrainState, np.ndarray]:
    """The same of every objective, as a run does it: fresh noises, the teacher's pass, the score network."""
    models, params, objective, distance = objectives.case(name, family)
    recipe = Recipe(objectives.STEPS, BATCH, lr=1e-3, warmup=0, ema=0.9)
    step = stepper(recipe, objective, models, distance, 0, placement)
    given = recipe, objective, objectives.pairs(models.layout.tokens), Classes(tiny.CLASSES), "balanced", 0
    batch_at = batches(*given, placement)
    state = begin(recipe, objective, models, params["student"], params, 0, placement)
    frozen, seen = placement.whole(frozen_for(objective, models.tokenizer, params)), []
    for i in range(recipe.steps):
        state, metrics = step(state, placement.batch(batch_at(i)), frozen)
        seen.append(float(metrics["loss"]))
    return state, np.array(seen)


def tokenized(family: str, placement: Placement, watched: bool) -> tuple[TrainState, np.ndarray]:
    """A tokenizer's state and losses after STEPS against a discriminator; codes are revived on the way.

    `watched`: a classifier compares too, and a batch is two micro-batches.
    """
    sizes = {"ch": 16, "ch_mult": (1, 2), "z_channels": 8, "encoder_blocks": 0, "decoder_blocks": 0, "groups": 0}
    stack = ConvStack(**sizes, channels=1, attention=False, mid=False)
    tokenizer = {"llamagen": VQ(stack, 16, 4), "var": VQVAE(stack, 16, 4, sides=(1, 2, 4), moments=1.0)}[family]
    recipe = Recipe(STEPS, BATCH, lr=1e-3, warmup=2, ema=0.9, accumulate=1 + watched)
    aims = Aims(revive_every=3, l1=1.0, gan_weight=0.5, gan_width=16, gan_layers=1)
    judge = Classifier(8, patch=1)
    frozen = placement.whole(jax.jit(judge.init)(jax.random.key(3)))
    img = np.random.default_rng(1).uniform(-1, 1, (STEPS, BATCH, 8, 8, 1)).astype(np.float32)
    trainer = Trainer(tokenizer, recipe, aims, 0, judge.perceptual if watched else None)
    step, state, seen = tokenizer_stepper(trainer, placement), trainer.begin(trainer.start(img[0]), placement), []
    for some in img:
        state, metrics = step(state, placement.batch({"img": some}), frozen)
        seen.append(float(metrics["loss"]))
    return state, np.array(seen)


def check_objectives(family: str, placement: Placement) -> None:
    """A mesh minimises all that there is as one device does."""
    for name in objectives.ALL:
        (alone, wanted), (state, seen) = (trained_by(name, family, where) for where in (ALONE, placement))
        far = [relative(*map(jax.device_get, pair)) for pair in ((state.params, alone.params), (state.ema, alone.ema))]
        print(name, dict(placement.mesh.shape), "loss", abs(seen / wanted - 1).max(), "params, ema", far, flush=True)
        np.testing.assert_allclose(seen, wanted, rtol=1e-5)
        assert max(far) < 1e-5


def check_tokenizer(family: str, meshes: list[Placement]) -> None:
    """One device does what eight do: both players, codes and their average."""
    for watched, placements in ((True, meshes[:1]), (False, [Placement(make_mesh((1, 1))), *meshes])):
        alone, losses = tokenized(family, ALONE, watched)
        for placement in placements:
            state, seen = tokenized(family, placement, watched)
            far = [relative(jax.device_get(getattr(state, name)), getattr(alone, name)) for name in PLAYERS]
            loss = abs(seen / losses - 1).max()
            print(family, "tokenizer", dict(placement.mesh.shape), f"{watched=}", "loss", loss, *PLAYERS, far)
            np.testing.assert_allclose(seen, losses, rtol=1e-5)
            assert max(far) < 1e-5
    assert any(DATA in x.sharding.spec for x in jax.tree.leaves(state.discriminator))


def check_teacher(models, params, meshes: list[Placement], folder: Path, pace: Pace = Pace()) -> None:
    """Next-step prediction on meshes and on one device; conditions are dropped and codes replaced by the same draws."""
    given = params["teacher"]
    system: Any = SimpleNamespace(
        teacher=models.teacher,
        layout=models.layout,
        text=None,
        learned_init=lambda key, tokenizer: {"trunk": given["trunk"]},
        teacher_params=lambda trunk, tokenizer: given | {"trunk": trunk},
    )
    code = np.random.default_rng(2).integers(0, tiny.VOCAB, (40, models.layout.tokens))
    dropped = Regularization(0.3, 0.0, 0.2, dropout=0.1, drop_path=0.3)
    label, recipe = np.arange(40, dtype=np.int32) % tiny.CLASSES, Recipe(STEPS, BATCH, lr=1e-3, warmup=2, ema=0.9)
    found = [
        train_teacher(
            system, Course("teacher", folder / str(i), recipe, 0, placement), {}, code, label, dropped, pace=pace
        )
        for i, placement in enumerate([ALONE, *meshes])
    ]
    far, before = [relative(other, found[0]) for other in found[1:]], {"trunk": given["trunk"]}
    moved = relative(at(found[0], pace.table), at(before, pace.table))
    print("teacher", pace.share, far, "moved", moved)
    assert max(far) < 1e-5 < 1e-3 < moved
    if not pace.share:
        jax.tree.map(np.testing.assert_array_equal, *(put(x, pace.table, 0) for x in (found[-1], before)))


def check_restoring(folder: Path, state: TrainState, placements: list[Placement]) -> None:
    """What one mesh saved, every other one and a single device restore, bit by bit."""
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(STEPS, state)
    with Checkpoints(folder) as checkpoints:
        for placement in placements:
            like = placement.put(jax.tree.map(jnp.zeros_like, jax.device_get(state)))
            found, _ = checkpoints.restore(like)
            jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(state))
            assert jax.tree.map(lambda x: x.sharding, found) == jax.tree.map(lambda x: x.sharding, like)


def check_cut(state: TrainState, placement: Placement) -> None:
    """Parameters, their average and both moments are cut, and alike."""
    spec = {
        jax.tree_util.keystr(path): leaf.sharding.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if leaf.ndim
    }
    params = {path.removeprefix(".params"): axes for path, axes in spec.items() if path.startswith(".params")}
    assert all(axes == params[next(name for name in params if path.endswith(name))] for path, axes in spec.items())
    assert any(DATA in axes for axes in spec.values())
    assert placement.mesh.shape["model"] == 1 or any("model" in axes for axes in spec.values())


def main(family: str, folder: str) -> None:
    jax.config.update("jax_disable_most_optimizations", True)
    make, rules = MAKE[family]
    models, params = make()
    alone_codes, (alone, alone_losses) = codes(models, params, ALONE), trained(models, params, ALONE)
    meshes = [Placement(make_mesh(shape), rules, least=64) for shape in ((-1, 1), (4, 2))]
    for placement in meshes:
        np.testing.assert_array_equal(codes(models, params, placement), alone_codes)
        assert sampler(models, placement)._cache_size() == 1  # one program, padded batch and all
        state, seen = trained(models, params, placement)
        check_cut(state, placement)
        far = [relative(*map(jax.device_get, pair)) for pair in ((state.params, alone.params), (state.ema, alone.ema))]
        print(family, dict(placement.mesh.shape), "loss", abs(seen / alone_losses - 1).max(), "params, ema", far)
        np.testing.assert_allclose(seen, alone_losses, rtol=1e-5)
        assert max(far) < 1e-5
    check_restoring(Path(folder), state, [*meshes, ALONE])
    check_objectives({"llamagen": "raster", "var": "scales"}[family], meshes[0])
    check_teacher(models, params, meshes, Path(folder) / "teachers")
    for share in (0.0, 0.1):  # a trunk that stays beside its class table, or is slow
        pace = Pace(share, ("trunk", *TABLE[family]))
        check_teacher(models, params, meshes[1:], Path(folder) / f"teachers-{share}", pace)
    check_tokenizer(family, [dataclasses.replace(placement, rules=()) for placement in meshes])
    if family != next(iter(MAKE)):
        return  # what follows knows nothing of families
    _, seen = trained(models, params, meshes[0], accumulate=2)
    np.testing.assert_allclose(seen, alone_losses, rtol=1e-5)
    row = jnp.zeros(8, jnp.int32)
    given = meshes[0].put(params, fsdp=False), rng.stream(0, "pairs")
    text = sampler(models, meshes[0]).lower(given, *meshes[0].batch((row, Cond(row)))).compile().as_text()
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))


if __name__ == "__main__":
    main(*sys.argv[1:])
