"""Statistics as other tools leave them: mean and covariance of features, or the features themselves.

| file | of | holds |
|---|---|---|
| .npz | pytorch-fid, clean-fid, ADM, EDM, TTUR | mu, sigma; ADM also mu_s, sigma_s, arr_0 |
| .npz, .npy | clean-fid (for KID) and many scripts | feats, or an array (N, 2048) |
| .pth | the authors of Distilled Decoding | m, s |
| .pt | torch-fidelity's cache | mu, sigma, or a tensor (N, 2048) |
| .pkl | EDM2 | {"fid": {"mu", "sigma"}} |
| .pkl | StyleGAN2-ADA and 3, gan-metrics | raw_mean, raw_cov: sums, not means |

Pickles are read by the allow-list of `torch_file`: nothing in them is executed.
"""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.metrics import moments
from dd_jax.system import numpy_pickle
from dd_jax.system.errors import UserError
from dd_jax.system.torch_file import Unpickler

ANY = ("clean", "pytorch_fid", "adm")
TENSORFLOW = ("adm",)  # resized as TensorFlow 1 does
WANTED = ("mu", "sigma", "mu_s", "sigma_s", "pool3", "about", "feats")
WAY = "python -m dd_jax.metrics.reference makes them from images"


@dataclasses.dataclass(frozen=True)
class Found:
    """What a file holds: mu and sigma, and more of `WANTED`; `protocols`: under which they may have been made."""

    arrays: dict[str, np.ndarray]
    protocols: tuple[str, ...] = ANY
    images: bool = False  # there are images beside the statistics
    note: str = ""


def read(path: Path) -> Found:
    """The statistics in a file, whatever its name. UserError, with what to do, for one that holds none."""
    with path.open("rb") as file:
        head = file.read(32)
    try:
        found = _archive(path) if head.startswith(b"PK\x03\x04") else _single(path, head)
    except UserError:
        raise
    except Exception as error:  # readers of headers and archives raise whatever damage leads them to
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            told = "np.savez(FILE, mu=mu, sigma=sigma) saves them as numbers"
            raise UserError(f"{path} holds Python objects, which are not read: {told}") from error
        raise UserError(f"{path} is no readable {path.suffix or 'file'} ({error}): fetch or record it again") from error
    if {"mu", "sigma"} <= found.arrays.keys():
        return found
    told = ", ".join([*found.arrays, *["arr_0 (images)"] * found.images]) or "nothing known"
    raise UserError(f"{path} holds {told}, no statistics mu and sigma: {WAY}")


def _archive(path: Path) -> Found:
    """An .npz, images left where they are, or what torch.save wrote."""
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("data.pkl") for name in archive.namelist()):
            return _torch(path)
    with np.load(path, allow_pickle=False) as arrays:
        found, others = {key: arrays[key] for key in WANTED if key in arrays.files}, {*arrays.files} - {*WANTED}
    if "feats" in found:
        return _features(path, found["feats"])
    if {"mu", "sigma"} <= found.keys():
        note = "" if {"about", "mu_s"} & found.keys() else _UNSAID
        return Found(found, ("adm",) if "mu_s" in found else ANY, "arr_0" in others, note)
    return Found(found | dict.fromkeys(sorted(others - {"arr_0"}), np.zeros(0)), images="arr_0" in others)


_UNSAID = "mu and sigma alone: the file does not say under which protocol they were made"


def _single(path: Path, head: bytes) -> Found:
    """An .npy, a pickle, or PyTorch's old format, which is several pickles."""
    if head.startswith(b"\x93NUMPY"):
        return _features(path, np.load(path, mmap_mode="r", allow_pickle=False))
    if head[:1] == b"\x80" and b"\x8a\nl\xfc\x9cF\xf9" not in head:
        return _pickle(path)
    if head[:1] == b"\x80":
        return _torch(path)
    if head.startswith(b"version https://g"):
        raise UserError(f"{path} is a pointer of Git LFS, not the file itself: git lfs pull fetches it")
    if head.lstrip()[:1] == b"<":
        raise UserError(f"{path} is a page of HTML, not the file itself: download it again")
    kinds = ".npz, .npy, .pth, .pt and .pkl files of statistics are read"
    raise UserError(f"{path} is no readable {path.suffix or 'file'}: {kinds}; fetch or record it again")


