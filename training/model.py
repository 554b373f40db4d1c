"""The model of a job: made by its name; the file that makes it is kept."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import keras

import kerasnorm
import models
from kerasnorm.layers.batch_norm import batch_norms
from kerasnorm.transforms.monte_carlo import random_layers
from training.cli.settings import option
from training.config import TrainConfig
from training.data.pipeline import Data
from training.errors import UserError, first_line
from training.run import files

_DECLARED = ("preset", "norm", "synchronized", "dropout_rate", "max_norm")
"""Options that the model's function gets if it declares an argument of that name."""


def made_model(config: TrainConfig, data: Data) -> keras.Model:
    """Make the model of a job, not compiled.

    Raises:
        UserError: If it cannot be made, is no model from the images to logits, or
            lacks a layer that an option needs.
    """
    shape, classes = data.shape, len(data.labels)
    try:
        declared = models.arguments(models.find(config.model))
        options = {**_given(config, declared), **config.model_option}
        if "scale" in declared:
            options = {"scale": data.scale, **options}
        model = models.build(config.model, shape, classes, **options)
    except ValueError as error:
        raise UserError(f"`--model` is not usable: {first_line(error)}") from error
    if config.convert and config.model not in models.REGISTRY:
        model = _converted(model)
    _check_layers(model, config)
    return model


def check_source(config: TrainConfig, directory: Path) -> TrainConfig:
    """Note in a new run the hash of the file that makes its model, and keep the file.

    Args:
        config: The options of the run.
        directory: The directory of the run.

    Returns:
        The options with the hash.

    Raises:
        UserError: If the file has changed since the run began.
    """
    source = models.source(config.model)
    if source is None:
        return config
    try:
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        if config.model_hash is None:
            shutil.copyfile(source, directory / files.SOURCE)
            config = config.model_copy(update={"model_hash": digest})
            files.write_config(directory, config)
    except OSError as error:
        raise UserError(f"The model's file cannot be kept: {error}.") from error
    if config.model_hash != digest:
        raise UserError(
            f"The model's file must be as it was when the run began, as in "
            f"{directory / files.SOURCE}. Received: {source}, which has changed. Put "
            f"it back, or give --model-hash {digest} to go on with what it is now."
        )
    return config


def _given(config: TrainConfig, declared: set[str]) -> dict[str, Any]:
    """Return the options of `_DECLARED` that the function takes; refuse others."""
    for name in _DECLARED:
        default = TrainConfig.model_fields[name].default
        if name not in declared and getattr(config, name) != default:
            raise ValueError(
                f"`{option(name)}` needs a model whose function has an argument "
                f"`{name}`. Received: {config.model}."
            )
    return {name: getattr(config, name) for name in _DECLARED if name in declared}


def _converted(model: keras.Model) -> keras.Model:
    try:
        return kerasnorm.convert(model)
    except ValueError as error:
        print(f"The model keeps Keras's own layers: {first_line(error)}", flush=True)
        return model


def _check_layers(model: keras.Model, config: TrainConfig) -> None:
    needs_norm = [n for n in ("recalibrate", "monitor") if getattr(config, n)]
    if needs_norm and not batch_norms(model):
        raise UserError(
            f"`{option(needs_norm[0])}` needs a model with batch normalization of "
            f"kerasnorm. Received: {config.model} without."
        )
    if config.monte_carlo:
        try:
            random_layers(model)
        except ValueError as error:
            raise UserError(f"`--monte-carlo` is not usable: {error}") from error
