"""The fuzzer of bodies that become large, for a short time."""

import contextlib
from pathlib import Path

import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")
pytest.importorskip("tensorflow_serving", reason="pip install --group serve")

from tests.service.serving.fuzz_memory import (
    UNEXPECTED,
    Ports,
    fuzz,
    measure,
    serve_both,
)
from tests.service.serving.served import save_all, save_sizes


def test_hostile_bodies_are_answered_and_leave_nothing(tmp_path: Path) -> None:
    save_all(tmp_path)
    save_sizes(tmp_path / "sizes" / "1")
    with serve_both(tmp_path) as (rest, grpc_port, serving):
        with contextlib.closing(Ports(rest, grpc_port)) as ports:
            answers = fuzz(ports, 200, seed=3, largest=2**17)
        assert serving.workers.room.taken == serving.workers.bodies.taken == 0
    assert sum(answers.values()) == 200
    assert UNEXPECTED not in answers
    assert {"200", "400", "OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"} <= set(
        answers
    )


@pytest.mark.slow
def test_the_peak_of_memory_is_below_the_documented_bound() -> None:
    result = measure(1500, seed=4, largest=2**26)
    assert result["peak"] <= result["bound"]
    assert UNEXPECTED not in result["answers"]
