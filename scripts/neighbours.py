"""Precision and recall at full size: peak memory, and time against that of the matrix products it cannot do without.

    python -m scripts.neighbours                                      # 10,000 x 50,000 in 2048 dimensions
    python -m scripts.neighbours --reference 1000 --samples 5000      # in seconds

All distances take 2 F (N^2 + M^2 + N M) FLOPs: the radii of both sets and one pass across. The rate is that of a large
float32 product at full precision, measured before and after. Features are noise; the work does not depend on them.
"""

import argparse
import json
import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.metrics import devices
from dd_jax.metrics.neighbours import DTYPES, HIGHEST, ROWS, precision_recall
from dd_jax.system import flops, runtime
from dd_jax.system.errors import UserError

SIDE = 4096  # columns of the product that sets the rate


@jax.jit
def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b.T, precision=HIGHEST)


def rate(rows: int, width: int) -> float:
    """FLOP/s of (rows, width) x (width, SIDE) on all devices, rows spread over them."""
    rows = -(-rows // devices.count()) * devices.count()
    a, b = devices.apart(np.ones((rows, width), np.float32)), devices.everywhere(np.ones((SIDE, width), np.float32))
    return 2.0 * rows * width * SIDE / flops.seconds(_product, a, b, repeats=3)


def measure(reference: int, samples: int, width: int, dtype: str) -> dict[str, float | str]:
    """Seconds, those of the products alone, their ratio, and gigabytes."""
    draw = np.random.default_rng(0)
    ref, sample = (draw.standard_normal((count, width), np.float32) for count in (reference, samples))
    precision_recall(ref[:64], sample[:64])
    before, first = _gigabytes(), rate(min(ROWS, samples), width)
    begin = time.perf_counter()
    precision, recall = precision_recall(ref, sample, dtype=dtype)
    seconds = time.perf_counter() - begin
    mean = (first + rate(min(ROWS, samples), width)) / 2
    products = 2.0 * width * (reference**2 + samples**2 + reference * samples) / mean
    return {
        "reference": reference,
        "samples": samples,
        "width": width,
        "distances": dtype,
        "seconds": round(seconds, 2),
        "products_seconds": round(products, 2),
        "ratio": round(seconds / products, 3),
        "gflops": round(mean / 1e9, 1),
        "features_gb": round(4e-9 * width * (reference + samples), 3),
        "peak_gb": round(_gigabytes(), 3),
        "peak_before_gb": round(before, 3),
        "precision": precision,
        "recall": recall,
        "device": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
    }


def _gigabytes() -> float:
    """Most memory that this process ever held, on the host."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser("python -m scripts.neighbours", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--reference", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--distances", choices=DTYPES, default="float32", help="float16: as ADM's code rounds them")
    args = parser.parse_args()
    if min(args.reference, args.samples, args.width) < 1:
        parser.error("--reference, --samples and --width are numbers from 1 on")
    try:
        runtime.setup()
        print(json.dumps(measure(args.reference, args.samples, args.width, args.distances), indent=1))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
