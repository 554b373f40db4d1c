"""JSON bodies, read by TensorFlow Serving's rules and refused with its messages."""

import base64
import binascii
import json
import math
import re
from typing import Any

import tensorflow as tf

from service.serving.deep_json import flattened
from service.serving.errors import invalid

_LONGEST_VALUE = 1000
_PARSER_MESSAGES = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": (
        "Missing a name for object member."
    ),
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Illegal trailing comma before end of array": "Invalid value.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid control character at": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}
_TOO_BIG = "Number too big to be stored in double."
_LONGEST_INTEGER = 308  # digits of a number that surely is finite as a double
_DEEPEST = 200  # lists and objects around a value that is still read
# The most bytes of memory that one byte of a body may need, and what is counted in
# larger bodies: for a comma or colon the value after it, the latter with its name.
_MOST_PER_BYTE = 256
_SMALL = 2**18
_SIZES = {b"[": 112, b"{": 208, b",": 72, b":": 336, b'"': 84}
_TYPE_NAMES: dict[type, str] = {
    type(None): "Null",
    dict: "Object",
    list: "Array",
    str: "String",
}


def read_document(body: bytes) -> dict[str, Any]:
    """Return the object that a body begins with; what follows it is ignored.

    Args:
        body: UTF-8. Other bytes are kept as surrogates.

    Raises:
        tf.errors.InvalidArgumentError: If it does not begin with an object.
    """
    if not body:
        raise _parse_error("The document is empty")
    text = body.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    start = len(text) - len(text.lstrip(" \t\n\r"))
    if start == len(text):
        raise _parse_error(f"The document is empty. at offset: {start}")
    try:
        document = _decode(text, start)
    except json.JSONDecodeError as error:
        message = _parser_message(error.msg, text, error.pos)
        raise _parse_error(f"{message} at offset: {error.pos}") from None
    if not isinstance(document, dict):
        raise value_error(document, "Is not object")
    return document


def parsed_size(body: bytes) -> int:
    """Return an upper bound of the memory that reading a body needs.

    That is the document and its strings as bytes and as tensors.
    """
    if len(body) <= _SMALL:
        return _MOST_PER_BYTE * len(body)
    characters = 6 if body.isascii() else 12
    return characters * len(body) + sum(
        body.count(token) * size for token, size in _SIZES.items()
    )


def read_signature_name(document: dict[str, Any]) -> str:
    """Return the name of the signature, or "" if the document gives none.

    Raises:
        tf.errors.InvalidArgumentError: If it is not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise value_error(
            document,
            "not formatted correctly. 'signature_name' key must be a string value.",
        )
    return name


def value_error(value: Any, complaint: str) -> tf.errors.OpError:
    """Return an error that shows a value and says what is wrong with it."""
    return invalid(f"JSON Value: {_show(value)} {complaint}")


def type_error(value: Any, expected: str) -> tf.errors.OpError:
    """Return the error of a value that does not have the type of the tensor."""
    return value_error(
        value, f"Type: {type_name(value)} is not of expected type: {expected}"
    )


def type_name(value: Any) -> str:
    """Return the name that messages give to the type of a value."""
    if isinstance(value, bool):
        return str(value)
    return _TYPE_NAMES.get(type(value), "Number")


def is_base64(value: Any) -> bool:
    """Return whether a value is `{"b64": "..."}`."""
    return (
        isinstance(value, dict)
        and len(value) == 1
        and isinstance(value.get("b64"), str)
    )


def decode_base64(value: Any) -> bytes:
    """Return the bytes of `{"b64": "..."}`.

    Raises:
        tf.errors.InvalidArgumentError: If the value is something else.
    """
    if not is_base64(value):
        raise value_error(value, "not formatted correctly for base64 data")
    text = "".join(value["b64"].split()).rstrip("=")
    try:
        # Padding may be missing.
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def text_to_bytes(text: str) -> bytes:
    """Return a JSON string as the bytes that it had in the body.

    Raises:
        tf.errors.InvalidArgumentError: If it has half a surrogate pair.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _parse_error("The surrogate pair in string is invalid.") from None


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _parse_error(_TOO_BIG)
    return value


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER:
        _finite(digits)
    return int(digits)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. Of members of one name the first counts, as in RapidJSON."""
    members = dict(pairs)
    if len(members) < len(pairs):
        members = dict(reversed(pairs))
        members = {name: members[name] for name, _ in pairs}
    return members


def _decode(text: str, start: int) -> Any:
    try:
        document, _ = _DECODER.raw_decode(text, start)
    except RecursionError:
        document, _ = _DECODER.raw_decode(flattened(text, start, _DEEPEST), start)
    return document


_DECODER = json.JSONDecoder(
    parse_float=_finite, parse_int=_integer, object_pairs_hook=_members
)
_ENCODER = json.JSONEncoder(ensure_ascii=False, indent=4)
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"|[][{}]', re.DOTALL)


def _parser_message(message: str, text: str, position: int) -> str:
    if message == "Expecting ',' delimiter":
        opened = _innermost(text[:position])
        if opened == "{":
            return "Missing a comma or } after an object member."
        return "Missing a comma or ] after an array element."
    return _PARSER_MESSAGES.get(message, message)


def _innermost(text: str) -> str:
    """Return the last bracket that is open at the end of the beginning of JSON."""
    opened = []
    for token in _STRING_OR_BRACKET.finditer(text):
        if token[0] in "[{":
            opened.append(token[0])
        elif token[0] in "]}":
            opened.pop()
    return opened[-1]


def _parse_error(message: str) -> tf.errors.OpError:
    return invalid(f"JSON Parse error: {message}")


def _show(value: Any) -> str:
    """Return the text of a value for a message, cut off if it is long."""
    text = ""
    for chunk in _ENCODER.iterencode(value):
        text += chunk
        if len(text) > _LONGEST_VALUE:
            return f"{text[:_LONGEST_VALUE]}..."
    return text
