"""Answers: of SavedModels that a server would load, or of models on other backends."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.networks import LARGE_NETWORKS, NETWORKS, build
from benchmarks.quiet import measure

BATCHES = (1, 32, 256)
VARIANTS = ("kerasnorm", "folded", "keras", "neither")


def exported(model: keras.Model, directory: Path) -> Any:
    """Export a model for batches of any size; return the SavedModel, loaded again."""
    import tensorflow as tf

    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve", lambda x: model(x, training=False), input_signature=[images]
    )
    archive.write_out(str(directory), verbose=False)
    return tf.saved_model.load(str(directory))


def predictor(model: keras.Model, directory: Path) -> Callable[[Any], Any]:
    """Return the function of images that is timed."""
    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch
    loaded = exported(model, directory)  # its function alone does not hold its weights
    return lambda x: loaded.serve(x)


def run(quick: bool, patience: float) -> dict[str, Any]:
    """Time the answers."""
    rows = []
    for network in ("mlp",) if quick else (*NETWORKS, *LARGE_NETWORKS):
        print(network, flush=True)
        with tempfile.TemporaryDirectory() as directory:
            predictors = {
                variant: predictor(build(network, variant), Path(directory, variant))
                for variant in VARIANTS
            }
            shape = build(network, "kerasnorm").input_shape[1:]
            for batch in BATCHES:
                images = np.random.default_rng(0).uniform(0, 255, (batch, *shape))
                x = keras.ops.convert_to_tensor(images.astype("float32"))
                steps = {
                    variant: lambda predict=predict, x=x: predict(x)
                    for variant, predict in predictors.items()
                }
                measured = measure(steps, 0.5 if quick else 3, patience)
                rows.append({"network": network, "batch": batch, **measured})
    return {"inference": rows}
