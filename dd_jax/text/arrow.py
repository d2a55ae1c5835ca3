"""Captions in Arrow's formats: parquet, and the IPC files that polars, Hugging Face's datasets and others write."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dd_jax.data import columns
from dd_jax.data.lines import Found
from dd_jax.system.errors import UserError

TEXT = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "null")
BAD = b"\xff"  # stands for a string that is not UTF-8, which Arrow does not hand out


def parquet(path: Path) -> Iterator[Found]:
    """Captions of a parquet file, a batch of rows at a time."""
    pa = _pyarrow(path)
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is no readable parquet file: {error}") from error
    at = _checked(path, file.schema_arrow)
    yield from _found(path, pa, (batch.column(0) for batch in file.iter_batches(columns=[file.schema_arrow.names[at]])))


def ipc(path: Path) -> Iterator[Found]:
    """Captions of an Arrow file or stream (Feather's second version is the former)."""
    pa = _pyarrow(path)
    try:
        source = pa.memory_map(str(path))
        file = source.read(6) == b"ARROW1"
        source.seek(0)
        reader = pa.ipc.open_file(source) if file else pa.ipc.open_stream(source)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is no readable Arrow file: {error}") from error
    at = _checked(path, reader.schema)
    batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if file else reader
    yield from _found(path, pa, (batch.column(at) for batch in batches))


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow as pa  # only here: nothing else needs it
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        told = "pip install 'dd_jax[parquet]', or save the captions as .jsonl"
        raise UserError(f"reading {path} needs pyarrow: {told}") from None
    return pa


def _checked(path: Path, schema: Any) -> int:
    """Index of the captions' column. UserError if it holds no text."""
    at = columns.column(path, schema.names)
    if not _text(schema.field(at).type):
        raise UserError(f"{path}: column {schema.names[at]} is {schema.field(at).type}, and captions are strings")
    return at


def _text(kind: Any) -> bool:
    """Is this type text, or lists, dictionaries or structs of it?"""
    if str(kind).startswith("struct<"):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        at = columns.find([field.name for field in fields], columns.NESTED)
        return at is not None and _text(fields[at].type)
    return str(kind) in TEXT or (hasattr(kind, "value_type") and _text(kind.value_type))


def _found(path: Path, pa: Any, arrays: Iterator[Any]) -> Iterator[Found]:
    number = 0
    try:
        for array in arrays:
            for cell in _cells(array):
                number += 1
                found = [*columns.captions(cell)]
                if not found:
                    yield number, None, "empty"
                for caption in found:
                    yield number, *columns.decoded(caption)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged behind row {number} ({error}): fetch it again") from error


def _cells(array: Any) -> Iterator[Any]:
    """Python's values; one by one where a string of the batch is not UTF-8."""
    try:
        yield from array.to_pylist()
    except UnicodeDecodeError:
        for one in array:
            try:
                yield one.as_py()
            except UnicodeDecodeError:
                yield BAD
