"""The exception for what a user can put right, and errors in one line."""

import re


class UserError(Exception):
    """A wrong option, file or directory; the message is one clear line."""


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
