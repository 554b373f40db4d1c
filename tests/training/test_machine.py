"""What is said of the machine."""

import os
import platform

import pytest

from training import machine


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Zen: 4\n\nmodel name\t: other\n", "Zen: 4"),
        ("processor\t: 0\nBogoMIPS\t: 48.00\n", platform.machine()),  # as on ARM
        (None, platform.machine()),
    ],
)
def test_the_name_of_the_processor(text, name, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    if text is not None:
        machine.CPUINFO.write_text(text)
    assert machine.processor() == name


def test_only_the_cores_that_the_process_may_use_count():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert machine.num_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert machine.num_cores() == len(allowed)
