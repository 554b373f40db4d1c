"""Runs that are killed and resumed end with the bits of the uninterrupted run."""

import csv
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import resume_hint

Start = Callable[..., "subprocess.Popen[str]"]
RunToEnd = Callable[..., "subprocess.CompletedProcess[str]"]

# 120 steps an epoch are long enough to be hit in the middle.
OPTIONS = (
    *("--model", "mlp", "--epochs", 8, "--batch-size", 4, "--learning-rate", 3e-4),
    *("--weight-decay", 0, "--validation-split", 0.1),
)


@pytest.fixture(scope="module")
def uninterrupted(
    run_train_py: RunToEnd, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("uninterrupted")
    process = run_train_py(*arguments(pictures), cwd=root)
    assert process.returncode == 0, process.stderr
    return root / "runs" / "fashion"


def arguments(pictures: Path, patience: int = 4) -> tuple[object, ...]:
    return (
        *OPTIONS,
        *("--patience", patience),
        *("--dataset", f"folder:{pictures}", "--name", "fashion"),
        *("--run-dir", "runs", "--export-dir", "exports"),
    )


def history(run: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def variables(run: Path) -> dict[str, np.ndarray]:
    """All that the last checkpoint holds but the run's state, which has seconds."""
    reader = tf.train.load_checkpoint(str(run / "checkpoints"))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if not name.startswith(("run/", "_CHECKPOINTABLE"))
    }


def weights(run: Path) -> list[np.ndarray]:
    import keras

    import kerasnorm  # noqa: F401  (registers the layers)

    return keras.models.load_model(run / "model.keras").get_weights()


def kill(process: "subprocess.Popen[str]", when: Callable[[], bool]) -> None:
    """SIGKILL as soon as something has come true; the process must not have ended."""
    deadline = time.monotonic() + 120
    while not when():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def in_epoch(number: int, process: "subprocess.Popen[str]") -> Callable[[], bool]:
    """True once the process has told that the epoch has begun, and a little later."""

    def read() -> bool:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"Epoch {number}/"):
                time.sleep(0.3)
                return True
        return False

    return read


def assert_same_end(one: Path, other: Path) -> None:
    """The same history, variables, exported weights and metrics, bit for bit."""
    assert history(one) == history(other)
    expected, received = variables(one), variables(other)
    assert expected.keys() == received.keys()
    assert any("seed" in name for name in expected)
    assert any("optimizer" in name for name in expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)
    for first, second in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(first, second)
    metrics = [
        json.loads((directory / "result.json").read_text())["metrics"]
        for directory in (one, other)
    ]
    assert metrics[0] == metrics[1]


