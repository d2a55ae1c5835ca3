"""python -m dd_jax.metrics.score SAMPLES --reference REFERENCE --protocol adm --inception weights/inception

Scores of anyone's samples, an .npz with `arr_0` (uint8, N x R x R x 3) or a folder of pictures, against anyone's
reference: ADM's .npz files, statistic.pth, clean-fid's .npz, or what `python -m dd_jax.metrics.reference` wrote.
The result, one JSON object, says how it was made; --json also writes it to a file.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dd_jax.data import images
from dd_jax.data.images import Images
from dd_jax.metrics import inception, neighbours, protocols, scores
from dd_jax.metrics.features import Extractor
from dd_jax.metrics.protocols import Protocol
from dd_jax.metrics.reference import Reference, read
from dd_jax.system import files, hub, runtime
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress

FEATURES = {"fid": "pool3", "sfid": "spatial", "inception_score": "logits_unbiased"}  # what a score looks at


@dataclasses.dataclass(frozen=True)
class Options:
    """What a result may differ in under one protocol; all of it is written into the result."""

    distances: str = "float32"  # of precision and recall; "float16" rounds like the ADM evaluator
    extras: bool = False  # standard error and FID-infinity
    forced: bool = False  # a reference of another protocol or network

    def __post_init__(self) -> None:
        if self.distances not in neighbours.DTYPES:
            raise UserError(f"distances in {self.distances!r}: choose one of {', '.join(neighbours.DTYPES)}")


def score(extractor: Extractor, samples: Images, reference: Reference, options: Options = Options()) -> dict[str, Any]:
    """All scores of the protocol, and everything that they depend on. None: the reference does not allow it.

    UserError for statistics of another protocol or other weights (unless forced), before any image is read.
    """
    begin, about = time.perf_counter(), extractor.inception.about
    if not options.forced:
        reference.refuse(extractor.protocol.name, about.get("sha256"))
    wanted = [name for score, name in FEATURES.items() if score in extractor.protocol.scores]
    made, digest = extractor.collect(samples, wanted)
    numbers = compute(made, reference, extractor, options)
    count, protocol = len(made["pool3"]), extractor.protocol
    return {
        "format": 1,
        "protocol": protocol.name,
        **numbers,
        "n": count,
        "fast": count < protocol.count,  # for curves: FID falls with n, never compare it with a full one
        "samples": {**samples.about(), "sha256": digest},
        "reference": {"protocols": list(reference.protocols), **reference.about},
        "weights": {key: about.get(key) for key in ("id", "sha256", "origin")},
        **dataclasses.asdict(options),
        "precision_of_products": extractor.precision,
        "is_split": protocol.is_split if "inception_score" in protocol.scores else None,
        "device": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
        "jax": jax.__version__,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def compute(
    made: dict[str, np.ndarray], reference: Reference, extractor: Extractor, options: Options
) -> dict[str, float | None]:
    """The numbers alone, from features of the samples."""
    protocol, pool3 = extractor.protocol, made["pool3"]
    found: dict[str, float | None] = dict.fromkeys(protocol.scores)
    found["fid"] = scores.frechet_to(pool3, *reference.pool3)
    if "sfid" in found and reference.spatial is not None:
        found["sfid"] = scores.frechet_to(made["spatial"], *reference.spatial)
    if "inception_score" in found:
        mean, spread = scores.inception_score(made["logits_unbiased"], protocol.is_split)
        found |= {"inception_score": mean, "inception_score_std": spread}
    if "precision" in found and (real := features_of(reference, extractor)) is not None:
        with Progress(2 * len(real) + len(pool3), "neighbours", "rows") as bar:
            pair = scores.precision_recall(real, pool3, protocol.neighbours, dtype=options.distances, done=bar.update)
        found |= dict(zip(("precision", "recall"), pair, strict=True)) | {"precision_recall_reference": len(real)}
    if options.extras:
        found["fid_standard_error"] = scores.standard_error(pool3, *reference.pool3)
        enough = len(pool3) > 2 * pool3.shape[1]
        found["fid_infinity"] = scores.extrapolate(pool3, *reference.pool3) if enough else None
    return found


def features_of(reference: Reference, extractor: Extractor) -> np.ndarray | None:
    """Features of reference images: kept ones, or made from the images in the file, or None."""
    if reference.features is None and reference.images is not None:
        return extractor.collect(images.open_images(reference.images), ("pool3",))[0]["pool3"]
    return reference.features


def table(result: dict[str, Any], protocol: Protocol) -> str:
    """The numbers for people, one line each."""
    label = f"fast, {result['n']} samples: not comparable with {protocol.count}" if result["fast"] else "full"
    lines = [f"{protocol.name} ({label})"]
    for name in (*protocol.scores, "fid_standard_error", "fid_infinity"):
        if name in result:
            value = result[name]
            lines.append(f"  {name:<20}" + ("not with this reference" if value is None else f"{value:.4f}"))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser("python -m dd_jax.metrics.score", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("samples", help="an .npz with arr_0, an .npy, a folder of pictures, or tfds:NAME")
    parser.add_argument("--reference", required=True, type=Path, help="statistics of real images")
    parser.add_argument("--protocol", required=True, help=", ".join(protocols.PROTOCOLS))
    parser.add_argument(
        "--inception", required=True, type=hub.path, help="what `python -m port_weights inception` wrote"
    )
    parser.add_argument("--resolution", type=int, help="make squares of so many pixels of pictures of any size")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--batch", type=int, default=64, help="images of a step, over all devices")
    parser.add_argument(
        "--products", default="highest", help="precision of products: " + ", ".join(inception.PRECISIONS)
    )
    parser.add_argument(
        "--distances", default="float32", help="float16: precision and recall as ADM's code rounds them"
    )
    parser.add_argument("--extras", action="store_true", help="standard error by bootstrap, and FID-infinity")
    parser.add_argument("--force", action="store_true", help="a reference of another protocol; the result says so")
    args = parser.parse_args()
    try:
        files.spelled_in(args, "samples")
        runtime.setup()
        _run(args)
    except UserError as error:
        sys.exit(f"error: {error}")


def _run(args: argparse.Namespace) -> None:
    protocol, options = protocols.find(args.protocol), Options(args.distances, args.extras, args.force)
    samples = images.open_images(args.samples, args.resolution, protocol.crop, protocol.mixed)
    reference = read(args.reference)
    if not options.forced:
        reference.refuse(protocol.name)
    extractor = Extractor(inception.load(args.inception), protocol, args.batch, args.products)
    result = score(extractor, samples, reference, options)
    for told in (samples.told(), reference.about.get("note")):
        if told:
            print(told)
    print(table(result, protocol))
    text = json.dumps(result, indent=1) + "\n"
    print(text if args.json is None else f"wrote {files.replace(args.json, text.encode())}")


if __name__ == "__main__":
    main()
