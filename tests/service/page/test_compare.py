"""The comparison of jobs, without a browser."""

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="needs Gradio: pip install --group serve")

from service.jobs.plan import Plan
from service.jobs.store import Store
from service.page import compare
from training.config import TrainConfig


def test_a_search_is_compared_as_a_sweep_is(tmp_path: Path) -> None:
    """Trials that have no values yet show none."""
    store = Store(tmp_path / "jobs.sqlite")
    ranges = {"dropout_rate": {"low": 0.1, "high": 0.6}}
    plan = Plan.model_validate(
        {"trials": 3, "seed": 0, "ranges": ranges, "choices": {}}
    )
    config = TrainConfig(run_dir=tmp_path, dropout_rate=0.1)
    text = plan.model_dump_json()
    number, _ = store.add_sweep(["dropout_rate"], [config] * 3, 0, plan=text)
    for rate in (0.2, 0.3):
        (job,) = store.next(1)
        store.start(job, attempts=1, epochs=0)
        drawn = plan.config_with({"dropout_rate": rate}, config, job.id)
        store.draw(job, drawn)
    jobs = store.of_sweep(number)
    assert compare._label(store, number) == "search 1: dropout_rate"
    assert [compare._differing(jobs, job) for job in jobs] == [
        {"dropout_rate": 0.2},
        {"dropout_rate": 0.3},
        {"dropout_rate": "not drawn yet"},
    ]
    store.close()
