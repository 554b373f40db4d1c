"""Files of protobuf text, as TensorFlow Serving's options name them."""

from pathlib import Path
from typing import Any

from google.protobuf import text_format

from training.errors import UserError


def read_text_proto(path: Path, message: Any, option: str) -> None:
    """Fills a message from a file.

    Args:
        path: The file.
        message: An empty message.
        option: What names the file.

    Raises:
        UserError: If it cannot be read, or is no such message.
    """
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise UserError(
            f"`{option}` must name a readable {message.DESCRIPTOR.name} as protobuf "
            f"text. Received: {path}: {error}."
        ) from error
