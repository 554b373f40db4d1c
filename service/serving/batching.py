"""The parameters of batching, and TensorFlow Serving's file of them."""

import os
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    wrappers_pb2,
)

from service.serving.text_proto import read_text_proto
from training.errors import UserError

_INT64 = descriptor_pb2.FieldDescriptorProto.TYPE_INT64
_MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_OPTIONAL = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
_REPEATED = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED


@dataclass(frozen=True)
class BatchingParameters:
    """TensorFlow Serving's parameters of the same names, with its defaults.

    Attributes:
        max_batch_size: The largest number of rows that run at once.
        batch_timeout_micros: Microseconds that a batch waits for more rows.
        max_enqueued_batches: Batches that may wait; further requests get status 503.
        num_batch_threads: Batches that run at the same time.
        allowed_batch_sizes: Sizes to which batches are padded; the last one must be
            `max_batch_size`. Empty: any size.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = len(os.sched_getaffinity(0))
    allowed_batch_sizes: tuple[int, ...] = ()


def read_batching_parameters(path: Path) -> BatchingParameters:
    """Read TensorFlow Serving's file, a `BatchingParameters` as text.

    Args:
        path: The file, such as `max_batch_size { value: 128 }`.

    Raises:
        UserError: If the file cannot be read, or a value is not allowed.
    """
    message = _message_class()()
    read_text_proto(path, message, "--batching-parameters-file")
    given: dict[str, Any] = {
        field.name: tuple(value) if field.is_repeated else value.value
        for field, value in message.ListFields()
    }
    parameters = BatchingParameters(**given)
    _check(parameters)
    return parameters


def _check(parameters: BatchingParameters) -> None:
    sizes = parameters.allowed_batch_sizes
    for name, value in asdict(parameters).items():
        least = 0 if name == "batch_timeout_micros" else 1
        if isinstance(value, int) and value < least:
            raise UserError(f"`{name}` must be at least {least}. Received: {value}.")
    increase = all(before < size for before, size in pairwise((0, *sizes)))
    if sizes and not (increase and sizes[-1] == parameters.max_batch_size):
        raise UserError(
            "`allowed_batch_sizes` must increase, from 1 on, to `max_batch_size`, "
            f"{parameters.max_batch_size}. Received: {list(sizes)}."
        )


def _message_class() -> Any:
    """Return the class of TensorFlow Serving's message, which no package contains.

    It has the fields of session_bundle_config.proto that TensorFlow's batcher knows.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="batching_parameters.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name="BatchingParameters")
    for number, name in enumerate(
        (
            *("max_batch_size", "batch_timeout_micros", "max_enqueued_batches"),
            "num_batch_threads",
        ),
        start=1,
    ):
        message.field.add(
            name=name,
            number=number,
            type=_MESSAGE,
            type_name=".google.protobuf.Int64Value",
            label=_OPTIONAL,
        )
    message.field.add(
        name="allowed_batch_sizes", number=6, type=_INT64, label=_REPEATED
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters")
    )
