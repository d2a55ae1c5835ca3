"""A whole pipeline at toy size, made once and read by many tests."""

import gc
import importlib
import os
import shutil
from pathlib import Path

import jax
import pytest
from filelock import FileLock
from ml_collections import ConfigDict

from dd_jax import pipeline
from dd_jax.system import flops

# Compiling is what these tests spend their time on: let XLA do less of it (read when the first device is used). LLVM
# works on a program as a whole: cut into up to 32 parts, as by default, each costs more than a second core saves. XLA
# knows the first flag up to JAX 0.10, and ends a program that sets one it does not know.
if jax.__version_info__ < (0, 11):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1")


def tiny_config(family: str) -> ConfigDict:
    """The 8x8 demo, so small that compiling is all it costs."""
    config = importlib.import_module(f"dd_jax.configs.digits_{family}").get_config()
    config.data.copies = 1
    config.data.heldout_copies = 1
    config.tokenizer.stack.ch = 8
    config.tokenizer.stack.z_channels = 8
    config.model.width, config.model.depth, config.model.heads = 32, 1, 2
    for part in (config.pretrain.classifier, config.pretrain.tokenizer, config.pretrain.teacher, config.train):
        part.steps, part.batch, part.warmup, part.checkpoint_every = 12, 32, 4, 5
    config.train.grid_every = 6
    config.pairs.count, config.pairs.shard, config.pairs.batch = 96, 32, 32
    config.sample.count, config.sample.batch = 10, 10
    config.evaluate.count, config.evaluate.reference, config.evaluate.batch = 80, 80, 40
    config.evaluate.plans = ("S0", "S0 J2")
    config.evaluate.check_count = 40  # a batch: nothing is compiled for another size
    config.speed.batches, config.speed.repeats, config.speed.plans = (1,), 1, ("S0",)
    return config


@pytest.fixture(autouse=True, scope="session")
def quick_compiles():
    """The same: XLA's and LLVM's optimisation levels at their lowest, as far as JAX sets them."""
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True, scope="session")
def rare_collections():
    """Python's collector looks less often at what JAX keeps, and never at what was imported: 4 % of all time."""
    gc.freeze()
    gc.set_threshold(700, 10, 50)


@pytest.fixture(autouse=True, scope="session")
def exact_products():
    """float32 products in float32 on accelerators too, where JAX rounds their operands by default."""
    jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(autouse=True, scope="session")
def small_rates():
    """A machine's rates, which stages note, by products that take no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flops.matmul_rate, "__defaults__", (128, 1))
        patch.setattr(flops.stream_rate, "__defaults__", (256, 1))
        yield


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ConfigDict]:
    """A finished raster run: its folder and config. The first worker that needs it makes it, and all take a copy."""
    config, workdir = tiny_config("llamagen"), tmp_path_factory.mktemp("tiny") / "run"
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny_run"
    with FileLock(f"{shared}.lock"):
        if not (shared / "report.html").exists():
            pipeline.run(config, str(shared), "all")
        shutil.copytree(shared, workdir)
    return workdir, config
