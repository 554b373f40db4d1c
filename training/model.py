"""The model of a job: made by its name; the file that makes it is kept."""

import hashlib
from pathlib import Path
from typing import Any

import keras

import kerasnorm
import models
from kerasnorm.layers.batch_norm import batch_norms
from kerasnorm.transforms.monte_carlo import dropout_layers
from kerasnorm.transforms.options import set_options
from training.cli.settings import option
from training.config import TrainConfig
from training.data.pipeline import Data
from training.errors import UserError, first_line
from training.pretrained import freeze, head, take_weights
from training.run import files
from training.run.atomic import write_atomically

_DECLARED = ("preset", "norm", "synchronized", "dropout_rate", "max_norm")
"""Options that the model's function gets if it declares an argument of that name."""

_OF_NORMS = ("moving_average", "virtual_batch_size", "renorm")
"""Options that every `KBatchNorm` of the model gets."""


def made_model(config: TrainConfig, data: Data, begins: bool = True) -> keras.Model:
    """Make the model of a job, not compiled, with logits of float32.

    Args:
        config: The options of the job.
        data: The dataset.
        begins: Whether it begins to be trained, so that it takes `--weights`.

    Raises:
        UserError: If it cannot be made, is no model from the images to logits, or
            lacks a layer that an option needs, or if the file of weights is another's.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        return _made(config, data, begins)
    finally:
        keras.config.set_dtype_policy(before)


def _made(config: TrainConfig, data: Data, begins: bool) -> keras.Model:
    try:
        declared = models.arguments(models.find(config.model))
        options = {**_given(config, declared), **config.model_option}
        if "scale" in declared:
            options = {"scale": data.scale, **options}

        def built(classes: int) -> keras.Model:
            model = models.build(config.model, data.shape, classes, **options)
            is_converted = config.convert and config.model not in models.REGISTRY
            return _converted(model) if is_converted else model

        model = built(len(data.labels))
    except ValueError as error:
        raise UserError(f"`--model` is not usable: {first_line(error)}") from error
    _check_layers(model, config)
    if config.weights and begins:
        take_weights(model, config.weights, built)
    of_layers: dict[type, dict[str, Any]] = {
        kerasnorm.KBatchNorm: _changed(config, *_OF_NORMS),
        kerasnorm.KDropout: _changed(config, "scale_at"),
    }
    set_options(model, {kind: given for kind, given in of_layers.items() if given})
    model = _with_float32_logits(model)
    if config.freeze:
        freeze(model, config.freeze)
    if config.train_head:
        head(model)  # is not frozen
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
    kept = directory / files.SOURCE
    try:
        if not kept.exists():
            _keep(source, kept)
        now, then = map(_digest, (source, kept))
        if now != then and now == config.model_hash:
            kept.rename(kept.with_stem(f"{kept.stem}-{then[:8]}"))
            _keep(source, kept)
            then = now
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The model's file cannot be kept: {error}.") from error
    if now != then:
        raise UserError(
            f"The model's file must be as it was when the run began, as in {kept}. "
            f"Received: {source}, which has changed. Put it back, or give --model-hash "
            f"{now} to go on with what it is now."
        )
    config = config.model_copy(update={"model_hash": now})
    files.write_config(directory, config)
    return config


def _keep(source: Path, copy: Path) -> None:
    with source.open(encoding="utf-8", newline="") as file:
        write_atomically(copy, file.read())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _given(config: TrainConfig, declared: set[str]) -> dict[str, Any]:
    """Return the options of `_DECLARED` that the function takes; refuse others."""
    for name in _changed(config, *_DECLARED):
        if name not in declared:
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


def _with_float32_logits(model: keras.Model) -> keras.Model:
    """Return the model; the loss and the answers of half precision lose digits."""
    (logits,) = model.outputs
    if keras.backend.standardize_dtype(logits.dtype) == "float32":
        return model
    cast = keras.layers.Activation("linear", dtype="float32", name="logits_in_float32")
    return keras.Model(model.inputs, cast(logits), name=model.name)


def _changed(config: TrainConfig, *names: str) -> dict[str, Any]:
    """Return those of the options that do not have their defaults."""
    fields = TrainConfig.model_fields
    given = {name: getattr(config, name) for name in names}
    return {n: v for n, v in given.items() if v != fields[n].default}


def _check_layers(model: keras.Model, config: TrainConfig) -> None:
    needs_norm = _changed(config, "recalibrate", "monitor", *_OF_NORMS)
    if needs_norm and not batch_norms(model):
        raise UserError(
            f"`{option(next(iter(needs_norm)))}` needs a model with batch "
            f"normalization of kerasnorm. Received: {config.model} without."
        )
    if needs_dropout := _changed(config, "monte_carlo", "scale_at"):
        try:
            dropout_layers(model)
        except ValueError as error:
            name = option(next(iter(needs_dropout)))
            raise UserError(f"`{name}` is not usable: {error}") from error