def _features(path: Path, x: np.ndarray) -> Found:
    if x.ndim == 4:
        raise UserError(f"{path} holds images {x.shape}, no statistics: {WAY}")
    if x.ndim != 2 or not np.issubdtype(x.dtype, np.floating):
        raise UserError(f"{path} holds {x.dtype} of shape {x.shape}: features are floats (N, 2048), or mu and sigma")
    features = np.asarray(x, np.float32)
    mean, cov = moments.statistics(features)
    note = f"made from {len(features)} features: the file does not say under which protocol they were made"
    return Found({"mu": mean, "sigma": cov, "pool3": features}, note=note)


def _torch(path: Path) -> Found:
    from dd_jax.system.torch_old import open_torch  # only here: nothing else of the library reads PyTorch's files

    file = open_torch(path)
    if not isinstance(file.tree, dict):
        return _features(path, file.array(file.tree))
    for names, protocols, note in ((("m", "s"), ("pytorch_fid",), ""), (("mu", "sigma"), ANY, _UNSAID)):
        if {*names} <= file.tree.keys():
            mean, cov = (file.array(file.tree[name]) for name in names)
            return Found({"mu": mean, "sigma": cov}, protocols, note=note)
    told = ", ".join(map(str, file.tree))[:80]
    raise UserError(f"{path} holds no m and s, as a statistic.pth does, nor mu and sigma, but {told}")


class _Pickle(Unpickler):
    """NVIDIA's scripts keep dicts of a class of their own."""

    def find_class(self, module: str, name: str) -> Any:
        return dict if (module, name) == ("dnnlib.util", "EasyDict") else super().find_class(module, name)


def _pickle(path: Path) -> Found:
    try:
        with path.open("rb") as file:
            tree = _Pickle(file).load()
    except UserError as error:
        raise UserError(f"{path}: {error}; np.savez(FILE, mu=mu, sigma=sigma) keeps no more than is needed") from None
    except Exception as error:  # a mutated pickle can raise anything; none of it ran
        raise UserError(f"{path} is no readable pickle ({type(error).__name__}: {error})"[:300]) from error
    note = "features of NVIDIA's port of the network, which resizes as TensorFlow 1 does"
    tree = tree if isinstance(tree, dict) else {}
    if isinstance(tree.get("fid"), dict):
        mean, cov = (_array(path, tree["fid"].get(name)) for name in ("mu", "sigma"))
    elif {"mu", "sigma"} <= tree.keys():
        mean, cov, note = _array(path, tree["mu"]), _array(path, tree["sigma"]), _UNSAID
        return Found({"mu": mean, "sigma": cov}, note=note)
    elif {"raw_mean", "raw_cov", "num_items"} <= tree.keys():
        count = tree["num_items"]
        if tree["raw_mean"] is None or type(count) is not int or count < 2:
            raise UserError(f"{path} kept no mean and covariance (of {count} images): capture_mean_cov=True keeps them")
        mean = _array(path, tree["raw_mean"]) / count
        cov = _array(path, tree["raw_cov"]) / count - np.outer(mean, mean)
        note += f"; of {count} images"
    else:
        raise UserError(f"{path} holds {', '.join(map(str, tree))[:80] or 'no dict'}, no mu and sigma: {WAY}")
    return Found({"mu": mean, "sigma": cov}, TENSORFLOW, note=note)


def _array(path: Path, leaf: Any) -> np.ndarray:
    if isinstance(leaf, numpy_pickle.Array):
        return leaf.array
    raise UserError(f"{path} holds {type(leaf).__name__} where an array is expected: {WAY}")
