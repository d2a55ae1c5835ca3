"""Data sets of tensorflow-datasets, prepared in array_record format, which can be read without TensorFlow.

Their names: NAME[/CONFIG][:VERSION][:SPLIT], or the folder of a prepared one, FOLDER[:SPLIT].
"""

import contextlib
import difflib
import io
import re
from typing import Any

from dd_jax.system.errors import UserError

VERSION = re.compile(r"(\d+|\*)\.(\d+|\*)\.(\d+|\*)")


def module(name: str) -> Any:
    """The module. UserError if it is not installed; `name`: what is to be read with it."""
    try:
        import tensorflow_datasets
    except ImportError:
        raise UserError(f"reading tfds:{name} needs tensorflow-datasets: pip install 'dd_jax[data]'") from None
    return tensorflow_datasets


def open_source(name: str, **more: Any) -> Any:
    """Examples of one split (train, where none is named), with a length, by index; `more`: as `decoders`, for tfds.

    Nothing is downloaded. UserError, one line, for a set that is not there or not prepared for this.
    """
    tfds = module(name)
    dataset, split = parse(name)
    try:
        if dataset.startswith(("/", "./", "../", "~")):
            return tfds.builder_from_directory(dataset).as_data_source(split=split, **more)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # its banner
                return tfds.data_source(dataset, split=split, download=False, **more)
        except ModuleNotFoundError:  # the set's own code wants TensorFlow; its files do not
            builder = tfds.core.read_only_builder.builder_from_files(dataset)
            return builder.as_data_source(split=split, **more)
    except Exception as error:  # whatever tfds says, at whatever length
        raise UserError(_told(f"tfds:{name}", dataset, error)) from error


def parse(name: str) -> tuple[str, str]:
    """(name with its version, split) of what stands behind `tfds:`."""
    dataset, _, rest = name.partition(":")
    version, _, split = rest.partition(":")
    if VERSION.fullmatch(version):
        return f"{dataset}:{version}", split or "train"
    return dataset, rest or "train"


def field(name: str, example: Any, wanted: str) -> Any:
    """A feature of an example. UserError that lists those there are."""
    if wanted not in example:
        raise UserError(f"tfds:{name} has the features {', '.join(example)}, and no {wanted!r}: choose another set")
    return example[wanted]


def _told(what: str, dataset: str, error: Exception) -> str:
    """One line of what went wrong, and what to do."""
    told, kind = str(error), type(error).__name__
    again = "NAME" if "/" in dataset[:2] or dataset[:1] in "~." else dataset
    prepare = f"tfds build {again} --file_format=array_record (preparing needs TensorFlow, reading does not)"
    if kind == "DatasetNotFoundError":
        names = [*re.findall(r"^\s*- (\S+)", told, re.MULTILINE)]
        near = difflib.get_close_matches(dataset.partition("/")[0].lower(), names, 3, 0.5)
        near_by = f"did you mean {' or '.join(near)}?" if near else "`python -m tensorflow_datasets` knows others"
        return f"{what}: tensorflow-datasets has no data set (config, version) of this name; {near_by}"
    if "file format" in told or "random access data source" in told:
        return f"{what} is prepared in another format than array_record: prepare it again, {prepare}"
    if "Could not read dataset info" in told:
        return f"{what} has no dataset_info.json: name the folder of a version, such as {dataset}/1.0.0"
    if "not been generated" in told or "No module named 'tensorflow'" in told or "could not find data" in told.lower():
        return f"{what} is not prepared here (in TFDS_DATA_DIR or ~/tensorflow_datasets): {prepare}"
    first = (told.strip().splitlines() or [kind])[0]
    first = re.sub(r'^Failed to construct dataset .*?}": | Here are .*', "", first)[:200]
    return f"{what} cannot be opened ({first}): write tfds:NAME[:VERSION][:SPLIT] of a prepared set"
