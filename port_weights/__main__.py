"""python -m port_weights list
python -m port_weights MODEL [MODEL ...] [--src FILE ...] [--out DIR]
python -m port_weights --export FOLDER [--out FILE.safetensors]

Published PyTorch weights -> folders that dd_jax and every config read, and back. Without --src a file is
downloaded. PyTorch is not needed, and nothing in a file is ever executed.

    python -m port_weights vq16 llamagen_l_dd --out weights
    python -m port_weights llamagen_l --src ~/Downloads/c2i_L_256.pt
    python -m port_weights lpips_vgg --src vgg16-397923af.pth vgg.pth
    python -m port_weights flan_t5_xl --src FOLDER --dtype bfloat16

A model in several shards is named by its folder, its index JSON, or all of its files.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dd_jax.factory import frozen
from dd_jax.system import files, weights
from dd_jax.system.errors import UserError
from port_weights import catalog, download, rules, shards
from port_weights.catalog import CATALOG, Known, find
from port_weights.source import merge, open_weights


def table() -> str:
    """All known models, one a line."""
    lines = [f"{'model':<21}{'what':<11}{'parameters':>14}{'float32':>10}  published as"]
    for known in CATALOG.values():
        count = known.parameters
        size = f"{count * 4 / 1e9:.2f} GB"
        lines.append(f"{known.id:<21}{known.part:<11}{count:>14,}{size:>10}  {known.repo} {known.file}")
    return "\n".join(lines)


def fetch(known: Known, out: Path) -> Path | list[Path]:
    """Download a model's file or files. UserError that says what to fetch by hand where that fails."""
    if known.urls:
        return download.fetch(known.id, known.urls, known.sha256, out)
    links = " and ".join(f"https://huggingface.co/{known.repo}/resolve/main/{name}" for name in known.files)
    by_hand = (
        f"fetch {links} on a machine that can, "
        f"then run: python -m port_weights {known.id} --src {Path(known.files[0]).name} --out {out}"
    )
    try:
        from huggingface_hub import hf_hub_download  # only here: it is slow to import

        found = [Path(hf_hub_download(known.repo, name)) for name in known.files]
    except Exception as error:  # no network, no such file, no space: all end in the same advice
        names = " and ".join(known.files)
        raise UserError(f"cannot download {names} ({type(error).__name__}); {by_hand}") from error
    return found if len(found) > 1 else found[0]


def port(
    known: Known, source: Path | Sequence[Path], out: Path, containers: tuple[str, ...] = (), dtype: str = ""
) -> Path:
    """One published model, in a file or several -> the folder out/<id>; `dtype`: its numbers', if not as published."""
    named = [source] if isinstance(source, Path) else list(source)
    sources = [path for path in named if path.name not in known.beside]
    if known.shards:
        sources = shards.find(sources)
        state_dict = shards.open_shards(sources, containers or known.containers)
    else:
        state_dict = merge([open_weights(path, containers or known.containers) for path in sources])
    names, table = " + ".join(path.name for path in sources), known.table()
    try:
        params, config = rules.convert(state_dict, table, known.expected()), known.settle(state_dict)
    except UserError as error:
        raise UserError(f"{' + '.join(map(str, sources))} as {known.id}: {error}") from None
    dropped = [key for key in state_dict if table.stray(key)]
    if dropped:
        more = f" and {len(dropped) - rules.SHOWN} more" if len(dropped) > rules.SHOWN else ""
        print(f"left out, since it is not needed: {', '.join(dropped[: rules.SHOWN])}{more}")
    about = {
        **known.about(config),
        "source": {"file": names, "sha256": " + ".join(map(weights.sha256, sources)), "dropped": dropped},
    }
    folder = weights.save(out / known.id, params, about, dtype)
    for name in known.beside:
        copy_beside(next((path for path in named if path.name == name), sources[0].parent / name), folder)
    return folder


def copy_beside(path: Path, folder: Path) -> None:
    """A file that comes with the weights, as it is; where it is missing, that is said."""
    if path.is_file():
        files.replace(folder / path.name, path.read_bytes())
    else:
        print(f"{path} is not there: put {path.name}, published beside the weights, into {folder} before you use them")


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
    parser.add_argument("--src", nargs="+", type=Path, help="files that are here already, model after model")
    parser.add_argument("--out", type=Path, help="where to write (default: weights)")
    parser.add_argument("--container", help="dotted name of the dict in the file, e.g. ema or trainer.ema_parameters")
    parser.add_argument("--dtype", default="", choices=weights.NAMES, help="of the numbers (default: as published)")
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
        sources = deal(known, args.src) if args.src else [fetch(one, out) for one in known]
        containers = (args.container,) if args.container is not None else ()
        for one, source in zip(known, sources, strict=True):
            print("wrote", port(one, source, out, containers, args.dtype))


def deal(known: Sequence[Known], src: Sequence[Path]) -> list[list[Path]]:
    """Which of the files are whose: as many as each model was published in, or one each."""
    if len(known) == 1 and known[0].shards:
        return [list(src)]
    counts = [max(1, len(one.urls)) for one in known]
    if len(src) == len(known):
        counts = [1] * len(known)
    if len(src) != sum(counts):
        wanted = ", ".join(f"{count} of {one.id} ({one.file})" for one, count in zip(known, counts, strict=True))
        raise UserError(f"--src has {len(src)} files and should have {wanted}")
    given = iter(src)
    return [[next(given) for _ in range(count)] for count in counts]


if __name__ == "__main__":
    main()
