"""docs/results.md, made of stored results."""

import json

from experiments.__main__ import PAGE, RESULTS
from experiments.registry import EXPERIMENTS
from experiments.report import page, read_results


def test_the_page_is_made_of_the_stored_results():
    stored = read_results(RESULTS)
    assert PAGE.read_text(encoding="utf-8") == page(EXPERIMENTS, stored)
    for name, result in stored.items():
        assert result["criterion"] == EXPERIMENTS[name].criterion  # never changed
        assert result["claim"] == EXPERIMENTS[name].claim
        assert result["trainings"] > 0
        assert result["holds"] or result["remark"], name  # what was tried


def stored(name, **changes):
    experiment = EXPERIMENTS[name]
    return {
        **{k: getattr(experiment, k) for k in ("name", "title", "claim", "source")},
        "criterion": experiment.criterion,
        "mode": "full",
        "holds": True,
        "measured": "a ratio of 0.4",
        "numbers": [{"what": "steps", "ours": "12", "paper": "13"}],
        "p": 0.03,
        "remark": "",
        "command": f"python -m experiments run {name}",
        "config": {"seeds": [1, 2, 3]},
        "trainings": 7,
        "seconds": 100.0,
        "cpu_seconds": 60.0,
        "dates": ["2026-01-01", "2026-01-02"],
        "commits": ["abc"],
        "machine": ["a machine"],
        "versions": {"python": "3.12"},
        **changes,
    }


def test_the_page_says_what_holds_what_does_not_and_what_was_not_run(tmp_path):
    for result in (
        stored("r1"),
        stored("r5", holds=False, remark="A longer run was tried.", p=0.01),
        stored("r6", mode="quick"),
    ):
        path = tmp_path / f"{result['name']}.json"
        path.write_text(json.dumps(result))
    text = page(EXPERIMENTS, read_results(tmp_path))
    verdicts = {
        cells[1].split("]")[0].strip("[ "): cells[3].strip()
        for cells in (line.split("|") for line in text.splitlines())
        if len(cells) == 5
        and cells[3].strip() in ("holds", "not run", "**does not hold**")
    }
    assert verdicts.pop("r1") == "holds"
    assert verdicts.pop("r5") == "**does not hold**"
    assert set(verdicts.values()) == {"not run"}
    assert len(verdicts) == len(EXPERIMENTS) - 2
    assert "A longer run was tried." in text
    assert "run r5`: 3 seeds, 7 measurements" in text
    assert "| r5 | 0.01 | 0.02 |" in text
    assert "(results/r1.png)" in text
    assert "## R6" not in text
