"""The one exception for what a user can put right."""

import re


class UserError(Exception):
    """A wrong option, file or directory; the message is one clear line."""


def first_line(error: Exception) -> str:
    """What an exception says, without the graph's nodes that TensorFlow names.

    The name of its class where it says nothing.
    """
    line, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\{\{.*?\}\}\s*| \[Op:\w+\].*$", "", line)
