"""The jobs and their states, in SQLite. They outlive any process."""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from training.config import TrainConfig

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sweep (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    fields TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sweep INTEGER REFERENCES sweep,
    config TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    cancelling INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    epochs INTEGER NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '',
    submitted REAL NOT NULL,
    started REAL,
    ended REAL
);
CREATE INDEX IF NOT EXISTS queue ON job (state, priority DESC, id);
CREATE INDEX IF NOT EXISTS sweeps ON job (sweep, id);
"""


class State(StrEnum):
    """What has become of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # someone but the service told it to stop


RESUMABLE = (State.FAILED, State.CANCELLED, State.INTERRUPTED)


@dataclass(frozen=True)
class Job:
    """A row of the table of jobs; times are seconds since 1970."""

    id: int
    sweep: int | None
    config: TrainConfig
    state: State
    priority: int
    cancelling: bool
    attempts: int  # starts since the last one that finished an epoch
    epochs: int  # finished at the last start
    message: str
    submitted: float
    started: float | None
    ended: float | None

    @property
    def directory(self) -> Path:
        """Return the directory of the run."""
        return self.config.run_dir / str(self.id)


class Store:
    """The table of jobs.

    Every change is one transaction. It is on the disk when the method returns. Numbers
    give the order; times are only for people to read.

    Args:
        path: The database. A missing one is made.

    Every method raises `sqlite3.DatabaseError` if the table cannot be used now.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._path = path
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.executescript(_SCHEMA)
        self._file = path.stat()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def count_on_from(self, number: int) -> None:
        """Give later jobs higher numbers than this one."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) SELECT 'job', 0 "
                "WHERE NOT EXISTS (SELECT * FROM sqlite_sequence WHERE name = 'job')"
            )
            connection.execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'job'",
                [number],
            )

    def add(self, config: TrainConfig, priority: int) -> Job:
        """Queue a job."""
        with self._transaction() as connection:
            return _insert(connection, config, priority, sweep=None)

    def add_sweep(
        self, fields: Sequence[str], configs: Iterable[TrainConfig], priority: int
    ) -> tuple[int, list[Job]]:
        """Queue the jobs of a sweep, all of them or none.

        Args:
            fields: The names of the fields that differ.
            configs: The jobs' options.
            priority: The jobs' priority.

        Returns:
            The number of the sweep, and its jobs.
        """
        with self._transaction() as connection:
            sweep = _number_of(
                connection.execute(
                    "INSERT INTO sweep (fields) VALUES (?)", [json.dumps(list(fields))]
                )
            )
            return sweep, [_insert(connection, c, priority, sweep) for c in configs]

    def sweep_fields(self, sweep: int) -> list[str] | None:
        """Return the fields that differ in a sweep, or None if there is no sweep."""
        rows = self._read("SELECT fields FROM sweep WHERE id = ?", [sweep])
        return json.loads(rows[0]["fields"]) if rows else None

    def get(self, job: int) -> Job | None:
        """Return a job by its number."""
        rows = self._read("SELECT * FROM job WHERE id = ?", [job])
        return _job(rows[0]) if rows else None

    def of_sweep(self, sweep: int) -> list[Job]:
        """Return the jobs of a sweep."""
        rows = self._read("SELECT * FROM job WHERE sweep = ? ORDER BY id", [sweep])
        return [_job(row) for row in rows]

    def page(self, state: State | None, limit: int, offset: int) -> list[Job]:
        """Return some of the jobs, the newest first."""
        rows = self._read(
            "SELECT * FROM job WHERE ? IS NULL OR state = ? "
            "ORDER BY id DESC LIMIT ? OFFSET ?",
            [state, state, limit, offset],
        )
        return [_job(row) for row in rows]

    def count(self, state: State | None) -> int:
        """Return the number of jobs, or of those in a state."""
        return self._read(
            "SELECT count(*) FROM job WHERE ? IS NULL OR state = ?", [state, state]
        )[0][0]

    def running(self) -> list[Job]:
        """Return the jobs that have a trainer, or had one at the last look."""
        rows = self._read("SELECT * FROM job WHERE state = 'running' ORDER BY id", [])
        return [_job(row) for row in rows]

    def next(self, number: int) -> list[Job]:
        """Return the next jobs: by priority, then in the order of submission."""
        rows = self._read(
            "SELECT * FROM job WHERE state = 'queued' "
            "ORDER BY priority DESC, id LIMIT ?",
            [number],
        )
        return [_job(row) for row in rows]

    def start(self, job: Job, *, attempts: int, epochs: int) -> bool:
        """Mark a job as running, before its trainer is started.

        Returns:
            False if it must not be started: it has been cancelled meanwhile.
        """
        changes: dict[str, object] = {
            **{"state": State.RUNNING, "message": ""},
            **{"attempts": attempts, "epochs": epochs},
        }
        if job.state is State.QUEUED:
            changes["started"] = time.time()
        return self._update(job.id, changes, {"state": job.state, "cancelling": 0})

    def end(self, job: int, state: State, message: str = "") -> None:
        """Mark a running job as ended."""
        changes = {"state": state, "message": message, "ended": time.time()}
        self._update(job, {**changes, "cancelling": 0}, {"state": State.RUNNING})

    def requeue(self, job: int, states: Iterable[State], message: str = "") -> bool:
        """Put a job that is in one of the states back in its place in the queue.

        A job that is being cancelled stays as it is.

        Returns:
            Whether the job is queued now.
        """
        changes = {"state": State.QUEUED, "message": message, "ended": None}
        return any(
            self._update(job, changes, {"state": state, "cancelling": 0})
            for state in states
        )

    def requeue_interrupted(self) -> None:
        """Put all interrupted jobs back in their places in the queue."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE job SET state = 'queued', message = '', "
                "ended = NULL WHERE state = 'interrupted'"
            )

    def cancel(self, job: int) -> bool:
        """Cancel a queued job, or ask for the end of a running one.

        Returns:
            Whether it was queued or running.
        """
        cancelled = {"state": State.CANCELLED, "ended": time.time()}
        return self._update(job, cancelled, {"state": State.QUEUED}) or self._update(
            job, {"cancelling": 1}, {"state": State.RUNNING}
        )

    def delete(self, job: int) -> bool:
        """Forget a job if it has ended; return whether it had."""
        with self._transaction() as connection:
            cursor = connection.execute(
                "DELETE FROM job WHERE id = ? AND state NOT IN ('queued', 'running')",
                [job],
            )
            return cursor.rowcount == 1

    def _read(self, query: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        with self._lock:
            self._check_file()
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
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

    def _update(
        self, job: int, changes: Mapping[str, Any], where: Mapping[str, Any]
    ) -> bool:
        """Change a job if it is as `where` says; return whether it was."""
        settings = ", ".join(f"{name} = ?" for name in changes)
        conditions = " AND ".join(f"{name} = ?" for name in ("id", *where))
        with self._transaction() as connection:
            cursor = connection.execute(
                f"UPDATE job SET {settings} WHERE {conditions}",
                [*changes.values(), job, *where.values()],
            )
            return cursor.rowcount == 1


def _insert(
    connection: sqlite3.Connection,
    config: TrainConfig,
    priority: int,
    sweep: int | None,
) -> Job:
    job = _number_of(
        connection.execute(
            "INSERT INTO job (sweep, config, state, priority, submitted) "
            "VALUES (?, ?, 'queued', ?, ?)",
            [sweep, config.model_dump_json(), priority, time.time()],
        )
    )
    row = connection.execute("SELECT * FROM job WHERE id = ?", [job]).fetchone()
    return _job(row)


def _number_of(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None  # after an INSERT
    return cursor.lastrowid


def _job(row: sqlite3.Row) -> Job:
    config = TrainConfig.model_validate_json(row["config"])
    state, cancelling = State(row["state"]), bool(row["cancelling"])
    return Job(**{**row, "config": config, "state": state, "cancelling": cancelling})
