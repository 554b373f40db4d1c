"""Regular tensors of numbers, read from JSON without a Python object for each number.

simdjson makes one flat array of nested lists of numbers. Whether the lists are regular
is seen from the brackets and commas of the body: they must be those of the expected
shape. If all values are lists of numbers and all keys are names of inputs, the body has
no other brackets and commas. Every other body is left to `predict_request.py`, which
reads it a hundred times more slowly and knows TensorFlow Serving's messages.
"""

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import simdjson
import tensorflow as tf

Types = Mapping[str, tf.DType]

ROWS = "instances"
COLUMNS = "inputs"
FLOATS: Mapping[tf.DType, type[np.floating]] = {
    tf.float32: np.float32,
    tf.float64: np.float64,
}
INTEGERS = (
    *(tf.int8, tf.int16, tf.int32, tf.int64),
    *(tf.uint8, tf.uint32, tf.uint64),
)
MOST_DIMENSIONS = 32

# For each type, simdjson's name of it and the range of numbers that surely fit. The
# flat array does not tell whole numbers from others, so the range of a float ends where
# whole numbers stop to be exact.
_RANGES: Mapping[tf.DType, tuple[str, int, int]] = {
    **{d: ("u" if d.is_unsigned else "i", d.min, d.max) for d in INTEGERS},
    tf.float32: ("d", 1 - 2**24, 2**24 - 1),
    tf.float64: ("d", 1 - 2**53, 2**53 - 1),
}
_WIDE = {"d": np.float64, "u": np.uint64, "i": np.int64}
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[],"))


class _Parsers(threading.local):
    """A parser for each thread, since a new one takes three times as long.

    A parser keeps the memory that it has allocated, so very large bodies get a new
    one.
    """

    most_bytes = 8 * 2**20

    def __init__(self) -> None:
        self._parser = simdjson.Parser()

    def parse(self, body: bytes) -> Any:
        """Return the document of a body.

        Raises:
            ValueError, RuntimeError: If it is not JSON, or has a very large integer.
        """
        if len(body) > self.most_bytes:
            return simdjson.Parser().parse(body)
        try:
            return self._parser.parse(body)
        except RuntimeError:  # an earlier document is still in use
            self._parser = simdjson.Parser()
            return self._parser.parse(body)


_PARSERS = _Parsers()


def parse(body: bytes) -> simdjson.Object | None:
    """Return the document if it surely is an object that may be a request."""
    try:
        document = _PARSERS.parse(body)
    except (ValueError, RuntimeError):  # the latter for integers of more than 64 bits
        return None
    if not isinstance(document, simdjson.Object):
        return None
    return document if isinstance(document.get("signature_name", ""), str) else None


def read(document: Any, body: bytes, types: Types) -> dict[str, np.ndarray] | None:
    """Return the tensors of a predict request.

    Args:
        document: What `parse` has returned for the body.
        body: The body.
        types: The type of each input.

    Returns:
        The tensors, or `None` if they may be anything but regular numbers of these
        types.
    """
    if not isinstance(document, simdjson.Object) or any(
        set("[],") & set(name) or dtype not in _RANGES for name, dtype in types.items()
    ):
        return None
    keys = set(document)
    lists = keys - {"signature_name"}
    if lists not in ({ROWS}, {COLUMNS}):
        return None
    (key,) = lists
    rows, is_list = _rows(key, document[key], types)
    if not rows or rows[0].keys() != types.keys():
        return None
    shapes = {name: _outer_shape(values) for name, values in rows[0].items()}
    structure = body.translate(None, _NOT_STRUCTURE)
    if "signature_name" in keys:
        structure = structure.strip(b",")
    if not _is_structure(structure, list(shapes.values()), len(rows), is_list):
        return None
    try:
        arrays = {name: _array(rows, name, types[name], shapes[name]) for name in types}
    except (AttributeError, TypeError, ValueError):
        return None
    if not is_list:
        arrays = {name: array[0] for name, array in arrays.items()}
    return arrays


def _rows(key: str, values: Any, types: Types) -> tuple[list[dict[str, Any]], bool]:
    """Return each row's tensors by name, and whether the rows are a list."""
    if isinstance(values, simdjson.Object):
        return ([_members(values)] if key == COLUMNS else []), False
    if not isinstance(values, simdjson.Array) or not len(values):
        return [], False
    if not isinstance(values[0], simdjson.Object):
        return [dict.fromkeys(types, values)], False
    if key == COLUMNS:
        return [], False
    rows = [_members(row) for row in values if isinstance(row, simdjson.Object)]
    names = list(rows[0])
    is_regular = len(rows) == len(values) and all(list(row) == names for row in rows)
    return (rows, True) if is_regular else ([], True)


def _members(row: simdjson.Object) -> dict[str, Any]:
    """Return the values by name; `items()` would make an object of every number."""
    return {name: row[name] for name in row}


def _outer_shape(values: Any) -> list[int]:
    """Return the length of the first list, of the first list in it, and so on."""
    shape: list[int] = []
    while isinstance(values, simdjson.Array) and len(shape) <= MOST_DIMENSIONS:
        shape.append(len(values))
        if not shape[-1]:
            return []
        values = values[0]
    return shape


def _is_structure(
    structure: bytes, shapes: Sequence[list[int]], rows: int, is_list: bool
) -> bool:
    """Return whether the brackets and commas are those of `rows` rows of the shapes."""
    if not all(shapes) or any(len(shape) > MOST_DIMENSIONS for shape in shapes):
        return False
    length = rows * (sum(map(_length, shapes)) + len(shapes)) - 1 + 2 * is_list
    if len(structure) != length:  # seen before anything of that length is made
        return False
    row = b",".join(map(_nested, shapes))
    expected = b",".join([row] * rows)
    return structure == (b"[" + expected + b"]" if is_list else expected)


def _nested(shape: list[int]) -> bytes:
    structure = b""
    for size in reversed(shape):
        structure = b"[" + b",".join([structure] * size) + b"]"
    return structure


def _length(shape: list[int]) -> int:
    """Return the length of `_nested(shape)`."""
    length = 0
    for size in reversed(shape):
        length = size * (length + 1) + 1
    return length


def _array(
    rows: list[dict[str, Any]], name: str, dtype: tf.DType, shape: list[int]
) -> np.ndarray:
    """Return one input of all rows.

    Raises:
        AttributeError: If a value is not a list but, say, a string with brackets in it.
        TypeError, ValueError: If a value may be of another type, or the number of
            values is not that of the shape.
    """
    kind, lowest, highest = _RANGES[dtype]
    wide = _WIDE[kind]
    parts = [np.frombuffer(row[name].as_buffer(of_type=kind), wide) for row in rows]
    if any(part.size != math.prod(shape) for part in parts):
        raise ValueError("an empty list among lists of one number")
    flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if flat.min() < lowest or flat.max() > highest:
        raise ValueError("a number too large")
    return flat.astype(dtype.as_numpy_dtype).reshape(len(rows), *shape)
