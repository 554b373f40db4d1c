"""One SavedModel in a TensorFlow session, the runtime that TensorFlow Serving uses.

A session runs TensorFlow 1 and 2 models alike, keeps each signature's method, costs
less per call than a loaded function, and cancels what runs out of time.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, saved_model_pb2

from service.serving.batching import BatchingParameters
from service.serving.errors import invalid, of_runtime
from service.serving.warm_up import read_requests

Arrays = Mapping[str, np.ndarray]

DEFAULT_SIGNATURE = "serving_default"
_SERVE = tf.saved_model.SERVING
_SECONDS_TOO_LATE = 1.0
v1 = tf.compat.v1


@dataclass(frozen=True)
class Signature:
    """What a signature feeds and fetches."""

    inputs: Mapping[str, tf.Tensor]
    outputs: Mapping[str, tf.Tensor]


_Loaded = tuple[Mapping[str, Any], Mapping[str, Signature]]


class SavedModel:
    """A model that is loaded and has answered its warm-up requests.

    `definitions` has the `SignatureDef` of every signature by name, `signatures` those
    that can be called.

    Args:
        directory: One version's directory.
        batching: How to batch requests; `None` runs every request by itself.
        timeout: Seconds that a run usually may take.

    Raises:
        tf.errors.OpError, OSError, ValueError: If it cannot be loaded.
    """

    def __init__(
        self,
        directory: Path,
        batching: BatchingParameters | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._session = v1.Session(graph=tf.Graph())
        self._timeout = timeout
        self._callables: dict[tuple[str, ...], Any] = {}
        try:
            with self._session.graph.as_default():
                self.definitions, self.signatures = (
                    _load(self._session, directory)
                    if batching is None
                    else _load_batched(self._session, directory, batching)
                )
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
        """Runs a signature.

        Args:
            signature: One of this model's.
            inputs: An array for every input.
            outputs: The names of the outputs to compute.
            timeout: Seconds after which the run is cancelled, or up to a second later.

        Raises:
            tf.errors.OpError: If the model refuses the inputs or time runs out.
        """
        feeds = {}
        # Sorted, so that every order of the names is run by the same callable.
        for name, array in sorted(inputs.items()):
            tensor = signature.inputs[name]
            if not tensor.shape.is_compatible_with(array.shape):
                raise invalid(
                    f"Input {name} must have the shape {tensor.shape}. "
                    f"Received: {array.shape}."
                )
            feeds[tensor.name] = array
        names = sorted(outputs)
        fetches = [signature.outputs[name].name for name in names]
        try:
            values = self._run(fetches, feeds, timeout)
        except tf.errors.OpError as error:
            raise of_runtime(error) from None
        # A string without axes comes as `bytes`.
        arrays = (np.array(v, object) if isinstance(v, bytes) else v for v in values)
        return dict(zip(names, arrays, strict=True))

    def _run(self, fetches: list[str], feeds: Arrays, timeout: float) -> list[Any]:
        """Runs what a callable can run by one, which is a third faster.

        It has one time limit for all runs, and takes and gives each tensor once.
        """
        is_usual = 0 <= self._timeout - timeout <= _SECONDS_TOO_LATE
        if is_usual and len({*fetches, *feeds}) == len(fetches) + len(feeds):
            return list(self._callable(fetches, tuple(feeds))(*feeds.values()))
        return list(self._session.run(fetches, feeds, options=_time_limit(timeout)))

    def _callable(self, fetches: list[str], feeds: tuple[str, ...]) -> Any:
        key = (*fetches, "", *feeds)
        if key not in self._callables:
            # `Session.make_callable` knows no time limit.
            self._callables[key] = self._session._make_callable_from_options(
                config_pb2.CallableOptions(
                    feed=feeds, fetch=fetches, run_options=_time_limit(self._timeout)
                )
            )
        return self._callables[key]

    def close(self) -> None:
        """Frees the variables; nothing may be running."""
        self._callables.clear()
        self._session.close()

    def _warm_up(self, directory: Path) -> None:
        for name, inputs in read_requests(directory):
            signature = self.signatures[name or DEFAULT_SIGNATURE]
            self.run(signature, inputs, signature.outputs, timeout=3600)
        if (default := self.signatures.get(DEFAULT_SIGNATURE)) is not None:
            inputs = {name: _zeros(tensor) for name, tensor in default.inputs.items()}
            # Zeros need not be an input that the model takes.
            with contextlib.suppress(tf.errors.OpError):
                self.run(default, inputs, default.outputs, self._timeout)


def _time_limit(seconds: float) -> Any:
    return v1.RunOptions(timeout_in_ms=max(1, round(seconds * 1000)))


def _load(session: Any, directory: Path) -> _Loaded:
    meta_graph = v1.saved_model.loader.load(session, [_SERVE], str(directory))
    tensor = session.graph.get_tensor_by_name
    definitions = dict(meta_graph.signature_def)
    return definitions, {
        name: Signature(
            {key: tensor(info.name) for key, info in definition.inputs.items()},
            {key: tensor(info.name) for key, info in definition.outputs.items()},
        )
        for name, definition in definitions.items()
        if _is_callable(definition)
    }


def _load_batched(
    session: Any, directory: Path, parameters: BatchingParameters
) -> _Loaded:
    """Puts TensorFlow's batcher in front of every signature with a batch axis."""
    functions = tf.saved_model.load(str(directory)).signatures
    definitions = _signature_definitions(directory)
    signatures = {}
    for name, definition in definitions.items():
        if not _is_callable(definition):
            continue
        inputs = {
            key: v1.placeholder(info.dtype, tf.TensorShape(info.tensor_shape))
            for key, info in definition.inputs.items()
        }
        function = functions[name]
        outputs = (
            _batched(function, inputs, list(definition.outputs), parameters)
            if inputs and all(map(_has_batch_axis, inputs.values()))
            else function(**inputs)
        )
        signatures[name] = Signature(inputs, outputs)
    session.run([v1.global_variables_initializer(), v1.tables_initializer()])
    return definitions, signatures


