"""Regular tensors of numbers, read from JSON without a Python object for each number.

simdjson makes one flat array of nested lists of numbers. Whether the lists are regular
is seen from the brackets and commas of the body: they must be those of the expected
shape. If all values are lists of numbers and all keys are names of inputs, the body has
no other brackets and commas. Every other body is left to `predict_request.py`, which
reads it a hundred times more slowly and knows TensorFlow Serving's messages.
"""

import math
from collections import deque
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

# For each type, simdjson's name of it.
_KINDS: Mapping[tf.DType, str] = {
    **{dtype: "u" if dtype.is_unsigned else "i" for dtype in INTEGERS},
    **dict.fromkeys(FLOATS, "d"),
}
_WIDE = {"d": np.float64, "u": np.uint64, "i": np.int64}
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[],"))


# The most bytes of memory that one byte of a body may need, and what is counted in
# larger bodies: a bracket or comma with the number after it, a member with its name.
_MOST_PER_BYTE = 48
_SMALL = 2**20
_SIZES = {b"[": 64, b",": 48, b"{": 512, b":": 320}

# A new parser takes three times as long. It keeps the memory that it has allocated, so
# a few are kept, and none that has read a large body.
_MOST_KEPT = 4
_LARGEST_KEPT = 2 * 2**20
_kept: deque[simdjson.Parser] = deque(maxlen=_MOST_KEPT)

# For each byte of a body a parser has one for its copy, 8 for numbers and lists, 5 / 3
# for strings, and 4 for where they begin.
MOST_KEPT = _MOST_KEPT * _LARGEST_KEPT * 15
"""The most bytes that the parsers have that are kept."""


def parsed_size(body: bytes) -> int:
    """Return an upper bound of the memory that `parse` and `read` need for a body."""
    if len(body) <= _SMALL:
        return _MOST_PER_BYTE * len(body)
    return 3 * len(body) + sum(
        body.count(token) * size for token, size in _SIZES.items()
    )


def parse(body: bytes) -> simdjson.Object | None:
    """Return the document if it surely is an object that may be a request."""
    try:
        parser = _kept.pop() if len(body) <= _LARGEST_KEPT else simdjson.Parser()
    except IndexError:
        parser = simdjson.Parser()
    try:
        document = parser.parse(body)
    except (ValueError, RuntimeError):  # the latter for integers of more than 64 bits
        return None
    if not isinstance(document, simdjson.Object):
        return None
    return document if isinstance(document.get("signature_name", ""), str) else None


def keep(parser: Any, body: bytes) -> None:
    """Keep the parser that has read a body. Its document must be freed."""
    if len(body) <= _LARGEST_KEPT:
        _kept.append(parser)


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
        set("[],") & set(name) or dtype not in _KINDS for name, dtype in types.items()
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
    expected = _repeated(row, rows)
    return structure == (b"[" + expected + b"]" if is_list else expected)


def _nested(shape: list[int]) -> bytes:
    structure = b""
    for size in reversed(shape):
        structure = b"[" + _repeated(structure, size) + b"]"
    return structure


def _repeated(structure: bytes, count: int) -> bytes:
    """Return a structure as often as this, with commas between.

    To join a list, Python would allocate 88 bytes for each of its items.
    """
    return memoryview((structure + b",") * count)[:-1].tobytes()


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
    kind = _KINDS[dtype]
    wide = _WIDE[kind]
    parts = [np.frombuffer(row[name].as_buffer(of_type=kind), wide) for row in rows]
    if any(part.size != math.prod(shape) for part in parts):
        raise ValueError("an empty list among lists of one number")
    flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if dtype in INTEGERS and (flat.min() < dtype.min or flat.max() > dtype.max):
        raise ValueError("a number too large")
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        return flat.astype(dtype.as_numpy_dtype).reshape(len(rows), *shape)
