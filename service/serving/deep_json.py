"""JSON that is nested more deeply than Python's parser goes."""

import json
import re

_SPACE = r"[ \t\n\r]*+"
_STRING = r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*+"'
_NUMBER = r"-?(?:0|[1-9]\d*+)(?:\.\d++)?(?:[eE][-+]?\d++)?"
_LITERAL = r"true|false|null|NaN|-?Infinity"
_FLAGS = re.ASCII

# A member's name belongs to the bracket or comma before it, so that many brackets that
# follow each other are one match.
_OPENING = re.compile(rf"(?:{_SPACE}(?:\[|\{{{_SPACE}{_STRING}{_SPACE}:))++", _FLAGS)
_VALUE = re.compile(
    rf"{_SPACE}(?:{_STRING}|{_LITERAL}|{_NUMBER}|\{{{_SPACE}\}})", _FLAGS
)
_CLOSING = re.compile(rf"(?:{_SPACE}[\]}}])++", _FLAGS)
_COMMA = re.compile(rf"{_SPACE},", _FLAGS)
_NAME = re.compile(rf"{_SPACE}{_STRING}{_SPACE}:", _FLAGS)
_BRACKET = re.compile(rf"{_STRING}|([\[{{\]}}])", _FLAGS)
_EMPTY = re.compile(rf"\[{_SPACE}\]")
_SPACES = re.compile(_SPACE, _FLAGS)
_CLOSED_BY = {"[": "]", "{": "}"}


def flattened(text: str, start: int, depth: int) -> str:
    """Return a text in which a 0 stands for each list and object that is too deep.

    Spaces after the 0 keep the positions of the rest. Only the first value is looked
    at, as a whole.

    Args:
        text: The text.
        start: Where the value begins.
        depth: The number of lists and objects around a value from which on it is deep.

    Raises:
        json.JSONDecodeError: If it is not JSON.
    """
    parts, copied, deep_from = [], 0, 0
    opened: list[str] = []  # the brackets that will close what is open
    position = start
    while True:
        if opening := _OPENING.match(text, position):
            brackets = _brackets(text, *opening.span())
            if len(opened) <= depth < len(opened) + len(brackets):
                deep_from = brackets[depth - len(opened)]
            opened += [_CLOSED_BY[text[bracket]] for bracket in brackets]
            position = opening.end()
        value = _VALUE.match(text, position)
        if value is not None:
            position = value.end()
        closing = _CLOSING.match(text, position)
        is_empty = opening and _EMPTY.match(text, position - 1)
        if value is None and not is_empty:
            raise _error("Expecting value", text, position)
        if closing is not None:
            for bracket in _brackets(text, *closing.span()):
                if not opened or opened[-1] != text[bracket]:
                    raise _error("Expecting ',' delimiter", text, bracket)
                opened.pop()
                position = bracket + 1
                if len(opened) == depth:
                    blank = " " * (position - deep_from - 1)
                    parts += [text[copied:deep_from], "0", blank]
                    copied = position
                if not opened:
                    break
        if not opened:
            return "".join([*parts, text[copied:]])
        comma = _COMMA.match(text, position)
        if comma is None:
            raise _error("Expecting ',' delimiter", text, position)
        position = comma.end()
        if opened[-1] == "}":
            name = _NAME.match(text, position)
            if name is None:
                message = "Expecting property name enclosed in double quotes"
                raise _error(message, text, position)
            position = name.end()


def _brackets(text: str, start: int, end: int) -> list[int]:
    """Return the positions of the brackets outside of strings."""
    return [
        match.start()
        for match in _BRACKET.finditer(text, start, end)
        if match[1] is not None
    ]


def _error(message: str, text: str, position: int) -> json.JSONDecodeError:
    """Return the error of what comes after the spaces at a position."""
    spaces = _SPACES.match(text, position)
    return json.JSONDecodeError(message, text, spaces.end() if spaces else position)