def _batched(
    function: Any,
    inputs: Mapping[str, tf.Tensor],
    outputs: list[str],
    parameters: BatchingParameters,
) -> dict[str, tf.Tensor]:
    @tf.nondifferentiable_batch_function(
        num_batch_threads=parameters.num_batch_threads,
        max_batch_size=parameters.max_batch_size,
        batch_timeout_micros=parameters.batch_timeout_micros,
        allowed_batch_sizes=list(parameters.allowed_batch_sizes) or None,
        max_enqueued_batches=parameters.max_enqueued_batches,
        autograph=False,
    )
    def batch(*tensors: tf.Tensor) -> list[tf.Tensor]:
        values = function(**dict(zip(inputs, tensors, strict=True)))
        return [values[name] for name in outputs]

    return dict(zip(outputs, batch(*inputs.values()), strict=True))


def _signature_definitions(directory: Path) -> dict[str, Any]:
    saved_model = saved_model_pb2.SavedModel.FromString(
        (directory / "saved_model.pb").read_bytes()
    )
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == {_SERVE}:
            return dict(meta_graph.signature_def)
    raise ValueError(f"{directory} has no graph tagged {_SERVE!r}.")


def _is_callable(definition: Any) -> bool:
    """Whether a signature has outputs, and every input and output is one dense tensor.

    `__saved_model_init_op` has outputs that are none.
    """
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    return bool(definition.outputs) and all(info.name and info.dtype for info in infos)


def _has_batch_axis(tensor: tf.Tensor) -> bool:
    return bool(tensor.shape.rank) and tensor.shape[0] is None


def _zeros(tensor: tf.Tensor) -> np.ndarray:
    shape = [] if tensor.shape.rank is None else tensor.shape
    sizes = [1 if size is None else size for size in shape]
    if tensor.dtype == tf.string:
        return np.full(sizes, b"", object)
    return np.zeros(sizes, tensor.dtype.as_numpy_dtype)
