"""The exception for what a user can put right, and errors in one line."""

import re


class UserError(Exception):
    """A wrong option, file or directory; the message is one clear line."""


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message, or else its class's name.

    TensorFlow puts names of the graph's nodes around a message. They are left out.
    """
    line, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\{\{.*?\}\}\s*| \[Op:\w+\].*$", "", line)
