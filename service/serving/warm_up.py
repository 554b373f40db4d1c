"""The warm-up requests for TensorFlow Serving that a SavedModel may contain."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from service.serving.examples import serialized
from training.run import files

_MOST = 1000
_logger = logging.getLogger(__name__)


def read_requests(directory: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield each request's signature name ("" is the default) and inputs.

    Args:
        directory: One version's directory.

    Raises:
        tf.errors.OpError: If the file is damaged or holds more than 1000 requests.
    """
    path = directory / files.WARM_UP_REQUESTS
    if not path.is_file():
        return
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        _logger.warning(
            "%s is not used: tensorflow-serving-api is not installed. "
            "Run: pip install --group serve.",
            path,
        )
        return
    for count, record in enumerate(tf.data.TFRecordDataset(str(path))):
        if count == _MOST:
            raise tf.errors.InvalidArgumentError(
                None, None, f"{path} holds more than {_MOST} warm-up requests."
            )
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        match log.WhichOneof("log_type"):
            case "predict_log":
                request = log.predict_log.request
                inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
            case "classify_log":
                request = log.classify_log.request
                inputs = {"inputs": serialized(request.input)}
            case "regress_log":
                request = log.regress_log.request
                inputs = {"inputs": serialized(request.input)}
            case kind:
                raise tf.errors.UnimplementedError(
                    None, None, f"Unsupported log_type for warmup: {kind}"
                )
        yield request.model_spec.signature_name, inputs
