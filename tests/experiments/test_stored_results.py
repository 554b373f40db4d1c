"""The committed results: nothing would be measured anew, nothing found anew."""

import csv
import dataclasses
import json
from ast import literal_eval
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.__main__ import RESULTS
from experiments.data import Split, Splits
from experiments.lab import Lab, Measurement
from experiments.registry import EXPERIMENTS
from experiments.report import read_results

MARKS = ("tuning", "explored", "timing", "map", "seed")  # empty where a key lacks them
FINISHED = [
    n for n, result in read_results(RESULTS).items() if result["mode"] == "full"
]


class CommittedLab(Lab):
    """A lab whose store is a committed table. It refuses to measure."""

    def __init__(self, name: str) -> None:
        super().__init__(name, Path())
        with (RESULTS / f"{name}.csv").open(encoding="utf-8") as file:
            self.rows = list(csv.DictReader(file))

    def of(self, name: str, config: Mapping[str, Any]) -> Lab:
        return CommittedLab(name)

    def data(self, dataset: str) -> Splits:
        nothing = Split(np.zeros((0, 28, 28, 1), "uint8"), np.zeros(0, "int32"))
        return Splits(nothing, nothing, nothing)

    def once(
        self, key: Mapping[str, Any], measure: Callable[[], Measurement]
    ) -> Measurement:
        wanted = {mark: "" for mark in MARKS if mark in self.rows[0]}
        wanted |= {name: str(value) for name, value in as_json(dict(key)).items()}
        found = [row for row in self.rows if row.items() >= wanted.items()]
        assert len(found) == 1, (self.name, key, found)
        return {k: read(v) for k, v in found[0].items() if k not in key}


def read(cell: str) -> Any:
    """Return the number in a cell, None if it is empty."""
    try:
        return literal_eval(cell) if cell else None
    except (SyntaxError, ValueError):
        return cell


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", FINISHED)
def test_no_committed_measurement_would_be_made_anew(name: str) -> None:
    experiment = EXPERIMENTS[name]
    experiment.run(CommittedLab(name), experiment.full)


@pytest.mark.parametrize("name", FINISHED)
def test_the_finding_is_that_of_the_committed_measurements(name: str) -> None:
    experiment = EXPERIMENTS[name]
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    finding = experiment.analyse(result["measured_values"], experiment.full)
    found = as_json(dataclasses.asdict(finding))
    p, p_stored = found.pop("p"), result["p"]
    assert p == (p_stored if p_stored is None else pytest.approx(p_stored, rel=1e-9))
    assert found == {key: result[key] for key in found}
    config = as_json(dataclasses.asdict(experiment.full))
    shared = config.keys() & result["config"].keys()
    assert {k: config[k] for k in shared} == {k: result["config"][k] for k in shared}
