"""Whole models: training steps with our layers, with Keras's and with neither."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

import kerasnorm
import models
from benchmarks import memory
from benchmarks.quiet import measure
from benchmarks.resnet import resnet20
from benchmarks.timing import Step
from kerasnorm import KBatchNorm, KDropout

BATCH = 128
NUM_CLASSES = 10
NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "mlp": lambda: models.build("mlp", (28, 28, 1), NUM_CLASSES),
    "cnn": lambda: models.build("cnn", (28, 28, 1), NUM_CLASSES),
    "resnet20": lambda: resnet20((32, 32, 3), NUM_CLASSES),
}
APPLICATIONS: dict[str, Callable[[], keras.Model]] = {
    "resnet50v2": lambda: _application(keras.applications.ResNet50V2),
    "mobilenetv2": lambda: _application(keras.applications.MobileNetV2),
}
"""Their training steps are timed too."""

BATCH_OF_APPLICATIONS = 32
LARGE_NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "mobilenet": lambda: kerasnorm.convert(keras.applications.MobileNet(weights=None)),
}
VARIANTS = ("kerasnorm", "keras", "neither")


def _application(make: Callable[..., keras.Model]) -> keras.Model:
    model = make(
        weights=None,
        input_shape=(64, 64, 3),
        classes=NUM_CLASSES,
        classifier_activation=None,
    )
    return kerasnorm.convert(model)


def build(network: str, variant: str) -> keras.Model:
    """Make a network whose normalization and dropout are those of a variant.

    All else is the same; there is no bias before a normalization in any variant.

    Args:
        network: A key of `NETWORKS`, `APPLICATIONS` or `LARGE_NETWORKS`.
        variant: `"kerasnorm"`; `"keras"`, with Keras's layers; `"neither"`, without
            these layers; or, for inference, `"folded"`.
    """
    keras.utils.set_random_seed(0)
    model = {**NETWORKS, **APPLICATIONS, **LARGE_NETWORKS}[network]()
    if variant == "kerasnorm":
        return model
    if variant == "keras":
        return kerasnorm.convert(model, to="keras")
    if variant == "folded":
        return kerasnorm.fold(model)
    return keras.models.clone_model(model, call_function=_skip)


def _skip(layer: keras.Layer, inputs: Any, **arguments: Any) -> Any:
    is_left_out = isinstance(layer, (KBatchNorm, KDropout))
    return inputs if is_left_out else layer(inputs, **arguments)


def training_step(network: str, variant: str) -> Step:
    """Make a step of Keras's own training, on the same batch every time."""
    model = build(network, variant)
    model.compile(
        optimizer=keras.optimizers.Adam(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    rng = np.random.default_rng(0)
    batch = BATCH_OF_APPLICATIONS if network in APPLICATIONS else BATCH
    images = rng.integers(0, 256, (batch, *model.input_shape[1:])).astype("float32")
    labels = rng.integers(0, NUM_CLASSES, batch)
    if keras.backend.backend() != "tensorflow":
        return lambda: model.train_on_batch(images, labels, return_dict=True)
    import tensorflow as tf

    batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    model.make_train_function()
    return lambda: model.train_function(batches)


def added_share(times: Mapping[str, Mapping[str, float]]) -> float:
    """Return what our layers add to the step, as a share of what Keras's add."""
    ours, keras_own, neither = (times[variant]["median"] for variant in VARIANTS)
    return (ours - neither) / (keras_own - neither)


def run(quick: bool, patience: float) -> dict[str, Any]:
    """Time the training steps; measure the first call and the peak of the memory."""
    rows = []
    for network in ("mlp",) if quick else (*NETWORKS, *APPLICATIONS):
        print(network, flush=True)
        steps = {variant: training_step(network, variant) for variant in VARIANTS}
        measured = measure(steps, 2 if quick else 15, patience)
        del steps
        costs = memory.measure_costs(
            {variant: (training_step, (network, variant)) for variant in VARIANTS},
            repeats=1 if quick else 3,
        )
        rows.append(
            {
                "network": network,
                **measured,
                "added_share": added_share(measured["times"]),
                "costs": {variant: asdict(cost) for variant, cost in costs.items()},
            }
        )
    return {"models": rows}
