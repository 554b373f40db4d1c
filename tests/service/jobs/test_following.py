"""The log of a job, followed as server-sent events."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.jobs import following
from service.jobs.following import follow
from service.jobs.store import Job, State, Store
from training.config import TrainConfig
from training.run.files import LOG


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "jobs.sqlite")
    yield store
    store.close()


@pytest.fixture
def job(table: Store, tmp_path: Path) -> Job:
    job = table.add(TrainConfig(run_dir=tmp_path), priority=0)
    job.directory.mkdir()
    table.start(job, attempts=1, epochs=0)
    return job


def events(
    store: Store,
    job: Job,
    place: int = 0,
    is_stopping: Callable[[], bool] = lambda: False,
) -> list[str]:
    async def collect() -> list[str]:
        return [
            event.decode().removesuffix("\n\n")
            async for event in follow(store, job.id, place, is_stopping)
        ]

    return asyncio.run(collect())


def test_lines_of_any_kind_are_events_with_their_place(table: Store, job: Job) -> None:
    (job.directory / LOG).write_bytes(b"one\r\ntw\xff\n\nlast")
    table.end(job.id, State.FAILED)
    expected = [
        *("data: one\nid: 5", "data: tw\N{REPLACEMENT CHARACTER}\nid: 9"),
        *("data: \nid: 10", "data: last\nid: 14", "event: end\ndata: failed"),
    ]
    assert [set(e.split("\n")) for e in events(table, job)] == [
        set(e.split("\n")) for e in expected
    ]
    assert len(events(table, job, place=9)) == 3
    assert len(events(table, job, place=99)) == 1


def test_a_name_in_the_log_forges_no_line(table: Store, job: Job) -> None:
    text = "a\u2028error: b\x85c\x1b[2Jd\u202ee\tf\n"
    (job.directory / LOG).write_text(text, encoding="utf-8")
    table.end(job.id, State.FAILED)
    first, _ = events(table, job)
    place = len(text.encode())
    said = r"a\u2028error: b\x85c\x1b[2Jd\u202ee" + "\tf"
    assert set(first.split("\n")) == {f"data: {said}", f"id: {place}"}


def test_a_line_is_not_given_before_it_is_whole(table: Store, job: Job) -> None:
    """While the job runs: the rest may come at any moment."""
    (job.directory / LOG).write_bytes(b"whole\nbeg")
    looks = iter([False, False, True])
    received = events(table, job, is_stopping=lambda: next(looks))
    assert len(received) == 1
    assert "data: whole" in received[0]


def test_a_line_without_an_end_is_given_in_parts(
    table: Store, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_BYTES_AT_A_TIME", 8)
    (job.directory / LOG).write_bytes(b"x" * 20)
    table.end(job.id, State.SUCCEEDED)
    data = [e.split("\n") for e in events(table, job)]
    texts = [line for lines in data for line in lines if line.startswith("data: x")]
    assert texts == ["data: " + "x" * 8, "data: " + "x" * 8, "data: " + "x" * 4]


def test_a_quiet_log_shows_signs_of_life(
    table: Store, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_SECONDS_BETWEEN_LOOKS", 0.001)
    monkeypatch.setattr(following, "_SECONDS_BETWEEN_SIGNS", 0.0)
    looks = iter([False] * 5 + [True])
    received = events(table, job, is_stopping=lambda: next(looks))
    assert received
    assert all(event.startswith(":") for event in received)


def test_a_job_that_is_gone_is_said(table: Store, job: Job) -> None:
    table.end(job.id, State.FAILED)
    assert table.delete(job.id)
    (event,) = events(table, job)
    assert set(event.split("\n")) == {"event: end", "data: deleted"}
