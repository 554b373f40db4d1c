"""Waiting for a quiet machine."""

import time

from benchmarks import quiet
from tests.benchmarks.clock import FakeClock


def disturbed(monkeypatch, others):
    """Pretend that other processes use these numbers of cores, timing by timing."""
    clock, others = FakeClock(), iter(others)
    monkeypatch.setattr(quiet.time, "monotonic", clock)
    monkeypatch.setattr(quiet, "wait_for_quiet", lambda deadline: None)

    def during(run):
        clock.now += 1
        return run(), next(others)

    monkeypatch.setattr(quiet, "during", during)


def test_a_disturbed_timing_is_made_again(monkeypatch):
    disturbed(monkeypatch, [1.5, 0.02, 0.0])
    measured = quiet.measure({"kerasnorm": int}, budget=0, patience=60)
    assert measured["others"] == 0.02
    assert measured["times"]["kerasnorm"]["ratio"] == 1


def test_where_it_stays_loud_the_least_disturbed_timing_counts(monkeypatch):
    disturbed(monkeypatch, [1.5, 0.7, 0.9, 0.0])
    assert quiet.measure({"kerasnorm": int}, 0, patience=3)["others"] == 0.7


def test_own_work_is_not_others(monkeypatch):
    """In 2 s two cores were busy for 3 s, of which this process used 1 s."""
    for module, name, values in (
        (quiet.time, "monotonic", [10, 12]),
        (quiet.time, "process_time", [5, 6]),
        (quiet, "busy_seconds", [100, 103]),
    ):
        monkeypatch.setattr(module, name, iter(values).__next__)
    assert quiet.during(lambda: "done") == ("done", 1.0)


def test_the_seconds_in_use_grow():
    before = quiet.busy_seconds()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert quiet.busy_seconds() > before
