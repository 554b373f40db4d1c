"""One run with nearly every option, shared by the tests of training."""

import os
import warnings
from pathlib import Path

import pytest

from tests.conftest import made_once
from tests.training.runs import Disk

# Eight steps an epoch. Early stopping looks at the epochs after the first, in which the
# head is trained alone. The learning rate is so high that none of them is better than
# the first of them, and early stopping ends the run after the fifth of all.
_OPTIONS = (
    *("--model", "cnn", "--epochs", 8, "--batch-size", 8, "--learning-rate", 1e-2),
    *("--validation-split", 0.2, "--patience", 3, "--max-norm", 3, "--monitor"),
    *("--recalibrate", 60, "--monte-carlo", 5, "--no-fold", "--name", "cnn"),
    *("--image-size", 8, "--train-head", 1, "--augment", "strong", "--mixup", 0.2),
    *("--label-smoothing", 0.1, "--class-weight", "balanced", "--ema", 0.9),
)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing, where a test looks at no picture: that takes seconds a run."""
    for name in ("curves", "confusion", "mistakes", "certainty"):
        function = f"training.report.pictures.draw_{name}"
        monkeypatch.setattr(function, lambda *arguments: None)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Take down what is written through to the disk and what is renamed."""
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, disk.renaming(getattr(os, name)))
    return disk


@pytest.fixture(scope="session")
def options(few_pictures: Path) -> tuple[str, ...]:
    """Options that early stopping, the monitor and the export all have a part in."""
    return (*map(str, _OPTIONS), "--dataset", f"folder:{few_pictures}")


@pytest.fixture(scope="session")
def whole(options: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in `runs/cnn` with these options that nothing has interrupted."""

    def make(root: Path) -> None:
        import keras

        from training import job
        from training.cli.command_line import read

        places = ("--run-dir", f"{root}/runs", "--export-dir", f"{root}/exports")
        keras.utils.clear_session()  # layers are named as in a process of its own
        with warnings.catch_warnings():
            # On a few pictures training and inference disagree, as the monitor says.
            warnings.simplefilter("ignore", UserWarning)
            job.train(read([*options, *places]).job())

    return made_once(tmp_path_factory, "whole", make)
