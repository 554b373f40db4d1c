"""An experiment's data, and the store of all its measurements.

Every measurement is appended to a file as soon as it is made, so a stopped experiment
goes on where it stopped.
"""

import contextlib
import datetime
import functools
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from experiments.data import Splits, load_splits
from training.errors import UserError
from training.machine import num_cores, processor
from training.options.values import REPOSITORY
from training.run.atomic import write_atomically
from training.run.claim import claim

Measurement = dict[str, Any]

PACKAGES = ("kerasnorm", "keras", "tensorflow", "numpy", "scipy")


class Lab:
    """The store of one experiment, used by one process at a time.

    Args:
        name: The name of the experiment.
        directory: Holds the stores; this one is the directory `name` in it.
        archives: The directory of MNIST's archives. With `None` TFDS downloads them.
        report: Takes a line about every new measurement.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        archives: Path | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        self.name = name
        self.directory = directory / name
        self._archives, self._report = archives, report
        self._stack = contextlib.ExitStack()
        self.records: list[Measurement] = []
        self.others: list[Lab] = []  # opened by `of`

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(claim(self.directory))
        self.records = _read(self._path)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def check(self, config: Mapping[str, Any]) -> None:
        """Keep the configuration; refuse one that differs from the store's.

        Not every value is part of the keys. Seeds are, so they may change. New fields
        may be added.

        Raises:
            UserError: If another value has changed, or there are measurements and
                no configuration.
        """
        path = self.directory / "config.json"
        new = json.loads(json.dumps(config))
        old = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if self.records and not old:
            raise UserError(
                f"{self.directory} was measured with an unknown configuration. "
                "Move it away to measure anew."
            )
        if changed := differences(old, new):
            raise UserError(
                f"{self.directory} was measured with another {', '.join(changed)}. "
                "Move it away to measure anew."
            )
        write_atomically(path, json.dumps({**old, **new}))

    def begin_with(
        self, records: Iterable[Measurement], config: Mapping[str, Any]
    ) -> None:
        """Put the measurements of another store, and its configuration, into this one.

        Raises:
            UserError: If this store has measurements of its own.
        """
        if self.records:
            raise UserError(
                f"{self.directory} has measurements already, and goes on from them. "
                "Leave out `--from-results`, or move it away."
            )
        self.check(config)
        for record in records:
            _append(self._path, record)
            self.records.append(record)

    @property
    def _path(self) -> Path:
        return self.directory / "measurements.jsonl"

    def of(self, name: str, config: Mapping[str, Any]) -> "Lab":
        """Open the lab of another experiment, whose measurements this one needs.

        Args:
            name: The name of the other experiment.
            config: Its configuration, which `check` keeps or refuses.
        """
        other = Lab(name, self.directory.parent, self._archives, self._report)
        self.others.append(self._stack.enter_context(other))
        other.check(config)
        return other

    def weights(self, name: str) -> Path:
        """Return where the weights of a network are kept."""
        directory = self.directory / "weights"
        directory.mkdir(exist_ok=True)
        return directory / f"{name.replace(' ', '')}.weights.h5"

    def data(self, dataset: str) -> Splits:
        """Load all images of a dataset."""
        return load_splits(dataset, self._archives)

    def once(
        self, key: Mapping[str, Any], measure: Callable[[], Measurement]
    ) -> Measurement:
        """Return a measurement from the store; make it first if it is not there.

        Args:
            key: What tells the measurement from all others.
            measure: Makes it, of values that JSON can hold.
        """
        known = json.loads(json.dumps(key))  # tuples become lists
        for record in self.records:
            if record["key"] == known:
                return record["value"]
        wall, cpu = time.perf_counter(), time.process_time()
        value = measure()
        record = {
            "key": known,
            "value": json.loads(json.dumps(value)),
            "seconds": round(time.perf_counter() - wall, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            **circumstances(),
        }
        _append(self._path, record)
        self.records.append(record)
        scalars = {k: v for k, v in value.items() if isinstance(v, (int, float))}
        self._report(f"{self.name} {known} -> {scalars} ({record['seconds']} s)")
        return record["value"]

    def tune(
        self,
        arm: Mapping[str, Any],
        choices: Iterable[Mapping[str, Any]],
        measure: Callable[[Mapping[str, Any]], Measurement],
    ) -> dict[str, Any]:
        """Return the choice with the highest `"score"` on validation data.

        Args:
            arm: What is tuned, and what else determines the scores.
            choices: The settings to choose from.
            measure: Trains with one choice and a seed that is kept for tuning.
        """
        scores = []
        for choice in map(dict, choices):
            key = {"tuning": True, **arm, **choice}
            measured = self.once(key, functools.partial(measure, choice))
            scores.append((measured["score"], choice))
        return max(scores, key=lambda score: score[0])[1]

    def tune_rate(
        self,
        arm: Mapping[str, Any],
        rates: Iterable[float],
        measure: Callable[[float], Measurement],
    ) -> float:
        """Return the learning rate with the highest `"score"`, as `tune` does."""
        choices = [{"rate": rate} for rate in rates]
        return self.tune(arm, choices, lambda choice: measure(choice["rate"]))["rate"]

    def with_seeds(
        self,
        key: Mapping[str, Any],
        seeds: Iterable[int],
        measure: Callable[[int], Measurement],
    ) -> list[Measurement]:
        """Return the measurement of each seed, as `once` does."""
        return [
            self.once({**key, "seed": seed}, functools.partial(measure, seed))
            for seed in seeds
        ]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the values, but seeds, that both configurations have and that differ."""
    common = (old.keys() & new.keys()) - {"seeds"}
    return sorted(name for name in common if old[name] != new[name])


def circumstances() -> dict[str, Any]:
    """Return the time, the commit, the machine and the versions of a measurement."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": now.isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": f"{processor()}, {num_cores()} cores",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }


@functools.cache
def commit() -> str:
    """Return the commit that this process runs, with a + if files differ from it."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--", "experiments", "kerasnorm")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(REPOSITORY), *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def _read(path: Path) -> list[Measurement]:
    """Return all whole records. A process that was killed may have left half of one."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_atomically(path, whole)
    return [json.loads(line) for line in whole.splitlines()]


def _append(path: Path, record: Measurement) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())
