"""The service's log: one line for each event, which uvicorn prints."""

import logging

from training.errors import printable

_logger = logging.getLogger("uvicorn.error")
_LONGEST_REFUSAL = 1000  # characters; who is refused has chosen them


def log(text: str) -> None:
    """Add a line about something that happened as it should."""
    _logger.info("%s", printable(text))


def log_refusal(text: str) -> None:
    """Add a line about something that was asked for and not done."""
    _logger.warning("%s", printable(text[:_LONGEST_REFUSAL]))


def log_error(text: str, error: BaseException) -> None:
    """Add a line about an error that nobody expected, and its traceback."""
    _logger.error("%s", printable(text), exc_info=error)
