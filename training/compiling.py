"""The model of a job, compiled: its loss, its metrics, its optimizer."""

import math
from typing import Any

import keras

from training.config import TrainConfig
from training.data.pipeline import Data
from training.loss import TrainingLoss, accuracy, balanced
from training.model import made_model

WARM_UP = 0.2  # of all steps

_JIT = {"auto": "auto", "on": True, "off": False}


def compiled_model(config: TrainConfig, data: Data, done: int = 0) -> keras.Model:
    """Make the model of a job, compiled; the same variables at every call.

    Args:
        config: The options of the job.
        data: The dataset.
        done: How many epochs the checkpoint has that will be restored into it. With 0
            it takes `--weights`.
    """
    keras.utils.set_random_seed(config.seed)
    model = made_model(config, data, begins=not done)
    compile_to_train(model, make_optimizer(config, data, done), config, data)
    return model


def compile_to_train(
    model: keras.Model, optimizer: keras.Optimizer, config: TrainConfig, data: Data
) -> None:
    """Compile a model to train what is not frozen at this time."""
    model.compile(
        optimizer,
        **(_softened(config, data) if config.softens_labels else _plain()),
        jit_compile=_JIT[config.jit],
    )
    # A checkpoint can only be restored into variables that exist. Keras wraps the
    # optimizer where a loss of half precision must be scaled.
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def compile_plainly(model: keras.Model, config: TrainConfig) -> None:
    """Give a trained model Keras's own loss, with which anyone can load its file."""
    if config.softens_labels:
        model.compile(model.optimizer, **_plain(), jit_compile=_JIT[config.jit])


def make_optimizer(config: TrainConfig, data: Data, done: int) -> keras.Optimizer:
    """Return a new optimizer for the epochs of the head alone, or for those after."""
    head = config.train_head
    epochs = head if done < head else config.epochs - head
    steps = steps_in_epoch(config, data) * epochs
    warm_up_steps = round(WARM_UP * steps)
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            warmup_target=config.learning_rate,
            warmup_steps=warm_up_steps,
            decay_steps=steps - warm_up_steps,
        ),
        weight_decay=config.weight_decay,
    )
    # Decaying gamma and beta pulls every normalized unit towards 0.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def steps_in_epoch(config: TrainConfig, data: Data) -> int:
    """Return the number of steps in an epoch."""
    return math.ceil(data.sizes["train"] / config.batch_size)


# The metrics have their variables: Keras makes those of a name in the first step, which
# TensorFlow then traces twice.
def _plain() -> dict[str, Any]:
    return {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    }


def _softened(config: TrainConfig, data: Data) -> dict[str, Any]:
    is_balanced = config.class_weight == "balanced"
    weights = balanced(data.train_counts) if is_balanced else None
    return {
        "loss": TrainingLoss(config.label_smoothing, weights),
        "metrics": [keras.metrics.MeanMetricWrapper(accuracy, name="accuracy")],
    }
