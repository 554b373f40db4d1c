"""The values of one input, collected one by one by TensorFlow Serving's rules."""

from typing import Any

import numpy as np
import tensorflow as tf

from service.serving.dense import FLOATS, INTEGERS, MOST_DIMENSIONS
from service.serving.errors import invalid, unimplemented
from service.serving.json_values import (
    decode_base64,
    text_to_bytes,
    type_error,
    value_error,
)

# The other types have NumPy's names.
_TYPE_NAMES = {tf.float32: "float", tf.float64: "double", tf.float16: "half"}


class Column:
    """The values of one input, which all have one shape."""

    def __init__(self, dtype: tf.DType) -> None:
        self.shape: list[int] = []
        self._dtype = dtype
        self._type_name = _TYPE_NAMES.get(dtype, dtype.name)
        self._values: list[Any] = []
        self._size: int | None = None

    def add(self, value: Any) -> None:
        """Add a value, or nested lists of values.

        Raises:
            tf.errors.OpError: If its type or shape is another one.
        """
        shape = []
        first = value
        while isinstance(first, list):
            shape.append(len(first))
            first = first[0] if first else None
        _check_dimensions(len(shape))  # `_fill` calls itself as many times
        before = len(self._values)
        self._fill(value, 0, shape)
        size = len(self._values) - before
        if self._size is None:
            self._size, self.shape = size, shape
        elif self._size != size:
            raise invalid(f"Expecting tensor size: {self._size} but got: {size}")
        elif self.shape != shape:
            raise invalid(
                f"Expecting shape {_show_shape(self.shape)} "
                f"but got: {_show_shape(shape)}"
            )

    def array(self, shape: list[int]) -> np.ndarray:
        """Return all values as an array.

        Raises:
            tf.errors.OpError: If it has too many dimensions.
        """
        _check_dimensions(len(shape))
        array = np.empty(len(self._values), self._dtype.as_numpy_dtype)
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            array[:] = self._values
        return array.reshape(shape)

    def _fill(self, value: Any, level: int, shape: list[int]) -> None:
        if not isinstance(value, list):
            if level != len(shape):
                raise value_error(
                    value,
                    f"found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {len(shape)}",
                )
            self._values.append(self._convert(value))
        elif level >= len(shape):
            raise invalid(
                f"Encountered list at unexpected level: {level} expected < {len(shape)}"
            )
        elif len(value) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(value)} "
                f"at level: {level} expected size: {shape[level]}"
            )
        elif level + 1 == len(shape) and (converted := self._convert_all(value)):
            self._values.extend(converted)
        else:
            for item in value:
                self._fill(item, level + 1, shape)

    def _convert_all(self, values: list[Any]) -> list[Any] | None:
        """Convert values of one type at once; return `None` where each needs a look."""
        match set(map(type, values)), self._dtype:
            case kinds, tf.bool if kinds == {bool}:
                return values
            case kinds, tf.string if kinds == {str}:
                return list(map(text_to_bytes, values))
            case kinds, (tf.float32 | tf.float64) if kinds == {float}:
                return values
        return None

    def _convert(self, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        match self._dtype:
            case tf.string if isinstance(value, str):
                return text_to_bytes(value)
            case tf.string if isinstance(value, dict):
                return decode_base64(value)
            case tf.bool if isinstance(value, bool):
                return value
            case tf.float32 | tf.float64 if is_number:
                return float(value)
            case dtype if dtype in INTEGERS and is_number and isinstance(value, int):
                if dtype.min <= value <= dtype.max:
                    return value
            case dtype if dtype not in (*INTEGERS, *FLOATS, tf.string, tf.bool):
                raise unimplemented(
                    f"Conversion of JSON Value: {value} to type: {self._type_name}"
                )
        raise type_error(value, self._type_name)


def _check_dimensions(number: int) -> None:
    if number > MOST_DIMENSIONS:
        raise invalid(
            f"A tensor has at most {MOST_DIMENSIONS} dimensions. Received: {number}."
        )


def _show_shape(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
