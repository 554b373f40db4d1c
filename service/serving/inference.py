"""What REST and gRPC share: running a request on a version of a model."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from service.serving.errors import invalid, late, too_large, unimplemented
from service.serving.metrics import Metrics
from service.serving.room import Hold, Room
from service.serving.saved_model import SavedModel
from service.serving.servables import Servables
from service.serving.signatures import Signature
from service.serving.tensors import nbytes
from training.run.files import DEFAULT_SIGNATURE

_COPIES = 3  # of the inputs: as arrays, as a batch of several requests, in TensorFlow


@dataclass(frozen=True)
class ModelSpec:
    """The model that a request names; without version and label, the newest one."""

    name: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class Inference:
    """Runs signatures, and records how long they take.

    Attributes:
        servables: The models.
        metrics: Counts and times.
        room: Memory for what the bodies of all requests become.
        most_bytes: The largest size of the inputs of a request.
    """

    servables: Servables
    metrics: Metrics
    room: Room
    most_bytes: int

    def room_for(self, size: int) -> int:
        """Return the bytes to hold for inputs of a size while they are run.

        Raises:
            tf.errors.ResourceExhaustedError: If a request may not have such inputs.
        """
        if size > self.most_bytes:
            raise too_large(
                f"The tensors of a request have at most {self.most_bytes} bytes. "
                f"Received: {size}."
            )
        return _COPIES * size

    def run(
        self,
        model: SavedModel,
        signature: Signature,
        inputs: Mapping[str, np.ndarray],
        outputs: Collection[str],
        *,
        name: str,
        api: str,
        hold: Hold,
    ) -> dict[str, np.ndarray]:
        """Run a signature.

        Args:
            model: A model in use.
            signature: One of its signatures.
            inputs: An array for every input.
            outputs: The outputs to compute.
            name: The model's name.
            api: The method that was called, such as predict.
            hold: What the request holds of the room; from now on, what its inputs need.

        Raises:
            tf.errors.OpError: If it fails.
        """
        hold.change(self.room_for(sum(map(nbytes, inputs.values()))))
        start = time.monotonic()
        if start >= hold.deadline:
            raise late("Timed out while waiting for others.")
        results = model.run(signature, inputs, outputs, hold.deadline - start)
        self.metrics.runtime(name, api, time.monotonic() - start)
        return results


def find_signature(model: SavedModel, name: str) -> Signature:
    """Return a signature that takes inputs by its name; "" is the default.

    Raises:
        tf.errors.OpError: If the model has no such signature, or it cannot be called.
    """
    name = name or DEFAULT_SIGNATURE
    if name not in model.definitions:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    if not model.definitions[name].inputs:
        raise invalid(f"Failed to get input map for signature: {name}")
    return callable_signature(model, name)


def callable_signature(model: SavedModel, name: str) -> Signature:
    """Return one of a model's signatures.

    Raises:
        tf.errors.UnimplementedError: If it cannot be called.
    """
    if name not in model.signatures:
        raise unimplemented(
            f"Signature {name} has inputs or outputs that are not dense tensors."
        )
    return model.signatures[name]
