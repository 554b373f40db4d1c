"""Exported models: the SavedModels that a server would load."""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.networks import LARGE_NETWORKS, NETWORKS, build
from benchmarks.quiet import measure

BATCHES = (1, 32, 256)
VARIANTS = ("kerasnorm", "folded", "keras", "neither")


def exported(model: keras.Model, directory: Path) -> Any:
    """Export a model for batches of any size; return the SavedModel, loaded again."""
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve", lambda x: model(x, training=False), input_signature=[images]
    )
    archive.write_out(str(directory), verbose=False)
    return tf.saved_model.load(str(directory))


def run(quick: bool, patience: float) -> dict[str, Any]:
    """Time the exported models."""
    rows = []
    for network in ("mlp",) if quick else (*NETWORKS, *LARGE_NETWORKS):
        with tempfile.TemporaryDirectory() as directory:
            served = {
                variant: exported(build(network, variant), Path(directory, variant))
                for variant in VARIANTS
            }
            shape = build(network, "kerasnorm").input_shape[1:]
            for batch in BATCHES:
                x = tf.constant(
                    np.random.default_rng(0).uniform(0, 255, (batch, *shape)),
                    tf.float32,
                )
                steps = {
                    variant: lambda model=model, x=x: model.serve(x)
                    for variant, model in served.items()
                }
                measured = measure(steps, 0.5 if quick else 3, patience)
                rows.append({"network": network, "batch": batch, **measured})
    return {"inference": rows}
