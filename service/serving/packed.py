"""Bodies that gzip has packed."""

import time
import zlib

from service.serving.errors import invalid, late, too_large
from service.serving.room import Room

_MOST_AT_ONCE = 2**20  # unpacked bytes
_FIRST_PIECE, _LARGEST_PIECE = 2**10, 2**18  # packed bytes


def unpack(body: bytes, most: int, room: Room, deadline: float) -> bytes:
    """Return what gzip has packed, in one member or several (RFC 1952).

    Args:
        body: The packed bytes.
        most: The largest number of unpacked bytes.
        room: Where room is taken for the unpacked bytes, which the caller gives back.
        deadline: The time, by `time.monotonic()`, at which to give up.

    Raises:
        tf.errors.OpError: If the body is not of gzip, the unpacked bytes are too many
            or have no room, or time runs out. Nothing is unpacked beyond a limit.
    """
    packed, unpacked = memoryview(body), bytearray()
    try:
        position = _unpack_member(packed, 0, unpacked, most, room)
        while any(packed[position:]):  # zeros may follow
            if time.monotonic() > deadline:
                raise late("Timed out while unpacking.")
            position = _unpack_member(packed, position, unpacked, most, room)
        with room.keep(len(unpacked)):  # for a moment there are two of it
            return bytes(unpacked)
    except zlib.error as error:
        room.give(len(unpacked))
        raise invalid(f"The body must be of gzip. Received: {error}.") from None
    except BaseException:
        room.give(len(unpacked))
        raise


def _unpack_member(
    packed: memoryview, start: int, unpacked: bytearray, most: int, room: Room
) -> int:
    """Append what a member holds, and return where the next one begins."""
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    position, size = start, _FIRST_PIECE
    piece: bytes | memoryview = b""
    while not reader.eof:
        if not piece:
            # What is left of the last piece is copied, so pieces begin small.
            piece = packed[position : position + size]
            position += len(piece)
            size = min(2 * size, _LARGEST_PIECE)
        part = reader.decompress(piece, _MOST_AT_ONCE)
        if not (piece or part or reader.eof):
            raise invalid("The body must be of gzip. Received: it ends too early.")
        if len(unpacked) + len(part) > most:
            raise too_large(f"A body has at most {most} bytes.")
        room.take(len(part))
        unpacked += part
        piece = reader.unconsumed_tail
    return position - len(reader.unused_data)
