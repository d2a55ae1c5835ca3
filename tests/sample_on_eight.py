"""python tests/sample_on_eight.py FOLDER: the samples of test_samples, on eight pretended devices.

A program of its own, since the number of devices is fixed when JAX starts.
"""

import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from test_samples import params, small, system

from dd_jax.stages import sample, sampler
from dd_jax.system.sharding import Placement, make_mesh


def main(folder: str) -> None:
    jax.config.update("jax_disable_most_optimizations", True)
    placement = Placement(make_mesh((-1, 1)), system().rules, least=64)
    assert placement.rows == 8
    config = small()
    sampling = sample.Sampling(
        system(), config, Path(folder), lambda *parts: {p: params()[p] for p in parts}, placement
    )
    assert sampling.batch == 8  # rounded up
    sample.run(sampling)
    text = sampler.sampler(system(), "S0", placement)
    given = {p: sampling.params[p] for p in sampling.parts("S0")}, sample.rng.stream(0, "sample")
    lowered = text.lower(given, *sampling._rows(sample.np.arange(8, dtype=sample.np.int32)))
    program = lowered.compile().as_text()
    assert not any(word in program for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))


if __name__ == "__main__":
    main(*sys.argv[1:])
