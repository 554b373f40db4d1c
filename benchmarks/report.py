"""Write results down as JSON, tables and a picture."""

import json
from pathlib import Path
from typing import Any

from benchmarks.plots import PLOTS
from benchmarks.tables import TABLES, render


def report(name: str, results: dict[str, Any], directory: Path) -> None:
    """Write `name`.json, .md and .png, and print the tables."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    (directory / f"{name}.json").write_text(text, encoding="utf-8")
    text = "\n".join(map(render, make_tables(results)))
    (directory / f"{name}.md").write_text(text, encoding="utf-8")
    PLOTS[name](results, directory / f"{name}.png")
    print(text)


def make_tables(results: dict[str, Any]) -> list[Any]:
    """Return the tables of all parts of the results."""
    rows = dict(results)
    if "models" in rows:
        rows["costs"] = rows["models"]
    return [table(rows[part]) for part, table in TABLES.items() if rows.get(part)]
