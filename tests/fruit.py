"""Pictures of two classes, and files of records that hold such, for tests of where pictures may lie."""

import io

import numpy as np
from array_record.python import array_record_module
from PIL import Image

CLASSES = ("apples", "pears")


def pixels(i: int) -> np.ndarray:
    """A picture of its own, wide, and of its class by its first byte."""
    img = np.random.default_rng(i).integers(0, 256, (16, 20, 3), np.uint8)
    img[..., 0] = 100 * (i % 2) + i
    return img


def png(i: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(i)).save(file, "PNG")
    return file.getvalue()


def records(path, rows):
    """Examples as TensorFlow packs them: of bytes, words, several of them, or whole numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for row in rows:
        writer.write(example(row))
    writer.close()
    return path


def example(row) -> bytes:
    if isinstance(row, bytes):
        return row
    found = b""
    for name, value in row.items():
        if isinstance(value, float):
            feature = field(2, field(1, np.float32(value).tobytes()))
        elif isinstance(value, list) and isinstance(value[0], str):
            feature = field(1, b"".join(field(1, text.encode()) for text in value))
        elif isinstance(value, list):
            feature = field(3, field(1, b"".join(varint(number % 2**64) for number in value)))
        else:
            value = value.encode() if isinstance(value, str) else value
            feature = (
                field(1, field(1, value)) if isinstance(value, bytes) else field(3, b"\x08" + varint(value % 2**64))
            )
        found += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, found)


def field(number: int, content: bytes) -> bytes:
    return varint(8 * number + 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([128 | number & 127]) + varint(number >> 7)
