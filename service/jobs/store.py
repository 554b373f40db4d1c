"""The jobs and their states, in SQLite. They outlive any process."""

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.jobs.rows import RESUMABLE, WITH_TRAINER, Job, State, job_of
from service.jobs.table import Table
from service.log import log
from training.config import TrainConfig

RUNS = "runs"  # the directory beside the table with a directory for each job
_OPTIONS = frozenset(TrainConfig.model_fields)
MOST_JOBS = 100_000  # that are kept, whatever their state
_UNDRAWN = "Its values are drawn when it starts."


class Store:
    """The table of jobs.

    Every change is one transaction. It is on the disk when the method returns. Numbers
    give the order; times are only for people to read.

    Args:
        path: The database. A missing one is made.

    A row that cannot be read is a job that says so, and keeps no other from being read.

    Raises:
        UserError: If the table is of a later version.

    Every method raises `sqlite3.DatabaseError` if the table cannot be used now.
    """

    def __init__(self, path: Path) -> None:
        self._table = Table(path)
        self._runs = path.parent / RUNS

    def close(self) -> None:
        """Close the database."""
        self._table.close()

    def count_on_from(self, number: int) -> None:
        """Give later jobs higher numbers than this one."""
        with self._table.transaction() as connection:
            connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) SELECT 'job', 0 "
                "WHERE NOT EXISTS (SELECT * FROM sqlite_sequence WHERE name = 'job')"
            )
            connection.execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'job'",
                [number],
            )

    def add(self, config: TrainConfig, priority: int, gpus: int | None = None) -> Job:
        """Queue a job that asks for so many GPUs; None: one where there are any."""
        with self._table.transaction() as connection:
            _check_room(connection, 1)
            job = self._insert(connection, config, priority, gpus, sweep=None)
        log(f"Job {job.id} is submitted: {config.export_name}, priority {priority}.")
        return job

    def add_sweep(
        self,
        fields: Sequence[str],
        configs: Sequence[TrainConfig],
        priority: int,
        gpus: int | None = None,
        plan: str | None = None,
    ) -> tuple[int, list[Job]]:
        """Queue the jobs of a sweep, all or none.

        Args:
            fields: The names of the fields that differ.
            configs: The options of the jobs.
            priority: Of each job.
            gpus: That each job asks for.
            plan: What a search tries. Its jobs are trials that have no values yet.

        Returns:
            The number of the sweep, and its jobs.
        """
        with self._table.transaction() as connection:
            _check_room(connection, len(configs))
            sweep = _number_of(
                connection.execute(
                    "INSERT INTO sweep (fields, plan) VALUES (?, ?)",
                    [json.dumps(list(fields)), plan],
                )
            )
            jobs = [
                self._insert(
                    connection, config, priority, gpus, sweep, trial if plan else None
                )
                for trial, config in enumerate(configs, start=1)
            ]
        log(
            f"{'Search' if plan else 'Sweep'} {sweep} is submitted: "
            f"jobs {jobs[0].id} to {jobs[-1].id}, priority {priority}."
        )
        return sweep, jobs

    def sweep_fields(self, sweep: int) -> list[str] | None:
        """Return the fields that differ in a sweep, or None if there is no sweep."""
        rows = self._table.read("SELECT fields FROM sweep WHERE id = ?", [sweep])
        if not rows:
            return None
        try:
            return [n for n in json.loads(rows[0]["fields"]) if n in _OPTIONS]
        except (ValueError, TypeError, RecursionError):  # damaged
            return []

    def plan(self, sweep: int) -> str | None:
        """Return what a search tries, or None if there is no such search."""
        rows = self._table.read("SELECT plan FROM sweep WHERE id = ?", [sweep])
        return rows[0]["plan"] if rows else None

    def draw(self, job: Job, config: TrainConfig) -> Job:
        """Give a trial that is about to be started its values; return it."""
        drawn = {"config": config.model_dump_json(), "is_drawn": True}
        self._update(job.id, drawn, WITH_TRAINER)
        return replace(job, config=config, is_drawn=True)

    def prune(self, job: Job, message: str) -> None:
        """Ask for the end of a running trial that is a bad one; say why."""
        changes = {"state": State.CANCELLING, "message": message}
        if self._update(job.id, changes, [State.RUNNING]):
            log(f"Job {job.id}: {message}")

    def get(self, job: int) -> Job | None:
        """Return a job by its number."""
        jobs = self._jobs("WHERE id = ?", [job])
        return jobs[0] if jobs else None

    def of_sweep(self, sweep: int) -> list[Job]:
        """Return the jobs of a sweep."""
        return self._jobs("WHERE sweep = ? ORDER BY id", [sweep])

    def page(self, state: State | None, limit: int, offset: int) -> list[Job]:
        """Return some of the jobs, the newest first."""
        return self._jobs(
            "WHERE ? IS NULL OR state = ? ORDER BY id DESC LIMIT ? OFFSET ?",
            [state, state, limit, offset],
        )

    def count(self, state: State | None) -> int:
        """Return the number of jobs, or of those in a state."""
        return self._table.read(
            "SELECT count(*) FROM job WHERE ? IS NULL OR state = ?", [state, state]
        )[0][0]

    def totals(self) -> dict[str, tuple[int, float]]:
        """Return by state how many jobs there are, and the seconds of those that ended.

        They count from the first start of the job to its end.
        """
        rows = self._table.read(
            "SELECT state, count(*), total(max(ended - started, 0)) FROM job "
            "GROUP BY state",
            [],
        )
        return {state: (number, seconds) for state, number, seconds in rows}

    def running(self) -> list[Job]:
        """Return the jobs that have a trainer, or had one at the last look."""
        return self._jobs("WHERE state IN ('running', 'cancelling') ORDER BY id", [])

    def next(self, number: int, but: Collection[int] = ()) -> list[Job]:
        """Return the next jobs: by priority, then in the order of submission.

        Args:
            number: How many at most.
            but: The numbers of jobs that wait.
        """
        marks = ", ".join("?" * len(but))
        return self._jobs(
            f"WHERE state = 'queued' AND id NOT IN ({marks}) "
            "ORDER BY priority DESC, id LIMIT ?",
            [*but, number],
        )

    def start(
        self, job: Job, *, attempts: int, epochs: int, devices: Sequence[str] = ()
    ) -> bool:
        """Mark a job as running on these GPUs, before its trainer is started.

        Returns:
            False if it must not be started: it has been cancelled meanwhile.
        """
        changes: dict[str, object] = {
            **{"state": State.RUNNING, "message": ""},
            **{"attempts": attempts, "epochs": epochs},
            "devices": json.dumps(list(devices)),
        }
        if job.state is State.QUEUED and not job.attempts:
            changes["started"] = time.time()
        is_started = self._update(job.id, changes, [job.state])
        if is_started:
            on = f" on GPU {', '.join(devices)}" if devices else ""
            log(f"Job {job.id} is started{on}, attempt {attempts}.")
        return is_started

    def end(self, job: int, state: State, message: str = "") -> None:
        """Mark a job that has a trainer as ended."""
        changes = {"state": state, "message": message, "ended": time.time()}
        if self._update(job, changes, WITH_TRAINER):
            reason = f": {message.partition(chr(10))[0]}" if message else "."
            log(f"Job {job} has ended, {state}{reason}")

    def requeue(
        self,
        job: int,
        states: Collection[State],
        message: str = "",
        attempts: int = 0,
    ) -> bool:
        """Put a job that is in one of the states back in its place in the queue.

        Args:
            job: Its number.
            states: The states.
            message: Why it is queued, where there is a reason.
            attempts: Starts that count against the retries.

        Returns:
            Whether the job is queued now.
        """
        changes: dict[str, object] = {
            **{"state": State.QUEUED, "message": message},
            **{"ended": None, "attempts": attempts, "devices": "[]"},
        }
        is_queued = self._update(job, changes, states)
        if is_queued:
            log(f"Job {job} is queued again. {message}".rstrip())
        return is_queued

    def resume(self, job: int) -> bool:
        """Queue an ended job that has no result again; return whether it is one."""
        return self.requeue(job, RESUMABLE)

    def say(self, job: Job, message: str) -> None:
        """Give a job a message; its state stays."""
        self._update(job.id, {"message": message}, [job.state])

    def requeue_interrupted(self) -> None:
        """Put all interrupted jobs back in their places in the queue."""
        for job in self._jobs("WHERE state = 'interrupted'", []):
            self.requeue(job.id, [State.INTERRUPTED])

    def cancel(self, job: int) -> bool:
        """Cancel a queued job, or ask for the end of a running one.

        Returns:
            Whether it was queued or has a trainer.
        """
        return bool(self._cancel("id = ?", [job])) or bool(
            self._jobs("WHERE id = ? AND state = 'cancelling'", [job])
        )

    def cancel_all(self, sweep: int | None = None) -> list[int]:
        """Cancel all jobs, or those of a sweep, that are queued or running.

        Returns:
            Their numbers.
        """
        return self._cancel("(? IS NULL OR sweep = ?)", [sweep, sweep])

    def _cancel(self, condition: str, values: Sequence[Any]) -> list[int]:
        with self._table.transaction() as connection:
            queued, running = (
                [
                    row["id"]
                    for row in connection.execute(
                        f"SELECT id FROM job WHERE state = ? AND {condition}",
                        [state, *values],
                    )
                ]
                for state in (State.QUEUED, State.RUNNING)
            )
            connection.execute(
                "UPDATE job SET state = 'cancelled', message = '', ended = ? "
                f"WHERE state = 'queued' AND {condition}",
                [time.time(), *values],
            )
            connection.execute(
                "UPDATE job SET state = 'cancelling', message = '' "
                f"WHERE state = 'running' AND {condition}",
                values,
            )
        for job in queued:
            log(f"Job {job} has ended, cancelled.")
        for job in running:
            log(f"Job {job} is being cancelled.")
        return sorted(queued + running)

    def superseded(self, kept: int) -> list[Job]:
        """Return the ended jobs but for those that ended last.

        Args:
            kept: How many of them are left out. So are all jobs of a sweep that goes
                on, and interrupted ones: they are queued again.
        """
        return self._jobs(
            "WHERE state IN ('succeeded', 'failed', 'cancelled') "
            "AND coalesce(sweep, 0) NOT IN (SELECT coalesce(sweep, -1) FROM job "
            "WHERE state IN ('queued', 'running', 'cancelling', 'interrupted')) "
            "ORDER BY ending DESC, id DESC LIMIT -1 OFFSET ?",
            [kept],
        )

    def delete(self, job: int, meanwhile: Callable[[], object] = lambda: None) -> bool:
        """Forget a job if it has ended.

        Args:
            job: Its number.
            meanwhile: Is called if it has ended, and before anybody else can queue it.

        Returns:
            Whether it had ended.
        """
        found = self.get(job)
        with self._table.transaction() as connection:
            cursor = connection.execute(
                "DELETE FROM job WHERE id = ? "
                "AND state NOT IN ('queued', 'running', 'cancelling')",
                [job],
            )
            connection.execute(  # once its last job is gone
                "DELETE FROM sweep WHERE id = ? "
                "AND NOT EXISTS (SELECT * FROM job WHERE sweep = sweep.id)",
                [found.sweep if found else None],
            )
            if cursor.rowcount == 1:
                meanwhile()
        if cursor.rowcount == 1:
            log(f"Job {job} is deleted.")
        return cursor.rowcount == 1

    def delete_sweep(
        self, sweep: int, meanwhile: Callable[[], object] = lambda: None
    ) -> list[Job]:
        """Forget a sweep and its jobs if all have ended.

        Args:
            sweep: Its number.
            meanwhile: As in `delete`.

        Returns:
            The jobs that have not ended.
        """
        with self._table.transaction() as connection:
            going_on = "sweep = ? AND state IN ('queued', 'running', 'cancelling')"
            rows = connection.execute(
                f"SELECT * FROM job WHERE {going_on} ORDER BY id", [sweep]
            ).fetchall()
            if not rows:
                connection.execute("DELETE FROM job WHERE sweep = ?", [sweep])
                connection.execute("DELETE FROM sweep WHERE id = ?", [sweep])
                meanwhile()
        if not rows:
            log(f"Sweep {sweep} is deleted.")
        return [job_of(row, self._runs) for row in rows]

    def _jobs(self, clause: str, values: Sequence[Any]) -> list[Job]:
        rows = self._table.read(f"SELECT * FROM job {clause}", values)
        return [job_of(row, self._runs) for row in rows]

    def _update(
        self, job: int, changes: Mapping[str, Any], states: Collection[State]
    ) -> bool:
        """Change a job if it is in one of the states; return whether it was."""
        settings = ", ".join(f"{name} = ?" for name in changes)
        marks = ", ".join("?" * len(states))
        with self._table.transaction() as connection:
            cursor = connection.execute(
                f"UPDATE job SET {settings} WHERE id = ? AND state IN ({marks})",
                [*changes.values(), job, *states],
            )
            return cursor.rowcount == 1

    def _insert(
        self,
        connection: sqlite3.Connection,
        config: TrainConfig,
        priority: int,
        gpus: int | None,
        sweep: int | None,
        trial: int | None = None,
    ) -> Job:
        job = _number_of(
            connection.execute(
                "INSERT INTO job (sweep, config, state, priority, gpus, submitted, "
                "trial, is_drawn, message) VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?)",
                [
                    *(sweep, config.model_dump_json(), priority, gpus, time.time()),
                    *(trial, trial is None, "" if trial is None else _UNDRAWN),
                ],
            )
        )
        row = connection.execute("SELECT * FROM job WHERE id = ?", [job]).fetchone()
        return job_of(row, self._runs)


def _check_room(connection: sqlite3.Connection, number: int) -> None:
    """Raise if there would be too many jobs: each can be submitted in no time."""
    (kept,) = connection.execute("SELECT count(*) FROM job").fetchone()
    if kept + number > MOST_JOBS:
        raise sqlite3.OperationalError(
            f"it holds at most {MOST_JOBS:,} jobs; delete some that have ended"
        )


def _number_of(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None  # after an INSERT
    return cursor.lastrowid
