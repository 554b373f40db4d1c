"""Runs of an earlier release, read and resumed.

`made_by_3485bfc.tar.xz` holds two runs that the code of commit 3485bfc made with the
same options, on 60 pictures of 2 x 2 pixels. One has finished. The other was killed
after its first epoch of five. Left out are the finished run's checkpoints and all
pictures and logs.
"""

import csv
import json
import shutil
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest

from training import job
from training.cli.command_line import load
from training.errors import UserError
from training.run import files

ARCHIVE = Path(__file__).with_name("made_by_3485bfc.tar.xz")
PLACE_WHEN_MADE = "/made/there"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `runs`, `exports` and `pictures` lie now."""
    root = tmp_path_factory.mktemp("made")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    for pattern in ("*.json", "*.md"):
        for path in root.rglob(pattern):
            path.write_text(path.read_text().replace(PLACE_WHEN_MADE, str(root)))
    return root


def test_the_files_are_read(root: Path) -> None:
    run, version = root / "runs" / "finished", root / "exports" / "finished" / "1"
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert files.epochs_finished(run) == len(rows) == 5
    assert files.history(run)[-1]["val_loss"] == float(rows[-1]["val_loss"])
    progress = files.Progress(epoch=5, epochs=5, step=9, steps=9)
    assert files.progress(run) == progress
    result = files.result(run)
    assert result is not None
    assert result.export == version
    stored = json.loads((run / "result.json").read_text())
    assert result.model_dump(mode="json") == {**stored, "test": None}
    assert files.validation(run) == result.metrics.validation
    card = files.model_card(version)
    assert card is not None
    assert card.run == (run / ".id").read_text()
    assert card.classes == ["dark", "light"]


def test_the_model_is_the_one_that_was_exported(root: Path) -> None:
    import tensorflow as tf

    model = keras.models.load_model(root / "runs" / "finished" / "model.keras")
    exported = tf.saved_model.load(str(root / "exports" / "finished" / "1"))
    images = np.arange(32, dtype=np.uint8).reshape(8, 2, 2, 1) * 7
    answer = exported.signatures[files.DEFAULT_SIGNATURE](images=tf.constant(images))
    logits = model.predict(images, verbose=0)
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-4)


def test_a_finished_run_stays_as_it_is(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = root / "runs" / "finished"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert job.resume(run, load(run / "config.json")) == files.result(run)
    assert "nothing is left to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_a_checkpoint_of_another_model_is_refused(root: Path, tmp_path: Path) -> None:
    """As it is where a model of this package has changed since the run began."""
    run = shutil.copytree(root / "runs" / "killed", tmp_path / "killed")
    config = load(run / "config.json").model_copy(update={"model": "mlp"})
    with pytest.raises(UserError, match=r"ckpt-1 must be of the model as it is made"):
        job.resume(run, config)
    assert len(files.history(run)) == 1


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.filterwarnings("ignore:Training and inference disagree:UserWarning")
def test_a_killed_run_is_resumed_to_its_end(root: Path) -> None:
    """Early stopping and the monitor go on as well, as in the run that finished."""
    run, whole = root / "runs" / "killed", root / "runs" / "finished"
    first = files.history(run)
    assert len(first) == 1
    result = job.resume(run, load(run / "config.json"))
    assert result is not None
    assert result == files.result(run)
    assert result.export == root / "exports" / "killed" / "1"
    rows, expected = files.history(run), files.history(whole)
    assert rows[:1] == first
    assert len(rows) == len(expected) == 5
    for row, other in zip(rows, expected, strict=True):
        for name in ("loss", "val_loss", "learning_rate"):
            # To the bit on one machine; others add in another order.
            assert row[name] == pytest.approx(other[name], rel=1e-3), name
    # The first epoch was the best one, and its weights come from the checkpoint.
    assert result.metrics.validation.loss == pytest.approx(
        rows[0]["val_loss"], rel=1e-3
    )
    records = (run / "monitor.csv").read_text().splitlines()
    assert len(records) == len((whole / "monitor.csv").read_text().splitlines())
