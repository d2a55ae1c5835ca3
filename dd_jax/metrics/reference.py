"""python -m dd_jax.metrics.reference IMAGES --protocol adm --inception weights/inception --out REFERENCE.npz

What samples are compared with: means and covariances of features of real images, and some of the features. IMAGES
is a folder of pictures, an .npz with `arr_0` (statistics that an ADM reference file brings along are kept), an .npy, or
tfds:NAME[:VERSION][:SPLIT] from tensorflow-datasets.

    python -m dd_jax.metrics.reference VIRTUAL_imagenet256_labeled.npz --protocol adm --inception weights/inception
    python -m dd_jax.metrics.reference tfds:imagenet2012 --resolution 256 --protocol adm --inception weights/inception
"""

import argparse
import dataclasses
import hashlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.data import images
from dd_jax.data.images import Images
from dd_jax.metrics import inception, others, protocols
from dd_jax.metrics.features import Extractor
from dd_jax.metrics.moments import Moments
from dd_jax.system import files, hub, runtime, weights
from dd_jax.system.errors import UserError

Gaussian = tuple[np.ndarray, np.ndarray]  # mean (F,) and covariance (F, F)
KEEP = 10_000  # images whose features are kept for precision and recall, as many as ADM's files have
STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")


@dataclasses.dataclass(frozen=True)
class Reference:
    """Statistics of real images and what is known of them."""

    pool3: Gaussian
    protocols: tuple[str, ...]  # under which they may have been recorded
    spatial: Gaussian | None = None
    features: np.ndarray | None = None  # (M, 2048) pool3 of some of the images
    images: Path | None = None  # a file with images, where features have yet to be made
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def refuse(self, protocol: str, weights_sha256: str | None = None) -> None:
        """UserError unless they may be compared with samples under this protocol and with these weights."""
        name = self.about.get("file", "the reference")
        if protocol not in self.protocols:
            raise UserError(
                f"{name} was recorded under {' or '.join(self.protocols)}: its numbers mean nothing under {protocol}; "
                f"use --protocol {self.protocols[0]}, or record a reference of your own"
            )
        made = self.about.get("weights_sha256")
        if made and weights_sha256 and made != weights_sha256:
            raise UserError(f"{name} was recorded with other Inception weights ({made[:8]}): record it again")


def read(path: str | Path) -> Reference:
    """One of ours, an ADM reference .npz, statistic.pth of the DD authors, or what another tool wrote (see `others`).

    UserError for a file that is missing, damaged, or holds no statistics.
    """
    path = files.local(path)
    if not path.is_file():
        what = "is a folder: statistics are a file" if path.is_dir() else "is not there"
        raise UserError(f"no reference {path} ({what}): make one with python -m dd_jax.metrics.reference")
    found = others.read(path)
    file = {"file": path.name, "sha256": weights.sha256(path)}
    if "about" in found.arrays:
        return _ours(path, found.arrays, file)
    about = file | ({"note": found.note} if found.note else {})
    pool3 = _gaussian(found.arrays["mu"], found.arrays["sigma"], inception.POOL, path)
    spatial = None
    if {"mu_s", "sigma_s"} <= found.arrays.keys():
        spatial = _gaussian(found.arrays["mu_s"], found.arrays["sigma_s"], inception.SPATIAL, path)
    held = path if found.images else None
    return Reference(pool3, found.protocols, spatial, found.arrays.get("pool3"), held, about)


def _ours(path: Path, arrays: dict[str, np.ndarray], file: dict[str, str]) -> Reference:
    try:
        about = json.loads(str(arrays["about"]))
        return Reference(
            _gaussian(arrays["mu"], arrays["sigma"], inception.POOL, path),
            (about["protocol"],),
            _gaussian(arrays["mu_s"], arrays["sigma_s"], inception.SPATIAL, path),
            arrays["pool3"] if len(arrays["pool3"]) else None,
            about={**about, **file},
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not whole ({error}): record it again") from error


def _gaussian(mean: np.ndarray, cov: np.ndarray, width: int, path: Path) -> Gaussian:
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if mean.shape != (width,) or cov.shape != (width, width):
        raise UserError(f"{path} has statistics of shapes {mean.shape} and {cov.shape}, not of {width} dimensions")
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise UserError(f"{path} has statistics that are not finite: fetch or record it again")
    return mean, cov


def record(
    extractor: Extractor, source: Images, out: Path, keep: int = KEEP, published: Reference | None = None
) -> Path:
    """Features of all images -> `out`, an .npz: mu, sigma (pool3), mu_s, sigma_s (spatial), pool3 of `keep`, about.

    Images are never all in memory, nor are their features. `published` statistics take the place of the images' own.
    """
    pool3, spatial, digest, kept, seen = Moments(), Moments(), hashlib.sha256(), [], 0
    chosen = np.unique(np.linspace(0, source.count - 1, min(keep, source.count)).astype(int)) if keep else np.zeros(0)
    for made in extractor.stream(source, digest):
        pool3.add(made.pool3)
        spatial.add(made.spatial)
        kept.append(made.pool3[chosen[(chosen >= seen) & (chosen < seen + len(made.pool3))].astype(int) - seen])
        seen += len(made.pool3)
    about = {
        "format": 1,
        "protocol": extractor.protocol.name,
        **source.about(),
        "images_sha256": digest.hexdigest(),
        "count": seen,
        "published_statistics": published.about if published else None,
        "weights": extractor.inception.about.get("id"),
        "weights_sha256": extractor.inception.about.get("sha256"),
        "precision": extractor.precision,
    }
    gaussians = [published.pool3, published.spatial] if published else [pool3.statistics(), spatial.statistics()]
    arrays = dict(zip(STATISTICS, (x for pair in gaussians if pair for x in pair), strict=True))
    with files.writing(out) as file:
        np.savez(file, **(arrays | {"pool3": np.concatenate(kept), "about": np.array(json.dumps(about))}))  # type: ignore
    return out


def _published(source: str, protocol: str) -> Reference | None:
    """The statistics of a file that holds both them and images."""
    if not source.endswith(".npz") or not zipfile.is_zipfile(source):
        return None
    with np.load(source, allow_pickle=False) as archive:
        if not set(STATISTICS) <= set(archive.files):
            return None
    reference = read(source)
    reference.refuse(protocol)
    return reference


def main() -> None:
    parser = argparse.ArgumentParser("python -m dd_jax.metrics.reference", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("images", help="folder, .npz, or tfds:NAME[:SPLIT]")
    parser.add_argument("--protocol", required=True, help=", ".join(protocols.PROTOCOLS))
    parser.add_argument(
        "--inception", required=True, type=hub.path, help="what `python -m port_weights inception` wrote"
    )
    parser.add_argument("--out", type=Path, help="where to write (default: NAME_PROTOCOL.npz)")
    parser.add_argument("--resolution", type=int, help="make squares of so many pixels of photographs of any size")
    parser.add_argument("--keep", type=int, default=KEEP, help="images whose features precision and recall will use")
    parser.add_argument("--batch", type=int, default=64, help="images of a step, over all devices")
    args = parser.parse_args()
    try:
        files.spelled_in(args, "images")
        runtime.setup()
        protocol = protocols.find(args.protocol)
        source = images.open_images(args.images, args.resolution, protocol.crop, protocol.mixed)
        published = _published(args.images, protocol.name)
        extractor = Extractor(inception.load(args.inception), protocol, args.batch)
        name = Path(args.images).stem.replace(":", "_")
        out = args.out or Path(f"{name}_{protocol.name}.npz")
        print("wrote", record(extractor, source, out, args.keep, published))
        if source.told():
            print(source.told())
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
