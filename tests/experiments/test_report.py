"""docs/results.md, made of stored results."""

import json

import pytest

from experiments.__main__ import PAGE, RESULTS
from experiments.advice import FOLLOWS, ONE_ARM
from experiments.registry import EXPERIMENTS
from experiments.report import page, read_results
from training.errors import UserError


def test_the_page_is_made_of_the_stored_results():
    stored = read_results(RESULTS)
    assert PAGE.read_text(encoding="utf-8") == page(EXPERIMENTS, stored)
    for name, result in stored.items():
        assert result["criterion"] == EXPERIMENTS[name].criterion  # never changed
        assert result["claim"] == EXPERIMENTS[name].claim
        assert result["trainings"] > 0
        if result["mode"] == "full" and not name.endswith("-paper"):
            assert result["holds"] or result["remark"], name  # what was tried
            assert name in FOLLOWS


def test_every_claim_of_a_paper_has_two_arms_or_says_why_not():
    papers = [n for n in EXPERIMENTS if n[0] == "r" and not n.endswith("-paper")]
    for name in papers:
        assert (f"{name}-paper" in EXPERIMENTS) != (name in ONE_ARM), name


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


def verdicts(text):
    """Return both verdicts of each claim of a paper, without their links."""
    table = text.split("## Verdicts")[1].split("\nAsked beside")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    bare = [[cell.split("](")[0].lstrip("[") for cell in row] for row in rows[2:]]
    return {row[0].removeprefix("| "): row[2:4] for row in bare}


def test_the_page_says_what_holds_what_does_not_and_what_was_not_run(tmp_path):
    for result in (
        stored("r1"),
        stored("r1-paper", holds=False, p=0.02),
        stored("r5", holds=False, remark="A longer run was tried.", p=0.01),
        stored("r6", mode="quick"),
        stored("r3-paper", mode="unfinished"),
    ):
        path = tmp_path / f"{result['name']}.json"
        path.write_text(json.dumps(result))
    text = page(EXPERIMENTS, read_results(tmp_path))
    found = verdicts(text)
    assert found.pop("r1") == ["**does not hold**", "holds"]
    assert found.pop("r5")[1] == "**does not hold**"
    assert found.pop("r3") == ["unfinished, 7 measurements", "not run yet"]
    assert {tuned for _, tuned in found.values()} == {"not run yet"}
    assert "A longer run was tried." in text
    assert "run r5`: 3 seeds, 7 measurements" in text
    assert "| r5 | 0.01 | 0.02 |" in text  # of the two tuned ones
    assert "| r1 | 0.02 | 0.02 |" in text  # of the paper's
    assert "(results/r1.png)" in text
    assert "(#r1-as-the-paper-had-it-" in text
    assert "## R6" not in text
    assert "## R3" not in text


def test_a_result_of_another_configuration_is_refused():
    config = {"seeds": [1, 2], "width": 7}
    with pytest.raises(UserError, match=r"r12\.json was measured with another width\."):
        page(EXPERIMENTS, {"r12": stored("r12", config=config)})
