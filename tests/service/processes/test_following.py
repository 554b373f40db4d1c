"""What another process than the main one does with what it is told."""

import contextlib
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.options import ServiceOptions
from service.processes import following as following_module
from service.processes.following import Follower
from service.processes.messages import Orders, Report, States, Table, Told
from service.serving.config import ServingConfig
from service.serving.versions import State
from tests.service.services import wait_until
from tests.service.serving.served import save_scale

KEY = 7


@pytest.fixture
def told(tmp_path: Path) -> Told:
    """A version to load."""
    save_scale(tmp_path / "m" / "1", 3)
    return Told(KEY, "m", 1, tmp_path / "m" / "1", is_wanted=True, error=None)


@contextlib.contextmanager
def following(
    base: Path, table: Table, state: State
) -> Iterator[tuple[Follower, "Connection[Any, Any]", States]]:
    """A follower that has heeded a table, and what its main process has."""
    states = States(base, make=True)
    states[KEY] = state.value
    here, there = multiprocessing.Pipe()
    with here:  # which ends the threads that use `there`
        follower = Follower(
            Orders(ServiceOptions.read([]), ServingConfig(base), base), there
        )
        here.send(table)
        follower.start()
        yield follower, here, states


def is_used(follower: Follower) -> bool:
    try:
        with follower.use("m", 1):
            return True
    except tf.errors.NotFoundError:
        return False


def test_a_version_is_there_while_the_main_process_says_so(
    tmp_path: Path, told: Told
) -> None:
    table = Table((told,), {"m": {"good": 1}})
    with following(tmp_path, table, State.LOADING) as (follower, main, states):
        assert main.recv() == Report("loaded", KEY)
        assert not is_used(follower)
        assert follower.statuses("m")[0].state is State.LOADING
        states[KEY] = State.AVAILABLE.value
        with follower.use("m", label="good") as (number, model):
            assert number == 1
            states[KEY] = State.UNLOADING.value
            assert not is_used(follower)
            main.send(Table((replace(told, is_wanted=False),)))
            assert not main.poll(0.2)  # it is used
            assert model.signatures
        assert main.recv() == Report("closed", KEY)
        main.send(Table())
        wait_until(lambda: not follower.knows("m"))


def test_one_that_cannot_be_loaded_is_reported(tmp_path: Path, told: Told) -> None:
    (told.directory / "saved_model.pb").write_bytes(b"no model")
    with following(tmp_path, Table((told,)), State.LOADING) as (follower, main, states):
        report = main.recv()
        assert (report.what, report.key) == ("failed", KEY)
        states[KEY] = State.END.value
        main.send(Table((replace(told, is_wanted=False, error=report.error),)))
        wait_until(lambda: follower.statuses("m", 1)[0].error is not None)
        assert str(follower.statuses("m", 1)[0].error) == str(report.error)


def test_one_that_failed_elsewhere_is_closed(tmp_path: Path, told: Told) -> None:
    with following(tmp_path, Table((told,)), State.LOADING) as (follower, main, states):
        assert main.recv() == Report("loaded", KEY)
        states[KEY] = State.END.value
        error = tf.errors.ResourceExhaustedError(None, None, "no memory")
        main.send(Table((replace(told, is_wanted=False, error=error),)))
        assert main.recv() == Report("closed", KEY)
        assert follower.statuses("m", 1)[0].error.message == "no memory"


def test_it_says_again_and_again_that_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following_module, "_SECONDS_BETWEEN_SIGNS", 0.2)
    with following(tmp_path, Table(), State.START) as (follower, main, _):
        giving = threading.Thread(target=follower.give_signs)
        giving.start()
        assert main.recv() == main.recv() == Report("running")
    giving.join()
