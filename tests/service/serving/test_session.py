"""What runs of a session rely on: TensorFlow's private callables and its errors."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.errors import of_runtime
from service.serving.session import TimedSession, make_callable

v1 = tf.compat.v1
USUAL = 1.5
ONE_BY_ONE = 0.1  # so little that no callable is used
ENDLESS = {"n:0": np.array(2_000_000_000, "int32")}


@pytest.fixture(scope="module")
def session() -> Iterator[TimedSession]:
    """A difference, a count to n, and a check that x is positive."""
    session = TimedSession(USUAL)
    with session.session.graph.as_default():
        x = v1.placeholder(tf.float32, [None], "x")
        z = v1.placeholder(tf.float32, [None], "z")
        tf.subtract(x, z, "difference")
        tf.identity(x, "same")
        n = v1.placeholder(tf.int32, [], "n")
        last = tf.while_loop(lambda i: i < n, lambda i: i + 1, [tf.constant(0)])
        tf.identity(last, "last")
        with tf.control_dependencies([tf.debugging.assert_positive(x, "not positive")]):
            tf.identity(x, "checked")
    yield session
    session.close()


def test_a_callable_takes_and_gives_arrays_in_the_order_of_their_names(
    session: TimedSession,
) -> None:
    run = make_callable(
        session.session, ["same:0", "difference:0"], ["z:0", "x:0"], timeout=30
    )
    same, difference = run(np.array([1, 2], "float32"), np.array([10, 20], "float32"))
    np.testing.assert_array_equal(same, [10, 20])
    np.testing.assert_array_equal(difference, [9, 18])


def test_a_callable_has_a_time_limit(session: TimedSession) -> None:
    run = make_callable(session.session, ["last:0"], ["n:0"], timeout=0.2)
    with pytest.raises(tf.errors.DeadlineExceededError):
        run(ENDLESS["n:0"])
    assert run(np.array(5, "int32")) == [5]


@pytest.mark.parametrize("timeout", [USUAL, ONE_BY_ONE])
def test_both_ways_end_in_time(session: TimedSession, timeout: float) -> None:
    with pytest.raises(tf.errors.DeadlineExceededError):
        session.run(["last:0"], ENDLESS, timeout)


@pytest.mark.parametrize("timeout", [USUAL, 30.0])
def test_both_ways_give_the_same(session: TimedSession, timeout: float) -> None:
    feeds = {"x:0": np.array([5, 6], "float32"), "z:0": np.array([1, 2], "float32")}
    difference, same = session.run(["difference:0", "same:0"], feeds, timeout)
    np.testing.assert_array_equal(difference, [4, 4])
    np.testing.assert_array_equal(same, [5, 6])
    # A callable refuses a tensor that is fetched twice, or fed and fetched.
    names = ["same:0", "same:0", "x:0"]
    for array in session.run(names, {"x:0": np.array([7], "float32")}, timeout):
        np.testing.assert_array_equal(array, [7])


@pytest.mark.parametrize("timeout", [USUAL, 30.0])
def test_an_error_has_the_message_of_the_runtime_alone(
    session: TimedSession, timeout: float
) -> None:
    """`Session.run` puts stack traces into the message of the error that it raises."""
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        session.run(["checked:0"], {"x:0": np.array([-1], "float32")}, timeout)
    error: Any = of_runtime(caught.value)
    assert isinstance(error, tf.errors.InvalidArgumentError)
    assert error.message.startswith("assertion failed: [not positive.")
    assert __file__ not in error.message
