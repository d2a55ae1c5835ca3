"""Devices to compile for, there or not: a TPU slice (`v5e:4x4`), a node of GPUs (`h100x8`), or this machine's `cpu`."""

import importlib.util
import re
from typing import Any

import jax
from jax.experimental import topologies

from dd_jax.system.errors import UserError

# GiB that a program may use on one chip (what the compiler itself allows is a little less than the whole).
MEMORY = {"TPU v4": 32, "TPU v5 lite": 16, "TPU v5": 95, "TPU v6 lite": 32, "NVIDIA H100 80GB HBM3": 79}
# What XLA asks of a card (`GpuTargetConfigProto`), here of an H100 SXM; the same for all that have compiled for one.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 7 } runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
TOLD = {  # what a platform's compiler comes in
    "cuda": "pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12, of JAX's own version",
    "tpu": "pip install libtpu, of the version that JAX's [tpu] extra names",
}


def devices_of(name: str) -> list[Any]:
    """The devices of a topology by name. UserError if its compiler is not installed or knows no such slice."""
    if name == "cpu":
        return list(jax.devices("cpu"))
    gpus = re.fullmatch(r"h100x(\d+)", name)
    platform = "cuda" if gpus else "tpu"
    if importlib.util.find_spec("jax_cuda12_plugin" if gpus else "libtpu") is None:
        raise UserError(f"--topology={name} needs a compiler that is not installed: {TOLD[platform]}")
    try:
        if gpus:
            found = topologies.get_topology_desc(name, platform, target_config=H100, topology=f"1x1x{gpus[1]}")
        else:
            pair = {"chip_config_name": "megacore"} if name.startswith("v4:") else {}  # both cores as one device
            found = topologies.get_topology_desc(name, platform, **pair)
    except Exception as error:  # whatever the plugin says
        first = str(error).strip().splitlines()[0][:200]
        raise UserError(f"no topology {name} ({first}): TPU slices are named v5e:4x4, GPUs h100x8") from error
    return list(found.devices)
