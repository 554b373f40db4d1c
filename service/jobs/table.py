"""The SQLite database of the jobs: its schema, its version, its transactions."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.errors import UserError

_VERSION = 2  # SQLite's user_version; 0 before there were versions
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sweep (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    fields TEXT NOT NULL,
    plan TEXT
);
CREATE TABLE IF NOT EXISTS job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sweep INTEGER REFERENCES sweep,
    config TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    gpus INTEGER,
    devices TEXT NOT NULL DEFAULT '[]',
    attempts INTEGER NOT NULL DEFAULT 0,
    epochs INTEGER NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '',
    submitted REAL NOT NULL,
    started REAL,
    ended REAL,
    trial INTEGER,
    is_drawn INTEGER NOT NULL DEFAULT 1,
    ending INTEGER
);
CREATE INDEX IF NOT EXISTS queue ON job (state, priority DESC, id);
CREATE INDEX IF NOT EXISTS sweeps ON job (sweep, id);
"""
# What tables of earlier releases lack.
_LATER_COLUMNS = {
    "sweep": {"plan": "TEXT"},
    "job": {
        "gpus": "INTEGER",
        "devices": "TEXT NOT NULL DEFAULT '[]'",
        "ending": "INTEGER",
        "trial": "INTEGER",
        "is_drawn": "INTEGER NOT NULL DEFAULT 1",
    },
}
# Numbers give the order in which jobs have ended: a clock may jump.
_ORDER_OF_ENDINGS = """
CREATE INDEX IF NOT EXISTS endings ON job (ending);
CREATE TRIGGER IF NOT EXISTS count_endings AFTER UPDATE OF ended ON job
WHEN NEW.ended IS NOT NULL BEGIN
    UPDATE job SET ending = (SELECT coalesce(max(ending), 0) + 1 FROM job)
    WHERE id = NEW.id;
END;
"""


class Table:
    """A connection for all threads. Each change is on the disk when it has been made.

    Args:
        path: The database. A missing one is made.

    Raises:
        UserError: If it is of a later version.
        sqlite3.DatabaseError: Here and later, if it cannot be used now.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._path = path
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        # One damaged byte must not make all rows unreadable.
        self._connection.text_factory = lambda text: text.decode(errors="replace")
        try:
            self._open()
        except BaseException:
            self._connection.close()
            raise
        self._file = path.stat()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def read(self, query: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with self._lock:
            self._check_file()
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Make several changes, all or none."""
        with self._lock, self._connection:
            self._check_file()
            yield self._connection

    def _check_file(self) -> None:
        """Raise if the file has been removed: SQLite would write where nobody looks."""
        try:
            is_there = os.path.samestat(self._path.stat(), self._file)
        except OSError:
            is_there = False
        if not is_there:
            raise sqlite3.OperationalError(
                f"{self._path} has been removed; start the service again"
            )

    def _open(self) -> None:
        """Make the table, or bring that of an earlier version up to date."""
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if not 0 <= version <= _VERSION:
            raise UserError(
                "`--state-dir` must hold the jobs of this version of the service or of "
                f"an earlier one. Received: {self._path}, a table of version "
                f"{version}; this service knows those up to {_VERSION}. Update it, or "
                "give it another --state-dir."
            )
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.executescript(_SCHEMA)
        for table, later in _LATER_COLUMNS.items():
            for name in later.keys() - self._columns(table):
                self._connection.execute(
                    f"ALTER TABLE {table} ADD COLUMN {name} {later[name]}"
                )
        self._connection.executescript(_ORDER_OF_ENDINGS)
        if version == 0 and "cancelling" in self._columns("job"):
            # A job that was being cancelled was running, with a mark.
            with self._connection:
                self._connection.execute(
                    "UPDATE job SET state = 'cancelling' "
                    "WHERE state = 'running' AND cancelling"
                )
        if version != _VERSION:
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")

    def _columns(self, table: str) -> set[str]:
        rows = self._connection.execute(f"SELECT * FROM {table} LIMIT 0")
        return {name for name, *_ in rows.description}