def test_a_run_killed_at_several_points_ends_as_if_it_had_not_been(
    train_py: Start,
    run_train_py: RunToEnd,
    pictures: Path,
    uninterrupted: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "runs" / "fashion"
    versions = tmp_path / "exports" / "fashion"
    resume = ("--resume", "runs/fashion")

    process = train_py(*arguments(pictures), cwd=tmp_path)
    kill(process, in_epoch(1, process))
    assert not (run / "history.csv").exists()

    process = train_py(*resume, cwd=tmp_path)
    kill(process, (run / "checkpoints" / "ckpt-2.index").exists)

    process = train_py(*resume, cwd=tmp_path)
    kill(process, in_epoch(4, process))
    assert [row["epoch"] for row in history(run)] == ["1", "2", "3"]

    process = train_py(*resume, cwd=tmp_path)
    kill(process, lambda: bool(list(versions.glob(".incomplete*"))))
    assert [p for p in versions.iterdir() if not p.name.startswith(".")] == []
    assert not (run / "result.json").exists()

    ended = run_train_py(*resume, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [path.name for path in versions.iterdir()] == ["1"]

    rows = history(uninterrupted)
    losses = [float(row["val_loss"]) for row in rows]
    # Early stopping has ended the run, in either with what it knew from before.
    assert len(rows) < 8
    assert np.argmin(losses) == len(rows) - 5
    assert_same_end(uninterrupted, run)


def test_a_killed_cnn_ends_as_if_it_had_not_been(
    train_py: Start, run_train_py: RunToEnd, pictures: Path, tmp_path: Path
) -> None:
    options = (
        *("--model", "cnn", "--epochs", 3, "--batch-size", 16, "--name", "cnn"),
        *("--dataset", f"folder:{pictures}", "--max-norm", 3, "--monitor"),
        *("--run-dir", "runs", "--export-dir", "exports"),
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    process = train_py(*options, cwd=killed)
    kill(process, in_epoch(2, process))
    assert len(history(killed / "runs" / "cnn")) == 1
    for process in (
        run_train_py("--resume", "runs/cnn", cwd=killed),
        run_train_py(*options, cwd=whole),
    ):
        assert process.returncode == 0, process.stderr
    assert_same_end(whole / "runs" / "cnn", killed / "runs" / "cnn")
    records = (killed / "runs" / "cnn" / "monitor.csv").read_text()
    assert records == (whole / "runs" / "cnn" / "monitor.csv").read_text()
    rows = list(csv.DictReader(records.splitlines()))
    # 3 x 34 steps, a record at every second, a row for each of five layers.
    assert [int(row["step"]) for row in rows[::5]] == list(range(2, 103, 2))
    assert {row["epoch"] for row in rows} == {"0", "1", "2"}
    assert (killed / "runs" / "cnn" / "monitor.png").exists()


def test_another_seed_gives_other_weights(
    run_train_py: RunToEnd, pictures: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    process = run_train_py(*arguments(pictures, patience=1), "--seed", 1, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert history(tmp_path / "runs" / "fashion")[0] != history(uninterrupted)[0]


@pytest.fixture
def finished_copy(uninterrupted: Path, tmp_path: Path) -> Path:
    """A finished run that a test may spoil."""
    return shutil.copytree(uninterrupted, tmp_path / "copy")


def test_a_finished_run_says_so(
    run_train_py: RunToEnd, finished_copy: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_copy.rglob("*")}
    process = run_train_py("--resume", "copy", cwd=tmp_path)
    assert process.returncode == 0
    assert "has finished; nothing is left to do" in process.stdout
    assert "│ test" in process.stdout
    assert before == {p: p.stat().st_mtime_ns for p in finished_copy.rglob("*")}


def test_a_missing_export_is_made_again_and_elsewhere_on_request(
    run_train_py: RunToEnd, uninterrupted: Path, finished_copy: Path, tmp_path: Path
) -> None:
    result = json.loads((finished_copy / "result.json").read_text())
    result["export"] = str(tmp_path / "gone" / "1")
    (finished_copy / "result.json").write_text(json.dumps(result))
    process = run_train_py("--resume", "copy", "--export-dir", "there", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "Epoch" not in process.stdout
    assert (tmp_path / "there" / "fashion" / "1" / "saved_model.pb").exists()
    again = json.loads((finished_copy / "result.json").read_text())
    assert again["export"] == str(tmp_path / "there" / "fashion" / "1")
    assert again["metrics"] == result["metrics"]
    for one, other in zip(weights(uninterrupted), weights(finished_copy), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_export_that_fails_at_the_end_loses_nothing(
    train_py: Start, pictures: Path, tmp_path: Path
) -> None:
    """And the hint runs as it is printed, in a directory with a space in its name."""
    versions = tmp_path / "exports" / "fashion"
    options = (*arguments(pictures), "--run-dir", "my runs")
    with train_py(*options, cwd=tmp_path) as process:
        while not (tmp_path / "my runs/fashion/history.csv").exists():
            assert process.poll() is None
            time.sleep(0.01)
        versions.rmdir()
        versions.touch()  # a file where the versions belong
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.startswith(f"error: The model could not be exported to {versions}: ")
    assert err.count("\n") == 1
    versions.unlink()
    ended = subprocess.run(
        resume_hint(err), shell=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert (versions / "1" / "saved_model.pb").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--epochs 7", "`--epochs` contradicts the run in .*copy, which has 8. .* 7."),
        ("--no-norm", "`--norm` contradicts the run"),
        ("--seed 1", "`--seed` contradicts the run"),
    ],
)
def test_options_must_be_those_of_the_run(
    run_train_py: RunToEnd,
    finished_copy: Path,
    tmp_path: Path,
    arguments: str,
    complaint: str,
) -> None:
    process = run_train_py("--resume", "copy", *arguments.split(), cwd=tmp_path)
    assert process.returncode == 2
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: ")
    assert re.search(complaint, line)


def test_options_that_agree_are_accepted(
    run_train_py: RunToEnd, finished_copy: Path, tmp_path: Path
) -> None:
    process = run_train_py("--resume", "copy", "--epochs", 8, cwd=tmp_path)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_directory_without_a_run_is_named(
    run_train_py: RunToEnd, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    process = run_train_py("--resume", name, cwd=tmp_path)
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: `--resume` must be the directory of a run")
    assert line.endswith(f"Received: {tmp_path / name}.")
