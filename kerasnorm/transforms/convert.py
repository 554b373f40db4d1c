"""Keras's layers for ours and back: `convert`."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kerasnorm import _validation
from kerasnorm._keras import (
    all_layers,
    compile_arguments,
    decays,
    trained_variables,
)
from kerasnorm.layers._schedule import is_schedule
from kerasnorm.layers.batch_norm import KBatchNorm
from kerasnorm.layers.dropout import KDropout, KGaussianDropout, KSpatialDropout
from kerasnorm.transforms._configs import (
    Config,
    check_is_functional,
    copy_state,
    layers_of_attention,
    map_objects,
    remade,
    replaced,
)

_SPATIAL = (
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
_OURS: dict[type, Any] = {
    keras.layers.BatchNormalization: KBatchNorm,
    keras.layers.Dropout: KDropout,
    keras.layers.GaussianDropout: KGaussianDropout,
    **dict.fromkeys(_SPATIAL, KSpatialDropout),
}

_DROPOUTS = (
    *_SPATIAL,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    KDropout,
    KSpatialDropout,
    KGaussianDropout,
)


def convert(model: keras.Model, to: str = "kerasnorm") -> keras.Model:
    """Make the same model from the layers of this package, or from Keras's.

    `BatchNormalization`, `Dropout`, `SpatialDropout1D`, `2D`, `3D` and
    `GaussianDropout` become `KBatchNorm`, `KDropout`, `KSpatialDropout` and
    `KGaussianDropout` with the same names, configurations and weights, or the other
    way round. All other layers are copied, so `MultiHeadAttention` keeps the `Dropout`
    that it makes for itself. Predictions stay what they are. If the model is compiled
    the new one is too, with the same loss and metrics and a copy of the optimizer and
    its slots: training goes on where it was.

    Args:
        model: Sequential or functional model, which does not change. It may have models
            and wrapped layers in it, each layer in one of them. Keras must be able to
            make custom parts again from their configuration.
        to: `"kerasnorm"` (default) or `"keras"`.

    Returns:
        A new model.

    Raises:
        ValueError: If the model, or one inside of it that has layers to be replaced,
            is subclassed; if a part cannot be made again; or, with `to="keras"`, if a
            layer uses an option that Keras's layer does not have.

    Example:

    >>> import keras, kerasnorm
    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(4),
    ...     keras.layers.BatchNormalization(name="norm"), keras.layers.Dropout(0.5)])
    >>> [type(layer).__name__ for layer in kerasnorm.convert(model).layers]
    ['Dense', 'KBatchNorm', 'KDropout']
    """
    to = _validation.check_choice("to", to, ("kerasnorm", "keras"))
    check_is_functional(model)
    replace, outdated = (
        (_to_ours, tuple(_OURS))
        if to == "kerasnorm"
        else (_to_keras, tuple(_OURS.values()))
    )

    new = remade(model, lambda config: map_objects(config, replace))
    _check_all_are_replaced(model, new, outdated)
    _copy_layers(model, new)
    if model.compiled:
        _copy_compilation(model, new)
    return new


def _to_ours(entry: Config) -> Config:
    for theirs, ours in _OURS.items():
        if entry["class_name"] == theirs.__name__ and entry["module"] == "keras.layers":
            return replaced(entry, ours.from_config(entry["config"]))
    return entry


def _to_keras(entry: Config) -> Config:
    for ours in _OURS.values():
        if entry.get("registered_name") == f"kerasnorm>{ours.__name__}":
            layer = ours.from_config(entry["config"])
            shape = (entry.get("build_config") or {}).get("input_shape")
            return replaced(entry, _BACK[ours](layer, shape))
    return entry


def _batch_normalization(layer: KBatchNorm, shape: Any) -> keras.layers.Layer:
    config = layer.get_config()
    _refuse(layer, "moving_average", config.pop("moving_average"), "exponential")
    _refuse(layer, "bessel_correction", config.pop("bessel_correction"), False)
    _refuse(layer, "virtual_batch_size", config.pop("virtual_batch_size"), None)
    if isinstance(layer.axis, tuple):
        if len(layer.axis) > 1:
            raise _no_counterpart(layer, "axis", layer.axis)
        (config["axis"],) = layer.axis
    for bound, value in layer.renorm_clipping.items():
        if is_schedule(value):
            raise _no_counterpart(layer, f"renorm_clipping['{bound}']", value)
    return keras.layers.BatchNormalization.from_config(config)


def _dropout(layer: KDropout, shape: Any) -> keras.layers.Layer:
    config = _with_constant_rate(layer)
    _refuse(layer, "scale_at", config.pop("scale_at"), "training")
    _refuse(layer, "monte_carlo", config.pop("monte_carlo"), False)
    return keras.layers.Dropout.from_config(config)


def _spatial_dropout(layer: KSpatialDropout, shape: Any) -> keras.layers.Layer:
    config = _with_constant_rate(layer)
    if shape is None:
        raise ValueError(
            f"The layer {layer.name!r} must be built to become one of Keras's, which "
            "has a class for each rank. Give the model an input shape."
        )
    theirs = _SPATIAL[len(shape) - 3]
    if theirs is keras.layers.SpatialDropout1D:
        _refuse(layer, "data_format", config.pop("data_format"), "channels_last")
    # Their constructors take no `trainable`, and not every one a policy.
    config.pop("trainable")
    return theirs(**config)


def _gaussian_dropout(layer: KGaussianDropout, shape: Any) -> keras.layers.Layer:
    return keras.layers.GaussianDropout.from_config(_with_constant_rate(layer))


_BACK: dict[type, Callable[[Any, Any], keras.layers.Layer]] = {
    KBatchNorm: _batch_normalization,
    KDropout: _dropout,
    KSpatialDropout: _spatial_dropout,
    KGaussianDropout: _gaussian_dropout,
}


def _with_constant_rate(layer: Any) -> Config:
    if is_schedule(layer.rate):
        raise _no_counterpart(layer, "rate", layer.rate)
    config: Config = layer.get_config()
    return config


def _refuse(layer: Any, option: str, value: Any, only: Any) -> None:
    if value != only:
        raise _no_counterpart(layer, option, value)


def _no_counterpart(layer: Any, option: str, value: Any) -> ValueError:
    return ValueError(
        f"The layer {layer.name!r} must use no option that Keras's layer lacks to be "
        f"converted back. Received: {option}={value!r}."
    )


def _check_all_are_replaced(
    old: keras.Model, new: keras.Model, outdated: tuple[type, ...]
) -> None:
    kept = layers_of_attention(new)
    for layer in all_layers(new):
        if type(layer) in outdated and layer not in kept:
            name = layer.path or layer.name
            raise ValueError(
                f"The {type(layer).__name__} {name!r} must be part of a "
                "Sequential or functional model. Received: one that the code of a "
                "subclassed model or layer makes. Only that code can replace it."
            )
    if len(all_layers(old)) != len(all_layers(new)):
        raise ValueError(
            f"The layers of {old.name!r} must each belong to one model, though it may "
            "use them more than once. Received: a layer that stands both in a model "
            "inside of it and outside of that."
        )


def _copy_layers(old: keras.Model, new: keras.Model) -> None:
    if not old.built:
        return
    for theirs, ours in zip(all_layers(old), all_layers(new), strict=True):
        if type(ours) is type(theirs) or not isinstance(theirs, _DROPOUTS):
            copy_state(theirs, ours)
        # Keras's spatial dropout leaves its policy out of its configuration.
        if ours.dtype_policy != theirs.dtype_policy:
            ours.dtype_policy = theirs.dtype_policy
        our_seed, their_seed = (
            getattr(layer, "seed_generator", None) for layer in (ours, theirs)
        )
        if our_seed and their_seed:  # a built-in dropout of rate 0 has none
            _assign_copy(our_seed.state, their_seed.state)


def _copy_compilation(old: keras.Model, new: keras.Model) -> None:
    arguments = compile_arguments(old)
    for kind in ("metrics", "weighted_metrics"):
        arguments[kind] = keras.tree.map_structure(_copy_metric, arguments[kind])
    optimizer = type(old.optimizer).from_config(old.optimizer.get_config())
    new.compile(**{**arguments, "optimizer": optimizer})
    # The layers may have been frozen since the optimizer was built.
    pairs = zip(old.weights, new.weights, strict=True)
    ours_for = {id(theirs): ours for theirs, ours in pairs}
    inner, old_inner = map(_inner, (optimizer, old.optimizer))
    trained = trained_variables(old_inner) or old.trainable_variables
    inner.exclude_from_weight_decay(
        [ours_for[id(v)] for v in trained if not decays(old_inner, v)]
    )
    if old.optimizer.built:
        optimizer.build([ours_for[id(v)] for v in trained])
        for ours, theirs in zip(
            optimizer.variables, old.optimizer.variables, strict=True
        ):
            _assign_copy(ours, theirs)


def _copy_metric(metric: Any) -> Any:
    is_metric = isinstance(metric, keras.Metric)
    return type(metric).from_config(metric.get_config()) if is_metric else metric


def _inner(optimizer: Any) -> Any:
    """Return the optimizer that a LossScaleOptimizer scales for."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _assign_copy(variable: Any, other: Any) -> None:
    # JAX lets two variables share an array, which the training of one then frees.
    variable.assign(ops.copy(other.value))
