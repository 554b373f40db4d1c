"""One SavedModel in a TensorFlow session, the runtime that TensorFlow Serving uses.

A session runs TensorFlow 1 and 2 models alike, keeps each signature's method, costs
less per call than a loaded function, and cancels what runs out of time.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from service.serving.batcher import Batcher, row_count
from service.serving.batching import BatchingParameters
from service.serving.config import ServingConfig
from service.serving.errors import missing_signature, of_runtime
from service.serving.session import Arrays, TimedSession
from service.serving.shapes import ShapeCheck
from service.serving.signatures import Signature, check_inputs, load
from service.serving.tensors import SentTensor
from service.serving.warm_up import read_requests
from training.run.files import DEFAULT_SIGNATURE

_SECONDS_TO_WARM_UP = 3600.0
_MOST_SETS = 64  # of outputs, each with a part of the graph that stays in memory


class SavedModel:
    """A model that is loaded and has answered its warm-up requests.

    Args:
        directory: One version's directory.
        batching: How to batch requests; `None` runs every request by itself.
        timeout: Seconds that a run usually may take.

    Attributes:
        definitions: The `SignatureDef` of every signature by name.
        signatures: The signatures that can be called, by name.

    Raises:
        tf.errors.OpError, OSError, ValueError: If it cannot be loaded.
    """

    def __init__(
        self,
        directory: Path,
        batching: BatchingParameters | None = None,
        timeout: float = ServingConfig.timeout,
    ) -> None:
        self._session = TimedSession(timeout)
        self._timeout = timeout
        session = self._session.session
        self._batcher = Batcher(batching, self._session.run) if batching else None
        self._shapes = ShapeCheck(session.graph)
        self._sets: set[tuple[str, ...]] = set()
        try:
            with session.graph.as_default():
                self.definitions, self.signatures = load(session, directory)
            self._warm_up(directory)
        except BaseException:
            self.close()
            raise

    def run(
        self,
        signature: Signature,
        inputs: Arrays,
        outputs: Iterable[str],
        timeout: float,
    ) -> dict[str, np.ndarray]:
        """Run a signature.

        Args:
            signature: One of this model's.
            inputs: An array for every input.
            outputs: The names of the outputs to compute.
            timeout: Seconds after which the run is cancelled, or up to a second later.

        Raises:
            tf.errors.OpError: If the model refuses the inputs or time runs out.
        """
        self._shapes.check(signature, {k: array.shape for k, array in inputs.items()})
        # Sorted, so that every order of the names is run by the same callable.
        feeds = {
            signature.inputs[name].name: array for name, array in sorted(inputs.items())
        }
        wanted = sorted(outputs)
        names = self._computed(signature, wanted)
        fetches = [signature.outputs[name].name for name in names]
        rows = row_count(feeds)
        try:
            if self._batcher and rows and signature.has_batch_axis:
                values = self._batcher.run(fetches, feeds, rows, timeout)
            else:
                values = self._session.run(fetches, feeds, timeout)
        except tf.errors.OpError as error:
            raise of_runtime(error) from None
        computed = dict(zip(names, values, strict=True))
        # A string without axes comes as `bytes`.
        return {
            name: np.array(computed[name], object)
            if isinstance(computed[name], bytes)
            else computed[name]
            for name in wanted
        }

    def close(self) -> None:
        """Free the variables; nothing may be running."""
        if self._batcher:
            self._batcher.close()
        self._session.close()

    def _computed(self, signature: Signature, wanted: list[str]) -> list[str]:
        """Return the outputs to compute: all of them if there are too many choices."""
        choice = tuple(signature.outputs[name].name for name in wanted)
        if choice in self._sets or len(self._sets) < _MOST_SETS:
            self._sets.add(choice)
            return wanted
        return sorted(signature.outputs)

    def _warm_up(self, directory: Path) -> None:
        """Run the model's own requests, and one of zeros.

        Raises:
            tf.errors.OpError: If the model cannot answer.
        """
        for name, inputs in read_requests(directory):
            key = name or DEFAULT_SIGNATURE
            if key not in self.signatures:
                raise missing_signature(key)
            signature = self.signatures[key]
            check_inputs(signature, set(inputs))
            inputs = _defaults(signature) | inputs
            self.run(signature, inputs, signature.outputs, _SECONDS_TO_WARM_UP)
        if not self.signatures:
            return
        first = next(iter(sorted(self.signatures)))
        default = self.signatures.get(DEFAULT_SIGNATURE, self.signatures[first])
        inputs = {name: _zeros(tensor) for name, tensor in default.inputs.items()}
        inputs |= _defaults(default)
        # The model may refuse zeros, or take long. It must not lack anything.
        with contextlib.suppress(
            tf.errors.InvalidArgumentError,
            tf.errors.OutOfRangeError,
            tf.errors.DeadlineExceededError,
        ):
            self.run(default, inputs, default.outputs, self._timeout)


def _defaults(signature: Signature) -> dict[str, np.ndarray]:
    return {name: SentTensor(m).array() for name, m in signature.defaults.items()}


def _zeros(tensor: tf.Tensor) -> np.ndarray:
    shape = [] if tensor.shape.rank is None else tensor.shape
    sizes = [1 if size is None else size for size in shape]
    if tensor.dtype == tf.string:
        return np.full(sizes, b"", object)
    return np.zeros(sizes, tensor.dtype.as_numpy_dtype)
