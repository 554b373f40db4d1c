"""Tensors printed as JSON, as TensorFlow Serving prints them."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from service.serving.errors import invalid
from service.serving.tensors import nbytes

_PRINTED = {
    np.dtype(name)
    for name in (
        *("float16", "float32", "float64", "bool", "object"),
        *("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"),
    )
}
_PER_VALUE = 128  # bytes of memory: an object, and its text three times
_BYTES_SUFFIX = "_bytes"


def printed_size(outputs: Mapping[str, np.ndarray]) -> int:
    """Return an upper bound of the memory that printing needs."""
    return sum(
        array.size * _PER_VALUE + (nbytes(array) * 12 if array.dtype == object else 0)
        for array in outputs.values()
    )


def predictions(outputs: Mapping[str, np.ndarray], is_row_format: bool) -> bytes:
    """Return the body of an answer to a predict request.

    Args:
        outputs: The outputs by name. A lone output is printed without its name.
        is_row_format: Whether the answer is in rows.

    Raises:
        tf.errors.InvalidArgumentError: If the outputs have no rows to print, or a type
            that JSON has no values of.
    """
    arrays = {name: _printable(name, outputs[name]) for name in sorted(outputs)}
    value: Any = _rows(arrays) if is_row_format else arrays
    if not is_row_format and len(arrays) == 1:
        (value,) = arrays.values()
    key = "predictions" if is_row_format else "outputs"
    return dumps({key: value}, all(map(_is_finite, arrays.values())))


def dumps(value: Any, is_finite: bool = True) -> bytes:
    """Return the JSON of objects, lists, arrays and byte strings.

    Args:
        value: What to print.
        is_finite: Whether all numbers are finite. If not, or if a string is not UTF-8,
            a slower printer is used. It also writes `NaN` and `Infinity`.
    """
    if is_finite:
        try:
            return orjson.dumps(value, _plain, orjson.OPT_SERIALIZE_NUMPY)
        except orjson.JSONEncodeError:
            pass  # a string that is not UTF-8
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return text.encode("utf-8", "surrogateescape")


def _rows(arrays: Mapping[str, np.ndarray]) -> Any:
    batch_size = None
    for name, array in arrays.items():
        if not array.ndim:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if batch_size not in (None, len(array)):
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} "
                f"expecting: {batch_size}"
            )
        batch_size = len(array)
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    return [
        dict(zip(arrays, row, strict=True))
        for row in zip(*arrays.values(), strict=True)
    ]


def _printable(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype not in _PRINTED:
        type_name = tf.as_dtype(array.dtype).name
        raise invalid(f"Failed to write JSON value for tensor type: {type_name}")
    if array.dtype == object and name.endswith(_BYTES_SUFFIX):
        encoded = np.empty(array.shape, object)
        for index, value in np.ndenumerate(array):
            encoded[index] = {"b64": base64.b64encode(value).decode()}
        return encoded
    return array


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _plain(value: Any) -> Any:
    """Return the Python values of an object that a printer does not know."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind == "f":
            # The double is made of the digits of the narrow number, so that 0.2 is
            # printed as 0.2 and not as 0.20000000298023224.
            return np.asarray(value).astype(str).astype(np.float64).tolist()
        return value.tolist()
    raise TypeError(f"no JSON for {type(value).__name__}")
