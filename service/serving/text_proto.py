"""Files of protobuf text, which TensorFlow Serving's options name."""

from pathlib import Path
from typing import Any

from google.protobuf import text_format

from training.errors import UserError


def read_text_proto(path: Path, message: Any, option: str) -> None:
    """Fill a message from a file.

    Args:
        path: The file.
        message: An empty message.
        option: The option that names the file.

    Raises:
        UserError: If the file cannot be read, or is not such a message.
    """
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise UserError(
            f"`{option}` must name a readable {message.DESCRIPTOR.name} as protobuf "
            f"text. Received: {path}: {error}."
        ) from error
