"""The tensors of a predict request's JSON, by TensorFlow Serving's rules."""

from typing import Any

import numpy as np
import tensorflow as tf

from service.serving import dense
from service.serving.columns import Column
from service.serving.dense import COLUMNS, ROWS, Types
from service.serving.errors import invalid
from service.serving.json_values import (
    is_base64,
    parsed_size,
    read_document,
    read_signature_name,
    value_error,
)
from service.serving.room import Hold


class PredictRequest:
    """A predict request whose body is JSON, and whose tensors are read later.

    Their types are those of the model. A body that is not JSON must be refused before
    the model is looked for.

    Args:
        body: The body.
        hold: What the request holds of the room; from now on, what the body needs.

    Attributes:
        signature_name: The signature to run; "" is the default.
        is_row_format: Whether the answer must be in rows.

    Raises:
        tf.errors.OpError: If the body is not a JSON object, the name of the signature
            is not a string, or there is no room.
    """

    def __init__(self, body: bytes, hold: Hold) -> None:
        self._body = body
        self._hold = hold
        hold.change(dense.parsed_size(body))
        self._document: Any = dense.parse(body)
        if self._document is None:
            self._document = self._read()
        self.signature_name = read_signature_name(self._document)
        self.is_row_format = ROWS in self._document

    def tensors(self, types: Types) -> dict[str, np.ndarray]:
        """Return the tensors that a signature takes. They can be taken once.

        Args:
            types: The type of each input.

        Raises:
            tf.errors.OpError: If the body does not hold them, or there is no room.
        """
        document, self._document = self._document, None
        if not isinstance(document, dict):
            numbers = dense.read(document, self._body, types)
            parser = document.parser
            del document
            dense.keep(parser, self._body)
            if numbers is not None:
                return numbers
            del parser
            document = self._read()
        if ROWS in document and COLUMNS in document:
            raise value_error(
                document,
                "Not formatted correctly expecting only  "
                "one of 'inputs' or 'instances' keys to exist ",
            )
        if ROWS in document:
            return _from_rows(document, types)
        if COLUMNS in document:
            return _from_columns(document[COLUMNS], types)
        raise invalid("Missing 'inputs' or 'instances' key")

    def _read(self) -> dict[str, Any]:
        self._hold.change(parsed_size(self._body))
        return read_document(self._body)


def _from_rows(document: dict[str, Any], types: Types) -> dict[str, np.ndarray]:
    rows = document[ROWS]
    if not isinstance(rows, list):
        raise value_error(document, f"Excepting '{ROWS}' to be an list/array")
    if not rows:
        raise value_error(document, f"No values in '{ROWS}' array")
    if len(types) > 1 and not isinstance(rows[0], dict):
        raise invalid(
            f"{ROWS} is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    columns = {name: Column(dtype) for name, dtype in types.items()}
    add = _add_object if _is_object(rows[0]) else _add_value
    for index, row in enumerate(rows):
        add(columns, index, row)
    return {
        name: column.array([len(rows), *column.shape])
        for name, column in columns.items()
    }


def _add_object(columns: dict[str, Column], index: int, row: Any) -> None:
    if not _is_object(row):
        raise invalid(f"Expecting object but got list at item {index} of input list")
    for name, value in row.items():
        try:
            if name not in columns:
                raise invalid(f"JSON object: does not have named input: {name}")
            columns[name].add(value)
        except tf.errors.InvalidArgumentError as error:
            raise _row_error(f"{index} key: {name}", error) from None
    if row.keys() != columns.keys():
        message = value_error(
            row, f"keys must be equal to: {','.join(sorted(columns))}"
        )
        raise invalid(
            f"Failed to process element: {index} of '{ROWS}' list. "
            f"{message.message.replace('JSON Value', 'JSON object', 1)}"
        )


def _add_value(columns: dict[str, Column], index: int, row: Any) -> None:
    if _is_object(row):
        raise invalid(
            f"Expecting value/list but got object at item {index} of input list"
        )
    (column,) = columns.values()
    try:
        column.add(row)
    except tf.errors.InvalidArgumentError as error:
        raise _row_error(str(index), error) from None


def _row_error(element: str, error: tf.errors.OpError) -> tf.errors.OpError:
    return invalid(
        f"Failed to process element: {element} of '{ROWS}' list. "
        f"Error: INVALID_ARGUMENT: {error.message}"
    )


def _from_columns(values: Any, types: Types) -> dict[str, np.ndarray]:
    if not _is_object(values):
        if len(types) > 1:
            raise invalid(
                f"{COLUMNS} is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        values = dict.fromkeys(types, values)
    arrays = {}
    for name, dtype in types.items():
        if name not in values:
            raise invalid(f"Missing named input: {name} in '{COLUMNS}' object.")
        column = Column(dtype)
        column.add(values[name])
        arrays[name] = column.array(column.shape)
    return arrays


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)
