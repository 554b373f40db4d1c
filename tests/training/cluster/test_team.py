"""Training on several replicas, devices of one process or processes on loopback."""

import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from tests.conftest import REPOSITORY
from tests.kerasnorm.replicas import Replicas, free_addresses, start_worker
from tests.training.runs import assert_same_end, history
from training.cluster.fit import fit_together
from training.cluster.team import Team
from training.config import TrainConfig

pytestmark = pytest.mark.endurance

Arrays = list[np.ndarray]

SIZES = (16, 5, 3)  # the last batch is too small for four replicas
SHAPE, CLASSES, RATE = (8, 8, 1), 5, 0.1
SPREAD = 30.0  # of the images, so that the parts of a batch differ


def compiled(name: str, **options: object) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = models.build(name, SHAPE, CLASSES, dropout_rate=0.0, **options)
    model.compile(
        keras.optimizers.SGD(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    return model


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        (
            np.clip(rng.normal(128, SPREAD, (size, *SHAPE)), 0, 255).astype("float32"),
            rng.integers(0, CLASSES, size),
        )
        for size in SIZES
    ]


def dataset() -> tf.data.Dataset:
    specification = (
        tf.TensorSpec((None, *SHAPE), "float32"),
        tf.TensorSpec((None,), "int64"),
    )
    data = tf.data.Dataset.from_generator(batches, output_signature=specification)
    return data.apply(tf.data.experimental.assert_cardinality(len(SIZES)))


class Logs(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.logs = dict(logs or {})


the_team = functools.cache(Team)  # a process can be in one only


def fit_as_a_team(number: int, name: str, options: dict) -> list[tuple[dict, Arrays]]:
    """In a process of its own: the logs and weights after a step with each batch."""
    config = (
        TrainConfig(distribute="multiworker")
        if "TF_CONFIG" in os.environ
        else TrainConfig(distribute="mirrored", replicas=number)
    )
    team = the_team(config)
    model = team.build(lambda: compiled(name, **options))
    logs = Logs()
    fit_together(
        team,
        model,
        dataset().prefetch(1),
        steps_per_epoch=len(SIZES),
        initial_epoch=0,
        epochs=1,
        validation_data=dataset(),
        callbacks=[logs],
        verbose=0,
    )
    return [(logs.logs, model.get_weights())]


@pytest.fixture(
    scope="module", params=["1 worker", "2 workers", "4 workers", "3 devices"]
)
def team(request: pytest.FixtureRequest) -> Iterator[Replicas]:
    number = int(request.param[0])
    if "devices" in request.param:
        replicas = Replicas(number, [(start_nothing,)])
    else:
        addresses = free_addresses(number)
        replicas = Replicas(
            number, [(start_worker, addresses, index) for index in range(number)]
        )
    yield replicas
    replicas.close()


def start_nothing() -> None:
    """`Team` splits the CPU by itself."""


def assert_close(
    received: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> None:
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def all_equal(_: int, numbers: Sequence[int]) -> list[bool]:
    """In a process of its own: whether the number of this worker is everyone's."""
    team = the_team(TrainConfig(distribute="multiworker"))
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    return [team.all_equal(numbers[index])]


def test_workers_compare_each_others_numbers() -> None:
    """The mean of 1, 2 and 3 is 2, too, and 2**31 squared has no exact float."""
    addresses = free_addresses(3)
    workers = [(start_worker, addresses, index) for index in range(3)]
    replicas = Replicas(3, workers)
    try:
        for numbers in ([1, 2, 3], [0, 0, 1], [2**31, 2**31 - 1, 2**31]):
            assert replicas.call(all_equal, numbers) == [False] * 3
        assert replicas.call(all_equal, [2**31 - 1] * 3) == [True] * 3
    finally:
        replicas.close()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {"synchronized": True}),
        ("mlp", {"synchronized": True, "max_norm": 1.0}),
        ("cnn", {"synchronized": True}),
        ("mlp", {"norm": False}),
    ],
    ids=["mlp", "mlp, max norm", "cnn", "no batch norm"],
)
def test_workers_are_one_process_with_the_whole_batch(
    team: Replicas, name: str, options: dict
) -> None:
    """Keras's own `fit` on one device is the truth for weights and logs."""
    model, logs = compiled(name, **options), Logs()
    before = model.get_weights()
    model.fit(
        dataset(), shuffle=False, validation_data=dataset(), callbacks=[logs], verbose=0
    )
    expected = model.get_weights()
    assert (
        max(np.abs(a - b).max() for a, b in zip(before, expected, strict=True)) > 0.01
    )
    results = team.call(fit_as_a_team, name, options)
    for received, weights in results:
        assert received.keys() == logs.logs.keys()
        for key, value in logs.logs.items():
            assert received[key] == pytest.approx(value, rel=1e-4), key
        assert_close(weights, expected)
        for one, other in zip(weights, results[0][1], strict=True):
            np.testing.assert_array_equal(one, other)


