"""Shapes that a signature does not name: which run, and which never may."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving import shapes
from service.serving.saved_model import SavedModel
from tests.service.serving.served import save, save_half_plus

v1 = tf.compat.v1
IMAGES = [None, 8, 8, 1]


def convolved(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, tf.ones([3, 3, 1, 2]), 1, "SAME")


def save_convolutions(directory: Path) -> None:
    """Save a convolution: alone, in functions, in branches, in a loop, of any rank."""

    @tf.function
    def inner(x: tf.Tensor) -> tf.Tensor:
        return convolved(x)

    def nested(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.function(lambda x: inner(x) + 1.0)(x)}

    def branch(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "y": tf.cond(
                tf.reduce_sum(x) > 0, lambda: tf.reduce_sum(convolved(x)), lambda: 0.0
            )
        }

    def case(x: tf.Tensor) -> dict[str, tf.Tensor]:
        functions = [lambda: 0.0, lambda: tf.reduce_sum(convolved(x))]
        return {"y": tf.switch_case(tf.constant(1), functions)}

    def loop(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "y": tf.while_loop(
                lambda i, y: i < 2,
                lambda i, y: (i + 1, y + tf.reduce_sum(convolved(x))),
                [tf.constant(0), tf.constant(0.0)],
            )[1]
        }

    spec = [tf.TensorSpec(IMAGES, tf.float32, "x")]
    save(
        directory,
        serving_default=(lambda x: {"y": convolved(x)}, spec),
        nested=(nested, spec),
        branch=(branch, spec),
        case=(case, spec),
        loop=(loop, spec),
        any_rank=(
            lambda x: {"y": tf.nn.conv2d(x, tf.ones([3, 3, 1, 2]), 1, "SAME")},
            [tf.TensorSpec(None, tf.float32, "x")],
        ),
        scaled=(lambda x: {"y": 2 * x, "rank": tf.rank(x)}, spec),
    )


SIGNATURES = ["serving_default", "nested", "branch", "case", "loop", "any_rank"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("convolutions")
    save_convolutions(directory)
    return directory


@pytest.fixture(scope="module")
def model(directory: Path) -> Iterator[SavedModel]:
    model = SavedModel(directory)
    yield model
    model.close()


def run(model: SavedModel, signature: str, shape: tuple[int, ...]) -> Any:
    called = model.signatures[signature]
    inputs = {"x": np.ones(shape, "float32")}
    return model.run(called, inputs, called.outputs, 30)


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 8), (2, 8, 8), (1, 2, 8, 8, 1)])
def test_a_convolution_of_another_rank_is_refused(
    model: SavedModel, signature: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"rank 4|reduction dimension"
    ):
        run(model, signature, shape)


@pytest.mark.slow  # it starts a process that TensorFlow ends
def test_a_convolution_of_two_axes_ends_the_process(directory: Path) -> None:
    """If it does so no more, the shapes need no look before they run.

    It is oneDNN's, which TensorFlow takes on processors with AVX-512 by itself.
    """
    program = f"""
import numpy as np, tensorflow as tf
from service.serving.session import TimedSession
from service.serving.signatures import load
session = TimedSession(30)
with session.session.graph.as_default():
    _, signatures = load(session.session, {str(directory)!r})
signature = signatures["serving_default"]
(x,), (y,) = signature.inputs.values(), signature.outputs.values()
print("begun", flush=True)
session.run([y.name], {{x.name: np.ones((2, 8), "float32")}}, 30)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"},
    )
    assert ended.stdout == "begun\n"
    assert ended.returncode < 0


def test_other_sizes_run_if_the_operations_take_them(model: SavedModel) -> None:
    for shape in ((2, 8, 8, 1), (3, 5, 7, 1)):
        (y,) = run(model, "serving_default", shape).values()
        assert y.shape == (*shape[:3], 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"[Dd]epth|channels"):
        run(model, "serving_default", (1, 8, 8, 3))
    for shape in ((), (3,), (2, 3, 4)):
        outputs = run(model, "scaled", shape)
        np.testing.assert_array_equal(outputs["y"], np.full(shape, 2.0))


def test_each_shape_is_asked_for_once(
    model: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "_MOST_KEPT", 3)
    asked: list[Any] = []
    import_graph_def = tf.import_graph_def

    def counted(*arguments: Any, **options: Any) -> Any:
        asked.append(arguments)
        return import_graph_def(*arguments, **options)

    monkeypatch.setattr(tf, "import_graph_def", counted)
    for _ in range(3):
        run(model, "scaled", (4, 4))
        with pytest.raises(tf.errors.InvalidArgumentError):
            run(model, "serving_default", (4, 4))
    run(model, "serving_default", (1, 8, 8, 1))  # the signature's own
    assert len(asked) == 2
    for size in range(1, 10):  # what is kept is bounded
        run(model, "scaled", (size,))
    run(model, "scaled", (4, 4))
    assert len(asked) == 12


def test_a_time_limit_of_one_s_own_takes_any_shape_too(model: SavedModel) -> None:
    """`Session.run`, which knows such limits, compares shapes with the graph's."""
    called = model.signatures["scaled"]
    outputs = model.run(called, {"x": np.ones(3, "float32")}, ["y"], 5)
    np.testing.assert_array_equal(outputs["y"], [2, 2, 2])


def test_a_frozen_graph_of_tensorflow_1(tmp_path: Path) -> None:
    """Its weights are constants, and what is fed is no placeholder."""
    save_half_plus(tmp_path / "half", 3)
    with tf.Graph().as_default(), v1.Session() as session:
        fed = tf.reshape(v1.placeholder(tf.float32, name="pixels"), [-1, 4])
        weights = tf.constant(np.ones((4, 400), "float32"))
        y = tf.matmul(fed, weights)
        v1.saved_model.simple_save(session, str(tmp_path / "m"), {"x": fed}, {"y": y})
    for name, shape, complaint in (
        ("m", (2, 4), None),
        ("m", (4,), "rank 2"),
        ("m", (2, 3), "Dimensions must be equal|Matrix size-incompatible"),
        ("half", (3,), None),
        ("half", (), None),
        ("half", (2, 3, 4), None),
    ):
        model = SavedModel(tmp_path / name)
        if complaint is None:
            (y,) = run(model, "serving_default", shape).values()
            assert y.shape[0 : len(shape) - 1] == shape[:-1]
        else:
            with pytest.raises(tf.errors.InvalidArgumentError, match=complaint):
                run(model, "serving_default", shape)
        model.close()


def test_the_refusal_is_one_of_json(tmp_path: Path, directory: Path) -> None:
    from tests.service.serving.served import publish, serve

    publish(directory, tmp_path / "m" / "1")
    with serve(tmp_path) as (client, _):
        status, answer = client.send(
            "POST", "/v1/models/m:predict", b'{"instances": [[1, 2], [3, 4]]}'
        )
        assert status == 400
        assert "rank 4" in json.loads(answer)["error"]
        assert client.status("m") == {1: "AVAILABLE"}
