"""Put small faults into the code, one at a time, and see which the tests notice.

    python -m tests.mutants sample FOLDER
    python -m tests.mutants map FOLDER tests/test_dropout.py ...
    python -m tests.mutants run FOLDER
    python -m tests.mutants table FOLDER

`sample` draws the faults: sample.json. `map` runs tests under coverage and notes which
lines each of them runs: map.jsonl; called again, it adds. `run` puts each fault into a
copy of the repository and runs the tests that run its line: results.jsonl; stopped and
called again, it goes on. `table` counts, and writes survivors.md. A fault that changes
no behaviour is told apart by hand: equivalent.json, {"number": "the reason"}.

To compare two states of the repository, copy the first one's sample.json and
equivalent.json into another folder and call `map`, `run` and `table` there. A fault is
found again by its function and its statement, wherever those are now.

`map` needs coverage. `run` imports TensorFlow once and forks for each fault.
"""

import collections
import importlib.metadata
import json
import operator
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults import ROOMS, Mutant, all_mutants, found_again

SIZE, LEAST, SEED = 145, 16, 20240229  # of the sample; of it from each room
AT_A_TIME = 2
FIRST, SECONDS = 15, (60, 240)  # tests in the first batch, seconds in the next ones

OPTIONS = [
    *("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # the plugins are imported
]
VERDICTS = "killed", "timeout", "survived", "equivalent", "gone", "error", "to do"
SURVIVOR = """\
- {number} ({verdict}; {tests} of {of} tests): {path}:{line} {function}, {kind}
  - `{before}`
  - `{after}`
"""


def main() -> None:
    """Run the command."""
    command, folder, *tests = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    if command == "map":
        sys.exit(map_tests(Path(folder), tests))
    {"sample": sample, "run": run, "table": table}[command](Path(folder))


def sample(folder: Path) -> None:
    """Draw the faults, from each room by the number of its statements."""
    mutants = list(all_mutants())
    rooms = collections.Counter(mutant.room for mutant in mutants)
    chosen = []
    for room, number in rooms.items():
        own = [mutant for mutant in mutants if mutant.room == room]
        size = max(LEAST, round(SIZE * number / len(mutants)))
        chosen += random.Random(f"{SEED} {room}").sample(own, min(size, number))
    rows = [
        {"number": number}
        | {k: v for k, v in vars(mutant).items() if k not in ("lines", "source")}
        for number, mutant in enumerate(chosen, start=1)
    ]
    text = ",\n".join(json.dumps(row) for row in rows)
    (folder / "sample.json").write_text(f"[\n{text}\n]\n")
    print(rooms, collections.Counter(row["room"] for row in rows))


# The tests.


class Watch:
    """A plugin of pytest: what each test has run, how long it took, what failed."""

    def __init__(self, coverage: Any = None, rows: Path = Path(os.devnull)) -> None:
        self.coverage, self.rows = coverage, rows
        self.known = {row["test"] for row in read_lines(rows)}
        self.failed: list[str] = []
        self.skipped: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.start = processor_seconds()
        if self.coverage:
            self.coverage.switch_context(nodeid)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.known]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        if report.skipped:
            self.skipped.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(f"import of {report.nodeid}")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if not self.coverage or nodeid in self.skipped.union(self.failed):
            return
        data = self.coverage.get_data()
        data.set_query_context(nodeid)
        lines = {
            os.path.relpath(path): sorted(data.lines(path) or [])
            for path in data.measured_files()
        }
        lines = {path: numbers for path, numbers in lines.items() if numbers}
        seconds = round(processor_seconds() - self.start, 3)
        with self.rows.open("a") as file:
            row = {"test": nodeid, "seconds": seconds, "lines": lines}
            file.write(json.dumps(row) + "\n")


def processor_seconds() -> float:
    """Of this process and its children so far: the machine may have other work."""
    return sum(os.times()[:4])


def map_tests(folder: Path, tests: list[str]) -> int:
    """Run tests and note which lines each of them runs."""
    from coverage import Coverage

    sys.path[0] = os.environ["PYTHONPATH"] = str(Path.cwd())
    patterns = [str(Path.cwd() / each) for files, _ in ROOMS.values() for each in files]
    coverage = Coverage(data_file=None, config_file=False, include=patterns)
    with coverage.collect():
        watch = Watch(coverage, folder / "map.jsonl")
        return pytest.main(["-q", "-p", "no:cacheprovider", *tests], [watch])


def batches_for(
    mutant: Mutant, tests: list[dict[str, Any]]
) -> tuple[list[list[dict[str, Any]]], int]:
    """The tests that may notice, the fastest of each function first, in batches.

    Also the number of all of them: there may be more than there is time for.
    """
    lines = set(range(mutant.lines[0], mutant.lines[1] + 1))
    _, others = ROOMS[mutant.room]
    in_file = [test for test in tests if mutant.path in test["lines"]]
    on_lines = [t for t in in_file if not lines.isdisjoint(t["lines"][mutant.path])]
    covering = {test["test"] for test in on_lines or in_file}
    ranks: collections.Counter[str] = collections.Counter()
    ranked = []
    for test in sorted(tests, key=operator.itemgetter("seconds")):
        covers = test["test"] in covering
        if covers or test["test"].startswith(tuple(others)):
            function = test["test"].partition("[")[0]
            ranked.append((not covers, ranks[function], test["seconds"], test))
            ranks[function] += 1
    ordered = [test for *_, test in sorted(ranked, key=operator.itemgetter(0, 1, 2))]
    batches, rest = [ordered[:FIRST]], ordered[FIRST:]
    for limit in SECONDS:
        taken, total = 0, 0.0
        while taken < len(rest) and total + rest[taken]["seconds"] <= limit:
            total += rest[taken]["seconds"]
            taken += 1
        batches, rest = [*batches, rest[:taken]], rest[taken:]
    return [batch for batch in batches if batch], len(ordered)


