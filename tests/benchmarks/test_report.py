"""Results become JSON, tables and a picture."""

import itertools
import json

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.report import report
from tests.benchmarks.results import RESULTS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_results_become_json_tables_and_a_picture(name, tmp_path, capsys):
    report(name, RESULTS[name], tmp_path)
    assert json.loads((tmp_path / f"{name}.json").read_text()) == RESULTS[name]
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    lines = (tmp_path / f"{name}.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows
    assert "kerasnorm" in capsys.readouterr().out
    tables = [list(g) for is_row, g in itertools.groupby(rows, bool) if is_row]
    assert all(row.endswith("|") for table in tables for row in table)
