"""Carry out an experiment and write it down: JSON, CSV, a picture and one line.

The JSON has the store's measurements too, so that another machine can go on from it.
"""

import csv
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.experiment import Experiment, Finding
from experiments.lab import Lab, Measurement
from training.errors import UserError


def carry_out(
    experiment: Experiment,
    quick: bool,
    archives: Path | None,
    stores: Path,
    output: Path,
) -> str:
    """Run what has not been run yet, and write the results.

    Args:
        experiment: What to run.
        quick: Whether to run its small configuration.
        archives: The directory of MNIST's archives, or `None`.
        stores: The directory of the measurements.
        output: The directory of the results.

    Returns:
        The verdict, in one line.
    """
    config = experiment.quick if quick else experiment.full
    with Lab(experiment.name, stores, archives) as lab:
        lab.check(dataclasses.asdict(config))
        measured = experiment.run(lab, config)
        # R2 has no measurements but those of R1.
        records = lab.records or [r for other in lab.others for r in other.records]
    finding = experiment.analyse(measured, config)
    result = {
        **_described(experiment),
        "mode": "quick" if quick else "full",
        "config": dataclasses.asdict(config),
        **dataclasses.asdict(finding),
        "command": _command(experiment, archives),
        **_summary(records),
        "measured_values": measured,
        "records": lab.records,
    }
    output.mkdir(parents=True, exist_ok=True)
    path = output / experiment.name
    path.with_suffix(".json").write_text(_dump(result), encoding="utf-8")
    _write_table(records, path.with_suffix(".csv"))
    draw(experiment, measured, path.with_suffix(".png"))
    return verdict(experiment, finding)


def keep(experiment: Experiment, stores: Path, output: Path) -> str:
    """Write down the measurements of a full run that has not come to its end.

    Returns:
        What was kept, in one line.
    """
    path = output / f"{experiment.name}.json"
    if path.exists() and json.loads(path.read_text("utf-8"))["mode"] == "full":
        raise UserError(f"{path} is the result of a finished run, which stays.")
    with Lab(experiment.name, stores) as lab:
        if not lab.records:
            raise UserError(
                f"{lab.directory} has no measurements to keep. Run it first."
            )
        lab.check(dataclasses.asdict(experiment.full))
    result = {
        **_described(experiment),
        "mode": "unfinished",
        "config": dataclasses.asdict(experiment.full),
        **_summary(lab.records),
        "records": lab.records,
    }
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(_dump(result), encoding="utf-8")
    return f"{path}: {len(lab.records)} measurements, unfinished"


def go_on(experiments: Iterable[Experiment], stores: Path, results: Path) -> None:
    """Let the stores of experiments begin with the measurements of results files.

    Raises:
        UserError: If one of them has none, as where all are another experiment's.
    """
    kept = {}
    for experiment in experiments:
        path = results / f"{experiment.name}.json"
        result = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if not result.get("records"):
            raise UserError(
                f"{path} holds no measurements of {experiment.name} to go on from. "
                "Leave out `--from-results`, or this name."
            )
        kept[experiment.name] = result
    for name, result in kept.items():
        with Lab(name, stores) as lab:
            lab.begin_with(result["records"], result["config"])


def verdict(experiment: Experiment, finding: Finding) -> str:
    """Return one line: claim, criterion, what was measured, whether the claim holds."""
    return (
        f"{experiment.name}: {experiment.claim} | Criterion: {experiment.criterion} | "
        f"Measured: {finding.measured} | "
        f"{'HOLDS' if finding.holds else 'DOES NOT HOLD'}"
    )


def draw(experiment: Experiment, measured: dict[str, Any], path: Path) -> None:
    """Draw the experiment's picture."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    experiment.plot(measured, figure)
    figure.suptitle(experiment.title)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _described(experiment: Experiment) -> dict[str, str]:
    names = ("name", "title", "claim", "source", "criterion")
    return {name: getattr(experiment, name) for name in names}


def _command(experiment: Experiment, archives: Path | None) -> str:
    command = f"python -m experiments run {experiment.name}"
    return command + (" --archives DIR" if archives else "")


def _summary(records: list[Measurement]) -> dict[str, Any]:
    """Return how long the measurements took, and where they were made."""
    return {
        "trainings": len(records),
        "seconds": round(sum(r["seconds"] for r in records), 1),
        "cpu_seconds": round(sum(r["cpu_seconds"] for r in records), 1),
        "dates": [f(r["date"] for r in records) for f in (min, max)] if records else [],
        "commits": list(dict.fromkeys(r["commit"] for r in records)),
        "machine": sorted({r["machine"] for r in records}),
        "versions": records[-1]["versions"] if records else {},
    }


def _write_table(records: list[Measurement], path: Path) -> None:
    """Write a row for each measurement, without its curves."""
    rows = [
        {
            **record["key"],
            **{k: v for k, v in record["value"].items() if not isinstance(v, list)},
            **{k: record[k] for k in ("seconds", "cpu_seconds", "date", "commit")},
        }
        for record in records
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _dump(result: dict[str, Any]) -> str:
    """Write one key in a line, since the measurements are long."""
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in result.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
