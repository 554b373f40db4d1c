"""Keras's layers for ours and back: `convert`."""

import warnings
from collections.abc import Callable
from typing import Any

import keras

from kerasnorm import _validation
from kerasnorm._keras import all_layers, has_renorm
from kerasnorm.layers._schedule import is_schedule
from kerasnorm.layers.batch_norm import KBatchNorm
from kerasnorm.layers.dropout import KDropout, KGaussianDropout, KSpatialDropout
from kerasnorm.transforms._compilation import copy_compilation
from kerasnorm.transforms._configs import (
    Config,
    check_is_functional,
    layers_of_attention,
    map_objects,
    remade,
    replaced,
)
from kerasnorm.transforms._layers import COUNTERPARTS, DROPOUTS, SPATIAL_DROPOUTS
from kerasnorm.transforms._pairs import (
    Weights,
    assign_copy,
    copy_state,
    paired_layers,
    paired_weights,
)


def convert(model: keras.Model, to: str = "kerasnorm") -> keras.Model:
    """Make the same model from the layers of this package, or from Keras's.

    `BatchNormalization`, `Dropout`, `SpatialDropout1D`, `2D`, `3D` and
    `GaussianDropout` become `KBatchNorm`, `KDropout`, `KSpatialDropout` and
    `KGaussianDropout` with the same names, configurations and weights, or the other
    way round. All other layers are copied, so `MultiHeadAttention` keeps the `Dropout`
    that it makes for itself. Predictions stay what they are. If the model is compiled
    the new one is too, with the same loss and metrics and a copy of the optimizer:
    training goes on where it was.

    Weights, and the optimizer's slots, go by the path: the place of the layer and the
    name of the weight. Where the optimizer was built for other weights than the model
    has now, as before `quantize` or Sequential's `pop` and `add`, a warning names the
    slots that are dropped and those that begin as in a new optimizer; the others and
    the count of steps are carried over. If none fits, the whole optimizer begins anew.

    Args:
        model: Sequential or functional model, which does not change. It may have models
            and wrapped layers in it, each layer in one of them. Keras must be able to
            make custom parts again from their configuration.
        to: `"kerasnorm"` (default) or `"keras"`.

    Returns:
        A new model.

    Raises:
        ValueError: If the model, or one inside of it that has layers to be replaced,
            is subclassed; if a part cannot be made again with the same weights; if two
            layers share a weight or, in one model, a name; or, with `to="keras"`, if a
            layer uses an option that Keras's layer does not have.

    Warns:
        UserWarning: If not all slots fit, or if the new model cannot be compiled since
            the optimizer's configuration or the model's own `compile` lacks something.

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
        (_to_ours, tuple(COUNTERPARTS))
        if to == "kerasnorm"
        else (_to_keras, tuple(COUNTERPARTS.values()))
    )

    new = remade(model, lambda config: map_objects(config, replace))
    _check_all_are_replaced(new, outdated)
    weights = _copy_layers(model, new)
    if model.compiled and (remark := copy_compilation(model, new, weights)):
        warnings.warn(remark, stacklevel=2)
    return new


def _to_ours(entry: Config) -> Config:
    for theirs, ours in COUNTERPARTS.items():
        place = entry.get("module"), entry["class_name"]
        if place == ("keras.layers", theirs.__name__):
            return replaced(entry, ours.from_config(entry["config"]))
    return entry


def _to_keras(entry: Config) -> Config:
    for ours in COUNTERPARTS.values():
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
            raise _no_counterpart(layer, "axis", layer.axis, "one integer as `axis`")
        (config["axis"],) = layer.axis
    if not has_renorm():
        _refuse(layer, "renorm", layer.renorm, False)
        config = {k: v for k, v in config.items() if not k.startswith("renorm")}
    for bound, value in layer.renorm_clipping.items():
        if is_schedule(value):
            option = f"renorm_clipping['{bound}']"
            raise _no_counterpart(layer, option, value, f"a number as {option}")
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
    theirs = SPATIAL_DROPOUTS[len(shape) - 3]
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
        raise _no_counterpart(layer, "rate", layer.rate, "a number as `rate`")
    config: Config = layer.get_config()
    return config


def _refuse(layer: Any, option: str, value: Any, only: Any) -> None:
    if value != only:
        raise _no_counterpart(layer, option, value, f"{option}={only!r}")


def _no_counterpart(layer: Any, option: str, value: Any, instead: str) -> ValueError:
    return ValueError(
        f"The layer {layer.name!r} must use no option that Keras's layer lacks to be "
        f"converted back. Received: {option}={value!r}. Make the model with {instead}; "
        "or export it: a SavedModel (`model.export`) runs without kerasnorm."
    )


def _check_all_are_replaced(new: keras.Model, outdated: tuple[type, ...]) -> None:
    kept = layers_of_attention(new)
    for layer in all_layers(new):
        if type(layer) in outdated and layer not in kept:
            name = layer.path or layer.name
            raise ValueError(
                f"The {type(layer).__name__} {name!r} must be part of a "
                "Sequential or functional model. Received: one that the code of a "
                "subclassed model or layer makes. Only that code can replace it."
            )


def _copy_layers(old: keras.Model, new: keras.Model) -> Weights:
    """Copy what the layers have learnt; return the weights of both in pairs."""
    weights: Weights = []
    for theirs, ours in paired_layers(old, new):
        ours.name = theirs.name
        if not old.built:
            continue
        weights += paired_weights(theirs, ours)
        if type(ours) is type(theirs) or not isinstance(theirs, DROPOUTS):
            copy_state(theirs, ours)
        # Keras's spatial dropout leaves its policy out of its configuration.
        if ours.dtype_policy != theirs.dtype_policy:
            ours.dtype_policy = theirs.dtype_policy
        our_seed, their_seed = (
            getattr(layer, "seed_generator", None) for layer in (ours, theirs)
        )
        if our_seed and their_seed:  # a built-in dropout of rate 0 has none
            assign_copy(our_seed.state, their_seed.state)
    _check_are_apart(weights)
    return weights


def _check_are_apart(weights: Weights) -> None:
    counterparts: dict[int, keras.Variable] = {}
    for theirs, ours in weights:
        if counterparts.setdefault(id(theirs), ours) is not ours:
            raise ValueError(
                "The weights of `model` must each belong to one layer. Received: "
                f"{theirs.path!r}, which two layers have. Made again they would be "
                "two weights. Call one layer twice instead."
            )
