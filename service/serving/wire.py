"""How much memory a protobuf message takes once it is parsed, from its bytes alone."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NOT_PACKED = {
    *(FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES),
    *(FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_GROUP),
}
_FIXED = {
    *(FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE),
    *(FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_FIXED64),
    *(FieldDescriptor.TYPE_SFIXED32, FieldDescriptor.TYPE_SFIXED64),
}

# An empty message in a list is two bytes, and an object with room for all its fields.
_MOST_PER_BYTE = 256
_SMALL = 2**16
# Arrays grow by doubling, and what they have outgrown stays until the end.
_PER_MESSAGE, _PER_FIELD, _PER_VALUE, _PER_PACKED_BYTE = 96, 16, 64, 32


def parsed_size(message: bytes, descriptor: Any, most: int) -> int:
    """Return an upper bound of the bytes that parsing a message allocates.

    Args:
        message: The message, which may be damaged.
        descriptor: The descriptor of its type.
        most: The largest size that is of interest. Counting ends above it.
    """
    if len(message) <= _SMALL:
        return _MOST_PER_BYTE * len(message)
    size, position = _size_of(descriptor), 0
    open_messages = [(len(message), descriptor.fields_by_number)]
    while open_messages and size <= most:
        end, fields = open_messages[-1]
        if position >= end:
            open_messages.pop()
            continue
        size += _PER_VALUE
        tag, position = _varint(message, position, end)
        field = fields.get(tag >> 3)
        kind = tag & 7
        if kind == _BYTES:
            length, position = _varint(message, position, end)
            if length > end - position:
                break  # it is damaged, which the parser will find too
            if field is not None and field.message_type is not None:
                size += _size_of(field.message_type)
                inner = field.message_type.fields_by_number
                open_messages.append((position + length, inner))
                continue
            size += length * _per_byte(field)
            position += length
        elif kind == _VARINT:
            _, position = _varint(message, position, end)
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
    return size


def _size_of(descriptor: Any) -> int:
    return int(_PER_MESSAGE + _PER_FIELD * len(descriptor.fields))


def _per_byte(field: Any) -> int:
    if field is not None and field.type not in _NOT_PACKED | _FIXED:
        return _PER_PACKED_BYTE  # a number of eight bytes may be sent as one
    return 4


def _varint(message: bytes, position: int, end: int) -> tuple[int, int]:
    """Return a number and where it ends; 0 at the end of a damaged message."""
    value = shift = 0
    while position < end:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    return 0, end