def run(folder: Path) -> None:
    """Try each fault of the sample that has no result yet."""
    import keras  # noqa: F401  (with TensorFlow, for all that are forked)

    for plugin in importlib.metadata.entry_points(group="pytest11"):
        plugin.load()
    rows = json.loads((folder / "sample.json").read_text())
    tests = read_lines(folder / "map.jsonl")
    known = {row["number"] for row in read_lines(folder / "results.jsonl")}
    mutants = list(all_mutants())
    (folder / "logs").mkdir(exist_ok=True)
    at_work = 0
    for row in rows:
        if row["number"] in known:
            continue
        if at_work == AT_A_TIME:
            os.wait()
            at_work -= 1
        at_work += 1
        if os.fork() == 0:
            result = examine(row, found_again(row, mutants), tests, folder)
            with (folder / "results.jsonl").open("a") as file:
                file.write(json.dumps({"number": row["number"], **result}) + "\n")
            os._exit(0)
    while at_work:
        os.wait()
        at_work -= 1
    table(folder)


def examine(
    row: dict[str, Any],
    mutant: Mutant | None,
    tests: list[dict[str, Any]],
    folder: Path,
) -> dict[str, Any]:
    """Run the tests with one fault, until one of them fails."""
    if mutant is None:
        return {"verdict": "gone"}
    start, verdict, by, done = time.monotonic(), "survived", "", []
    batches, number = batches_for(mutant, tests)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        tree = Path(temporary, "tree")
        hidden = shutil.ignore_patterns(".*", "build")
        shutil.copytree(".", tree, ignore=hidden, copy_function=os.link, symlinks=True)
        (tree / mutant.path).unlink()
        (tree / mutant.path).write_text(mutant.source)
        for batch in batches:
            names = [test["test"] for test in batch]
            limit = 300 + 20 * sum(test["seconds"] for test in batch)
            log = folder.resolve() / "logs" / f"{row['number']}.txt"
            verdict, by = attempt(tree, names, round(limit), log)
            done += names
            if verdict != "survived":
                break
    return {
        **{"verdict": verdict, "by": by, "tests": len(done), "of": number},
        **{"seconds": round(time.monotonic() - start), "path": mutant.path},
        **{"function": mutant.function, "line": mutant.lines[0]},
        "run": sorted({name.partition("[")[0] for name in done}),
    }


def attempt(tree: Path, tests: list[str], limit: int, log: Path) -> tuple[str, str]:
    """Run tests in a copy of the repository; the verdict, and what has failed."""
    failed = tree.parent / "failed"
    failed.write_text("")
    child = os.fork()
    if child == 0:
        signal.alarm(limit)  # which ends the process
        code: int = pytest.ExitCode.INTERNAL_ERROR
        try:
            enter(tree, log)
            watch = Watch()
            code = pytest.main([*OPTIONS, *tests], [watch])
            failed.write_text(" ".join(watch.failed))
            sys.stdout.flush()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    end_strays(tree)
    if os.WIFSIGNALED(status):
        is_late = os.WTERMSIG(status) == signal.SIGALRM
        return "timeout" if is_late else "killed", f"signal {os.WTERMSIG(status)}"
    # 2 and 4: a module of tests could not be imported.
    verdict = {0: "survived", 1: "killed", 2: "killed", 4: "killed"}
    return verdict.get(os.WEXITSTATUS(status), "error"), failed.read_text()


def enter(tree: Path, log: Path) -> None:
    """Let this process, and those that it starts, work in a copy of the repository."""
    os.setsid()
    os.chdir(tree)
    os.environ |= {"PYTHONPATH": str(tree), "TMPDIR": str(tree.parent)}
    tempfile.tempdir = None
    sys.path[0] = str(tree)
    for name in [n for n in sys.modules if n.partition(".")[0] == "tests"]:
        del sys.modules[name]
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)


def end_strays(tree: Path) -> None:
    """End the processes that the tests in a copy of the repository have left."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("PYTHONPATH") == str(tree):
                process.kill()
        except psutil.Error:
            pass


# The results.


def table(folder: Path) -> None:
    """Count the verdicts by room, and list the survivors."""
    results = {row["number"]: row for row in read_lines(folder / "results.jsonl")}
    reasons = folder / "equivalent.json"
    equivalent = json.loads(reasons.read_text()) if reasons.exists() else {}
    counts: dict[str, collections.Counter[str]] = {}
    survivors = []
    for row in json.loads((folder / "sample.json").read_text()):
        result = results.get(row["number"], {"verdict": "to do"})
        verdict, reason = result["verdict"], equivalent.get(str(row["number"]), "")
        if verdict == "survived":
            verdict = "equivalent" if reason else verdict
            survivors.append(SURVIVOR.format(**{**row, **result, "verdict": verdict}))
            survivors.append(f"  - {reason}\n" if reason else "")
        for room in (row["room"], "all"):
            counts.setdefault(room, collections.Counter())[verdict] += 1
    lines = [f"| room | {' | '.join(VERDICTS)} |", "|---" * (len(VERDICTS) + 1) + "|"]
    for room, count in sorted(counts.items()):
        lines.append(f"| {room} | {' | '.join(str(count[v]) for v in VERDICTS)} |")
    text = "\n".join(lines)
    (folder / "survivors.md").write_text(f"{text}\n\n{''.join(survivors)}")
    print(text)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none if there is no file."""
    return list(map(json.loads, path.read_text().splitlines())) if path.exists() else []


if __name__ == "__main__":
    main()
