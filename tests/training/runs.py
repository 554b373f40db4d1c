"""What a run has left, and how to stop one."""

import csv
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.run import files

Start = Callable[..., "subprocess.Popen[str]"]
RunToEnd = Callable[..., "subprocess.CompletedProcess[str]"]


class Disk:
    """What has been written through to the disk and renamed, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Path]] = []

    def fsync(self, descriptor: int) -> None:
        """Note the path of a descriptor; nothing is written through."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        self.events.append(("sync", path))

    def renaming(self, rename: Callable[..., None]) -> Callable[..., None]:
        """Return a function that renames and notes the old path."""

        def noted(source: Path, *rest: Path, **options: int) -> None:
            self.events.append(("rename", Path(source)))
            rename(source, *rest, **options)

        return noted


def history(run: Path) -> list[dict[str, str]]:
    """Return the rows of history.csv as they are written, without the seconds."""
    rows = list(csv.DictReader((run / files.HISTORY).read_text().splitlines()))
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def variables(run: Path) -> dict[str, np.ndarray]:
    """Return all of the last checkpoint but the run's state, which has seconds."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(run / files.CHECKPOINTS))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if not name.startswith(("run/", "_CHECKPOINTABLE"))
    }


def weights(run: Path) -> list[np.ndarray]:
    """Return the weights of the model that the run has saved."""
    import keras

    import kerasnorm  # noqa: F401  (registers the layers)

    found: list[np.ndarray] = keras.models.load_model(run / files.MODEL).get_weights()
    return found


def metrics(run: Path) -> dict[str, dict[str, float]]:
    """Return loss and accuracy by split from the run's result."""
    found: dict[str, dict[str, float]] = json.loads((run / files.RESULT).read_text())[
        "metrics"
    ]
    return found


def kill(process: "subprocess.Popen[str]", when: Callable[[], bool]) -> str:
    """Send SIGKILL as soon as something is true; the process must still live then.

    Return what it has printed.
    """
    deadline = time.monotonic() + 300
    while not when():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    return out


def assert_same_end(one: Path, other: Path) -> None:
    """Compare history, variables, saved weights and metrics, bit for bit."""
    assert history(one) == history(other)
    expected, received = variables(one), variables(other)
    assert expected.keys() == received.keys()
    assert any("seed" in name for name in expected)
    assert any("optimizer" in name for name in expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)
    for first, second in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(first, second)
    assert metrics(one) == metrics(other)
