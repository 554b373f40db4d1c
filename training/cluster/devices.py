"""Choose the devices and machines of a job: from options to a strategy."""

import os
from typing import Annotated, Literal, Self

import tensorflow as tf
from pydantic import BaseModel, Field, ValidationError, model_validator

from training.cluster.roll_call import roll_call
from training.config import TrainConfig
from training.errors import UserError

# A worker that lives but does not come to the next step in this time has stopped for
# good. If a worker dies, TensorFlow's heartbeats notice it within seconds.
LONGEST_STEP_SECONDS = 600.0

_TF_CONFIG = (
    '{"cluster": {"worker": ["HOST:PORT", ...]}, '
    '"task": {"type": "worker", "index": 0}}, the same cluster on every machine and '
    "another index on each"
)


Address = Annotated[str, Field(pattern=r"^.+:\d+$")]


class Task(BaseModel):
    """Which of the workers this process is."""

    type: Literal["chief", "worker"]
    index: int = Field(ge=0)


class Jobs(BaseModel):
    """The workers' addresses. TF_CONFIG may name other jobs; they do not train."""

    chief: list[Address] = Field([], max_length=1)
    worker: list[Address] = []


class Cluster(BaseModel):
    """What Kubernetes, Ray and others put in TF_CONFIG."""

    cluster: Jobs
    task: Task

    @property
    def addresses(self) -> list[str]:
        """Return the addresses of all workers."""
        return self.cluster.chief + self.cluster.worker

    @property
    def own_address(self) -> str:
        """Return the address of this worker."""
        return getattr(self.cluster, self.task.type)[self.task.index]

    @model_validator(mode="after")
    def _the_task_is_in_the_cluster(self) -> Self:
        addresses = getattr(self.cluster, self.task.type)
        if self.task.index >= len(addresses):
            raise ValueError(
                f"there is no {self.task.type} {self.task.index} among {addresses}"
            )
        return self


def strategy(config: TrainConfig) -> tf.distribute.Strategy:
    """Return the strategy of a job. Call it before TensorFlow makes its devices.

    Raises:
        UserError: If the job asks for devices or machines that are not there.
    """
    match config.distribute:
        case "none":
            return tf.distribute.get_strategy()
        case "mirrored":
            return tf.distribute.MirroredStrategy(_devices(config.replicas))
        case "multiworker":
            cluster = _cluster(os.environ.get("TF_CONFIG"))
            with roll_call(cluster.addresses):
                return _multiworker(cluster.own_address)


def _devices(number: int | None) -> list[str]:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and (number is None or number <= len(gpus)):
        return [f"GPU:{index}" for index in range(number or len(gpus))]
    if gpus or number is None:
        raise UserError(
            f"`--replicas` must be at most the number of GPUs, {len(gpus)}. Received: "
            f"{number}."
            if gpus
            else "`--distribute mirrored` needs GPUs, and this machine has none. Split "
            "its CPU with --replicas N."
        )
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * number
    )
    return [f"CPU:{index}" for index in range(number)]


def _cluster(text: str | None) -> Cluster:
    if text is None:
        raise UserError(
            "`--distribute multiworker` needs the environment variable TF_CONFIG: "
            f"{_TF_CONFIG}."
        )
    try:
        return Cluster.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(
            f"TF_CONFIG must be {_TF_CONFIG}. Received: {text}: "
            f"{f'{place}: ' if place else ''}{reason}."
        ) from error


def _multiworker(address: str) -> tf.distribute.Strategy:
    options = tf.distribute.experimental.CommunicationOptions(
        timeout_seconds=LONGEST_STEP_SECONDS
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except tf.errors.UnknownError as error:
        raise UserError(
            "TF_CONFIG must give this worker an address where it can listen. "
            f"Received: {address}: {error.message}."
        ) from error
