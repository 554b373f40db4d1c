"""Room for bytes: who gets it, who waits, and who gives it back."""

import threading
import time

import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.errors import TooLargeError
from service.serving.room import Room


def soon() -> float:
    return time.monotonic() + 0.05


def test_room_is_taken_and_given_back() -> None:
    room = Room(10)
    room.take(6)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="Try again later"):
        room.take(5)
    with room.keep(4):
        assert room.taken == 10
    room.give(6)
    assert room.taken == 0


def test_what_never_has_room_is_told_so_at_once() -> None:
    with (
        Room(10).hold(time.monotonic() + 60) as hold,
        pytest.raises(TooLargeError, match=r"10 bytes .* need 11"),
    ):
        hold.change(11)


def test_who_waits_gets_room_when_others_give_it_back() -> None:
    room = Room(10)
    with room.hold(soon()) as other:
        other.change(7)
        with room.hold(soon()) as hold, pytest.raises(tf.errors.DeadlineExceededError):
            hold.change(4)
        threading.Timer(0.05, other.change, [3]).start()
        with room.hold(time.monotonic() + 60) as hold:
            hold.change(7)
            assert room.taken == 10
    assert room.taken == 0


def test_who_waits_has_nothing_meanwhile() -> None:
    """Two that grow would wait for each other for ever."""
    room = Room(10)
    with room.hold(time.monotonic() + 60) as one:
        one.change(6)
        with room.hold(soon()) as other:
            other.change(4)
            with pytest.raises(tf.errors.DeadlineExceededError):
                other.change(5)
            assert room.taken == 6
            one.change(10)
        assert room.taken == 10


def test_growing_never_waits() -> None:
    room = Room(10)
    with room.hold(time.monotonic() + 60) as hold:
        hold.change(6)
        hold.grow(4)
        with pytest.raises(tf.errors.ResourceExhaustedError):
            hold.grow(1)
        assert room.taken == 10
    assert room.taken == 0
