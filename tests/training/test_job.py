"""Runs that are stopped and resumed end with the bits of the uninterrupted run."""

import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.conftest import resume_hint
from tests.training.runs import (
    RunToEnd,
    Start,
    assert_same_end,
    history,
    kill,
    metrics,
    weights,
)
from training import job
from training.cli.command_line import load, read, resumed
from training.config import TrainConfig
from training.errors import UserError
from training.run import files
from training.run.claim import run_id
from training.run.files import Result

# On a few pictures training and inference disagree, as the monitor says.
pytestmark = pytest.mark.filterwarnings("ignore:Training and inference:UserWarning")


def start_by(hint: str, cwd: Path) -> "subprocess.Popen[str]":
    """Start the command that a run has printed, as it is printed."""
    return subprocess.Popen(
        shlex.split(hint),
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_is_stopped_at_several_points_ends_as_if_it_had_not_been(
    train_py: Start, options: tuple[str, ...], whole: Path, tmp_path: Path
) -> None:
    """By SIGKILL when the head has been trained alone, and by Ctrl-C in an epoch."""
    run, versions = tmp_path / "my runs" / "cnn", tmp_path / "exports" / "cnn"
    places = ("--run-dir", "my runs", "--export-dir", "exports")

    process = train_py(*options, *places, cwd=tmp_path)
    out = kill(process, (run / files.CHECKPOINTS / "ckpt-1.index").exists)
    assert len(files.history(run)) in (0, 1)  # it is written after the checkpoint
    assert not (run / files.RESULT).exists()

    with start_by(resume_hint(out), tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Epoch 4/"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    last = out.splitlines()[-1]
    assert last.startswith("Interrupted. Go on with: ")
    assert shlex.split(resume_hint(last))[-2:] == ["--resume", "my runs/cnn"]
    assert "Traceback" not in err
    assert history(run)[-1]["epoch"] in ("3", "4")

    keras.utils.clear_session()
    job.resume(run, load(run / files.CONFIG))
    assert [path.name for path in versions.iterdir()] == ["1"]

    rows = history(whole / "runs" / "cnn")
    losses = [float(row["val_loss"]) for row in rows]
    # Early stopping has ended the run, in either with what it knew from before.
    assert len(rows) == 5
    assert np.argmin(losses[1:]) == 0
    assert_same_end(whole / "runs" / "cnn", run)
    records = (run / files.MONITOR).read_text()
    assert records == (whole / "runs" / "cnn" / files.MONITOR).read_text()


def test_the_monitor_records_all_layers(whole: Path) -> None:
    run = whole / "runs" / "cnn"
    rows = list(csv.DictReader((run / files.MONITOR).read_text().splitlines()))
    steps = 8 * len(history(run))
    # A record at every step, a row for each of three layers.
    assert [int(row["step"]) for row in rows[::3]] == list(range(1, steps + 1))
    assert {int(row["epoch"]) for row in rows} == set(range(len(history(run))))
    assert (run / files.MONITOR_PICTURE).exists()


@pytest.fixture
def finished_copy(whole: Path, tmp_path: Path) -> Path:
    """A finished run that a test may spoil."""
    return shutil.copytree(whole / "runs" / "cnn", tmp_path / "copy")


def resume(run: Path, *arguments: str) -> Result | None:
    """Do what `train.py --resume` does with these options."""
    return job.resume(run, resumed(run, read(arguments).job()))


def test_a_finished_run_says_so(
    finished_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_copy.rglob("*")}
    assert resume(finished_copy, "--epochs", "8") is not None
    shown = capsys.readouterr().out
    assert "has finished; nothing is left to do" in shown
    assert "│ test" in shown
    assert before == {p: p.stat().st_mtime_ns for p in finished_copy.rglob("*")}


@pytest.mark.usefixtures("no_pictures")
def test_a_missing_export_is_made_elsewhere_and_its_failure_loses_nothing(
    whole: Path,
    finished_copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    versions, elsewhere = tmp_path / "there" / "cnn", ("--export-dir", "there")
    monkeypatch.chdir(tmp_path)
    before = files.result(finished_copy)
    assert before is not None

    def block(*arguments: object) -> files.Metrics:
        versions.rmdir()
        versions.touch()  # a file where the versions belong
        return before.metrics

    with monkeypatch.context() as patch:
        patch.setattr(job, "finish", block)
        with pytest.raises(UserError) as caught:
            resume(finished_copy, *elsewhere)
    assert re.fullmatch(
        rf"The model could not be exported to {versions}: .*"
        r" The run is kept; go on with: .* --resume copy",
        str(caught.value),
    )
    versions.unlink()
    # What the same run has left where it was killed in its export.
    (versions / f".incomplete-{run_id(finished_copy)}").mkdir(parents=True)
    result = resume(finished_copy, *elsewhere)
    assert result is not None
    assert result.export == versions / "1"
    assert (versions / "1" / files.GRAPH).exists()
    assert list(versions.iterdir()) == [versions / "1"]
    assert files.result(finished_copy) == result
    assert metrics(finished_copy) == metrics(whole / "runs" / "cnn")
    for one, other in zip(
        weights(whole / "runs" / "cnn"), weights(finished_copy), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert "Epoch" not in capsys.readouterr().out


def test_a_run_that_cannot_draw_its_pictures_has_its_export_and_ends(
    few_pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, version = tmp_path / "runs" / "any", tmp_path / "exports" / "any" / "1"

    def die(*arguments: object) -> None:
        assert (version / files.GRAPH).exists()  # the export comes first
        raise ending

    monkeypatch.setattr(job, "draw", die)
    options = {"model": "mlp", "norm": False, "epochs": 1, "image_size": 8}
    options |= {"monte_carlo": 2}
    places = {"run_dir": tmp_path / "runs", "export_dir": tmp_path / "exports"}
    dataset = f"folder:{few_pictures}"
    config = TrainConfig(name="any", dataset=dataset, **options, **places)
    ending: BaseException = SystemExit("killed")
    with pytest.raises(SystemExit):
        job.train(config)
    assert files.result(run) is None
    ending = MemoryError("31 GB\nof pictures")
    result = job.resume(run, config)
    assert result is not None
    assert result == files.result(run)
    assert result.export == version
    assert [path.name for path in version.parent.iterdir()] == ["1"]
    shown = capsys.readouterr().out
    assert "\nThe pictures could not be drawn: MemoryError: 31 GB\n" in shown
    # What it has read, before it trains.
    before, _, _ = shown.partition("Epoch 1/1")
    assert "10 classes  train  validation  test" in before
    assert re.search(r"^class0 +\d+ +\d+ +\d+$", before, re.MULTILINE)


CONTRADICTIONS = [
    ("--epochs 7", "`--epochs` contradicts the run in .*copy, which has 8. .* 7."),
    ("--no-norm", "`--norm` contradicts the run"),
    ("--seed 1", "`--seed` contradicts the run"),
]


@pytest.mark.parametrize(("arguments", "complaint"), CONTRADICTIONS)
def test_options_must_be_those_of_the_run(
    finished_copy: Path, arguments: str, complaint: str
) -> None:
    given = read(arguments.split()).job()
    with pytest.raises(UserError, match=complaint) as caught:
        resumed(finished_copy, given)
    assert "\n" not in str(caught.value)


def test_a_contradiction_ends_train_py_with_one_line(
    run_train_py: RunToEnd, finished_copy: Path, tmp_path: Path
) -> None:
    process = run_train_py("--resume", "copy", "--seed", 1, cwd=tmp_path)
    assert (process.returncode, process.stdout) == (2, "")
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: `--seed` contradicts the run")


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_directory_without_a_run_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        resumed(tmp_path / name, TrainConfig())
    message = str(caught.value)
    assert message.startswith("`--resume` must be the directory of a run")
    assert message.endswith(f"Received: {tmp_path / name}.")


@pytest.mark.usefixtures("no_pictures")
def test_a_name_is_never_used_twice(few_pictures: Path, tmp_path: Path) -> None:
    """With the options that leave most out of the model."""
    (tmp_path / "runs" / "twice").mkdir(parents=True)
    (tmp_path / "runs" / "twice" / "kept").touch()
    config = TrainConfig(
        model="mlp",
        dataset=f"folder:{few_pictures}",
        epochs=1,
        norm=False,
        max_norm=3,
        image_size=14,
        batch_size=7,
        name="twice",
        run_dir=tmp_path / "runs",
        export_dir=tmp_path / "exports",
    )
    job.train(config)
    assert [p.name for p in (tmp_path / "runs" / "twice").iterdir()] == ["kept"]
    assert (tmp_path / "runs" / "twice-2" / files.RESULT).exists()
    assert (tmp_path / "exports" / "twice" / "1" / files.GRAPH).exists()


@pytest.mark.parametrize("field", ["run_dir", "export_dir"])
def test_an_unwritable_directory_is_named_before_training(
    few_pictures: Path, tmp_path: Path, field: str
) -> None:
    (tmp_path / "file").touch()
    places = {"run_dir": tmp_path / "r", "export_dir": tmp_path / "e"}
    places[field] = tmp_path / "file" / "below"
    config = TrainConfig(dataset=f"folder:{few_pictures}", **places)
    name = field.replace("_", "-")
    with pytest.raises(UserError, match=f"`--{name}` must be a directory that can"):
        job.train(config)
    assert not (tmp_path / "r").exists()
