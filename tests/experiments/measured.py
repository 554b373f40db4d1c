"""Made-up measurements for the criteria."""

from collections.abc import Sequence
from typing import Any


def of(**columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the measurements of all seeds from their columns."""
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]
