"""python -m port_weights list
python -m port_weights MODEL [MODEL ...] [--src FILE ...] [--out DIR]
python -m port_weights --export FOLDER [--out FILE.safetensors]

Published PyTorch weights -> folders that dd_jax and every config read, and back. Without --src a file is
downloaded from huggingface.co, the Inception of FID from github.com. PyTorch is not needed, and nothing in a
file is ever executed.

    python -m port_weights vq16 llamagen_l_dd --out weights
    python -m port_weights llamagen_l --src ~/Downloads/c2i_L_256.pt
"""

import argparse
import shutil
import sys
import urllib.request
from pathlib import Path

import numpy as np

from dd_jax import files, weights
from dd_jax.errors import UserError
from dd_jax.pipeline import frozen
from port_weights import catalog, rules
from port_weights.catalog import CATALOG, Known, find
from port_weights.source import open_weights


def table() -> str:
    """All known models, one a line."""
    lines = [f"{'model':<21}{'what':<11}{'parameters':>14}{'float32':>10}  published as"]
    for known in CATALOG.values():
        count = known.parameters
        size = f"{count * 4 / 1e9:.2f} GB"
        lines.append(f"{known.id:<21}{known.part:<11}{count:>14,}{size:>10}  {known.repo} {known.file}")
    return "\n".join(lines)


def fetch(known: Known, out: Path) -> Path:
    """Download a model's file. UserError that says what to fetch by hand where that fails."""
    by_hand = (
        f"fetch {known.url} on a machine that can, "
        f"then run: python -m port_weights {known.id} --src {Path(known.file).name} --out {out}"
    )
    try:
        return _from_release(known, out) if known.release else _from_hub(known)
    except Exception as error:  # no network, no such file, no space: all end in the same advice
        raise UserError(f"cannot download {known.file} ({type(error).__name__}); {by_hand}") from error


def _from_hub(known: Known) -> Path:
    from huggingface_hub import hf_hub_download  # only here: it is slow to import

    return Path(hf_hub_download(known.repo, known.file))


def _from_release(known: Known, out: Path) -> Path:
    """A file whose name ends in the first digits of its SHA-256; fetched once."""
    path, digits = out / known.file, Path(known.file).stem.split("-")[-1]
    if not path.exists():
        with urllib.request.urlopen(known.url, timeout=60) as answer, files.writing(path) as file:
            shutil.copyfileobj(answer, file)
    if not weights.sha256(path).startswith(digits):
        path.unlink()
        raise OSError(f"{path} does not begin with {digits}")
    return path


def port(known: Known, source: Path, out: Path, containers: tuple[str, ...] = ()) -> Path:
    """One published file -> the folder out/<id>."""
    state_dict = open_weights(source, containers or known.containers)
    table = known.table()
    try:
        params, config = rules.convert(state_dict, table, known.expected()), known.settle(state_dict)
    except UserError as error:
        raise UserError(f"{source} as {known.id}: {error}") from None
    dropped = [key for key in state_dict if table.stray(key)]
    if dropped:
        more = f" and {len(dropped) - rules.SHOWN} more" if len(dropped) > rules.SHOWN else ""
        print(f"left out, since no weights are in it: {', '.join(dropped[: rules.SHOWN])}{more}")
    about = {
        **known.about(config),
        "source": {"file": source.name, "sha256": weights.sha256(source), "dropped": dropped},
    }
    return weights.save(out / known.id, params, about)


def export(folder: Path, out: Path) -> Path:
    """A ported folder -> one safetensors file with the keys and layouts of the published one."""
    about = weights.describe(folder)
    config, part = frozen(about["config"]), about["part"]
    params = weights.load(folder, catalog.expected(config, part), verify=True)
    state_dict = rules.export(params, catalog.table(config, part))
    return weights.write_safetensors(out, {key: np.asarray(x) for key, x in state_dict.items()})


def main() -> None:
    parser = argparse.ArgumentParser("python -m port_weights", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("models", nargs="*", metavar="MODEL", help="ids, or `list` to see them all")
    parser.add_argument("--src", nargs="+", type=Path, help="files that are here already, one a model")
    parser.add_argument("--out", type=Path, help="where to write (default: weights)")
    parser.add_argument("--container", help="dotted name of the dict in the file, e.g. ema or trainer.ema_parameters")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="the way back, for PyTorch")
    args = parser.parse_args()
    try:
        _run(parser, args)
    except UserError as error:
        sys.exit(f"error: {error}")


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.export:
        print("wrote", export(args.export, args.out or Path(f"{args.export.name}.safetensors")))
    elif args.models == ["list"]:
        print(table())
    elif not args.models:
        parser.error("name a model, or `list`")
    else:
        out, known = args.out or Path("weights"), [find(name) for name in args.models]
        if args.src and len(args.src) != len(known):
            raise UserError(f"{len(known)} models and {len(args.src)} files: --src takes one file a model")
        containers = (args.container,) if args.container is not None else ()
        for i, one in enumerate(known):
            source = args.src[i] if args.src else fetch(one, out)
            print("wrote", port(one, source, out, containers))


if __name__ == "__main__":
    main()