def test_without_synchronization_each_part_is_normalized_by_itself(
    team: Replicas,
) -> None:
    """The mean over the batch of the losses that the parts have one by one."""
    model, number = compiled("mlp"), team.number
    for images, labels in batches():
        with tf.GradientTape() as tape:
            losses = [
                model.loss.call(own_labels, model(own_images, training=True))
                for own_images, own_labels in zip(
                    parts(images, number), parts(labels, number), strict=True
                )
            ]
            loss = tf.reduce_mean(tf.concat(losses, 0))
        gradients = tape.gradient(loss, model.trainable_variables)
        for variable, gradient in zip(
            model.trainable_variables, gradients, strict=True
        ):
            variable.assign_sub(RATE * gradient)
    truth = {v.path: np.array(v) for v in model.trainable_variables}
    paths = [v.path for v in model.weights]
    for _, weights in team.call(fit_as_a_team, "mlp", {}):
        received = dict(zip(paths, weights, strict=True))
        assert_close([received[path] for path in truth], list(truth.values()))


def parts(values: np.ndarray, number: int) -> Arrays:
    """As evenly as whole samples go; undivided where there are too few."""
    if len(values) < number:
        return [values]
    ends = [index * len(values) // number for index in range(number + 1)]
    return [values[start:end] for start, end in itertools.pairwise(ends)]


def environment() -> dict[str, str]:
    """A user's: Keras, imported here, has asked TensorFlow to log its errors."""
    own = {n: v for n, v in os.environ.items() if n != "TF_CPP_MIN_LOG_LEVEL"}
    return {**own, "PYTHONUNBUFFERED": "1"}


def start(
    commands: Sequence[Sequence[object]], cwd: Path
) -> list["subprocess.Popen[str]"]:
    """A worker of train.py for each command line."""
    addresses = free_addresses(len(commands))
    workers = []
    for index, command in enumerate(commands):
        task = {"type": "worker", "index": index}
        tf_config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        process = subprocess.Popen(
            [sys.executable, str(REPOSITORY / "train.py"), *map(str, command)],
            cwd=cwd,
            env={**environment(), "TF_CONFIG": tf_config},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        workers.append(process)
    return workers


def end(process: "subprocess.Popen[str]", seconds: float = 240) -> tuple[int, str, str]:
    """Status and output of a process; it must end by itself."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"It has not ended: {process.communicate()}")
    return process.returncode, out, err


def arguments(pictures: Path) -> tuple[object, ...]:
    return (
        *("--model", "mlp", "--epochs", 8, "--batch-size", 7, "--learning-rate", 3e-4),
        *("--weight-decay", 0, "--validation-split", 0.1, "--patience", 4),
        *("--dataset", f"folder:{pictures}", "--name", "fashion", "--synchronized"),
        *("--run-dir", "runs", "--export-dir", "exports"),
    )


@pytest.fixture(scope="module")
def uninterrupted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two workers; that is what they and their directories say."""
    root = tmp_path_factory.mktemp("two-workers")
    workers = start(
        [(*arguments(pictures), "--distribute", "multiworker")] * 2, cwd=root
    )
    (status, chief, _), (other_status, other, other_error) = map(end, workers)
    assert (status, other_status) == (0, 0)
    assert "│ test" in chief
    assert "Epoch 1/8" in chief
    assert other.splitlines() == [
        "This worker trains along; the chief reports and exports."
    ]
    assert other_error == ""
    (run,) = (root / "runs").iterdir()
    assert {path.name for path in run.iterdir()} >= {
        *("config.json", "result.json", "history.csv", "progress.json", "logs"),
        *("model.keras", "curves.png", "confusion.png", "mistakes.png"),
    }
    assert [p.name for p in (root / "exports" / "fashion").iterdir()] == ["1"]
    return run


def kill_in_epoch(
    number: int, workers: list["subprocess.Popen[str]"], victim: int
) -> None:
    assert workers[0].stdout is not None
    for line in workers[0].stdout:
        if line.startswith(f"Epoch {number}/"):
            break
    workers[victim].send_signal(signal.SIGKILL)


def test_killed_workers_end_the_others_and_a_resumed_run_goes_on(
    pictures: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    """To the bits of the run that was not interrupted, early stopping included."""
    first = (*arguments(pictures), "--distribute", "multiworker")
    resume = ("--resume", "runs/fashion")

    for options, epoch, victim in ((first, 2, 1), (resume, 4, 0)):
        workers = start([options] * 2, cwd=tmp_path)
        kill_in_epoch(epoch, workers, victim)
        assert end(workers[victim])[0] == -signal.SIGKILL
        # A hang would last for ten minutes.
        status, out, err = end(workers[1 - victim], seconds=120)
        assert (status, "│ test" in out) == (2, False)
        assert err.startswith("error: Another worker has ended or cannot be reached (")
        assert err.count("\n") == 1
        assert ("go on with: " in err) == (victim == 1)
        assert len(history(tmp_path / "runs" / "fashion")) in (epoch - 1, epoch)

    workers = start([resume] * 2, cwd=tmp_path)
    assert [end(worker)[0] for worker in workers] == [0, 0]
    assert 4 < len(history(uninterrupted)) < 8
    assert_same_end(uninterrupted, tmp_path / "runs" / "fashion")


def test_one_device_and_two_devices_reach_what_two_workers_reach(
    run_train_py: Callable[..., "subprocess.CompletedProcess[str]"],
    pictures: Path,
    tmp_path: Path,
) -> None:
    """Without dropout, whose masks differ by replica."""
    options = (*arguments(pictures), "--epochs", 2, "--dropout-rate", 0)
    histories = []
    for place in (("none",), ("mirrored", "--replicas", 2)):
        name = f"by-{place[0]}"
        process = run_train_py(
            *options, "--name", name, "--distribute", *place, cwd=tmp_path
        )
        assert (process.returncode, process.stderr) == (0, "")
        histories.append(history(tmp_path / "runs" / name))
    workers = start([(*options, "--distribute", "multiworker")] * 2, cwd=tmp_path)
    assert [end(worker)[0] for worker in workers] == [0, 0]
    histories.append(history(tmp_path / "runs" / "fashion"))
    for row, *others in zip(*histories, strict=True):
        for other in others:
            assert other.keys() == row.keys()
            for name, value in row.items():
                assert float(other[name]) == pytest.approx(float(value), rel=1e-3), name


def test_workers_that_see_different_checkpoints_do_not_go_on(
    uninterrupted: Path, tmp_path: Path
) -> None:
    copies = [shutil.copytree(uninterrupted, tmp_path / name) for name in "ab"]
    for copy in copies:
        (copy / "result.json").unlink()
    for checkpoint in (copies[1] / "checkpoints").glob("*"):
        checkpoint.unlink()
    workers = start([("--resume", copy) for copy in copies], cwd=tmp_path)
    for process in workers:
        status, _, err = end(process)
        assert status == 2
        assert err.startswith("error: All workers must see the same checkpoints")
        assert err.count("\n") == 1


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_whose_fellow_does_not_come_says_so(
    tmp_path: Path, index: int
) -> None:
    addresses = free_addresses(2)
    task = {"type": "worker", "index": index}
    script = (
        "import sys; from training.cluster import roll_call; import train\n"
        "roll_call.LONGEST_WAIT_SECONDS = 2.0\n"
        "sys.argv = ['train.py', '--distribute', 'multiworker']\n"
        "sys.exit(train.main())"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={
            **environment(),
            "PYTHONPATH": str(REPOSITORY),
            "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task}),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == -signal.SIGKILL
    assert process.stderr == (
        "error: Not all workers of TF_CONFIG have come in 2 s. No answer from "
        f"{addresses[1 - index]}.\n"
    )
