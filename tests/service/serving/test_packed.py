"""Bodies that gzip has packed: members, limits, damage."""

import functools
import gzip
import time
import zlib

import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.errors import TooLargeError
from service.serving.packed import unpack
from service.serving.room import Room

MOST = 3_000_000
# Without the time, which would give the tests other names in each process.
packed = functools.partial(gzip.compress, mtime=0)


def unpacked(body: bytes, most: int = MOST, room: int = 3 * MOST) -> bytes:
    """Unpack, and check that the room is that of what comes back, or none."""
    bodies = Room(room)
    try:
        answer = unpack(body, most, bodies, time.monotonic() + 60)
    except BaseException:
        assert bodies.taken == 0
        raise
    assert bodies.taken == len(answer)
    return answer


@pytest.mark.parametrize("sizes", [[0], [5], [10, 0, 20], [2**20 + 1] * 2, [1] * 3000])
def test_all_members_are_read(sizes: list[int]) -> None:
    """RFC 1952: a file is a series of members."""
    parts = [bytes([n % 251]) * size for n, size in enumerate(sizes)]
    body = b"".join(map(packed, parts))
    assert unpacked(body) == b"".join(parts) == gzip.decompress(body)
    assert unpacked(body + bytes(100)) == b"".join(parts)


@pytest.mark.parametrize("members", [1, 3])
def test_the_limit_is_that_of_all_members(members: int) -> None:
    part = bytes(MOST // members)
    assert len(unpacked(packed(part) * members)) == MOST // members * members
    with pytest.raises(TooLargeError, match=f"at most {MOST} bytes"):
        unpacked(packed(part) * members + packed(b"1234"))


def test_a_bomb_is_not_unpacked_where_there_is_no_room() -> None:
    with pytest.raises(tf.errors.ResourceExhaustedError, match="Try again later"):
        unpacked(packed(bytes(MOST)), room=MOST // 2)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\x1f", b"plain", packed(b"1" * 99)[:-1]),
        *(packed(b"1")[:12], zlib.compress(b"1")),
        *(packed(b"1") + b"more", packed(b"1") + bytes(9) + b"more"),
        packed(b"1") + packed(b"2")[:-3],
        packed(b"1")[:-8] + bytes(8),
    ],
)
def test_what_gzip_has_not_packed_is_refused(body: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be of gzip"):
        unpacked(body)


def test_unpacking_ends_in_time() -> None:
    with pytest.raises(tf.errors.DeadlineExceededError):
        unpack(packed(b"") * 1000, MOST, Room(MOST), time.monotonic())
