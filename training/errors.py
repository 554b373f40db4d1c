"""The exception for what a user can put right, and texts in one line."""

import re
import unicodedata

_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories


class UserError(Exception):
    """A wrong option, file or directory; the message is one clear line."""

    def __str__(self) -> str:
        """Return the message, in one line whatever names it quotes."""
        return printable(super().__str__())


def printable(text: str) -> str:
    """Return a text without anything that moves or hides other text.

    Line breaks of every kind, control characters, marks that turn the direction of
    writing and halves of surrogate pairs are written out, as `\\u2028`. Tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode()
        if c != "\t" and unicodedata.category(c) in _UNSEEN
        else c
        for c in text
    )


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message, or else its class's name.

    TensorFlow puts names of the graph's nodes around a message. They are left out.
    """
    text = str(error).strip()
    # In a graph the places come first, and the reason stands before its node.
    if in_graph := re.match(
        r"Graph execution error:.*?\n([^\n]+)\n\t \[\[", text, re.S
    ):
        text = in_graph[1]
    line, *_ = text.splitlines() or [type(error).__name__]
    return re.sub(r"^\{\{.*?\}\}\s*| \[Op:\w+\].*$", "", line)
