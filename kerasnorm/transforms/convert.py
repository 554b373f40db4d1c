"""Keras's layers for ours and back: `convert`."""

import warnings
from collections.abc import Callable
from typing import Any

import keras

from kerasnorm import _validation
from kerasnorm._keras import become, has_renorm, set_path, track_variables
from kerasnorm.layers._schedule import is_schedule
from kerasnorm.layers.batch_norm import KBatchNorm
from kerasnorm.layers.dropout import KDropout, KGaussianDropout, KSpatialDropout
from kerasnorm.transforms._compilation import copy_compilation
from kerasnorm.transforms._configs import Config, check_has_graph
from kerasnorm.transforms._layers import COUNTERPARTS, DROPOUTS, SPATIAL_DROPOUTS
from kerasnorm.transforms._pairs import (
    Pairs,
    Weights,
    assign_copy,
    built_as,
    copy_state,
    paired_weights,
    restore_class,
)
from kerasnorm.transforms._remaking import paired_with_new

Makers = dict[Any, Callable[[Any], keras.layers.Layer]]
"""How to make the counterpart of a layer, by its class."""


def convert(model: keras.Model, to: str = "kerasnorm") -> keras.Model:
    """Make the same model from the layers of this package, or from Keras's.

    `BatchNormalization`, `Dropout`, `SpatialDropout1D`, `2D`, `3D` and
    `GaussianDropout` become `KBatchNorm`, `KDropout`, `KSpatialDropout` and
    `KGaussianDropout` with the same names, configurations and weights, or the other
    way round, wherever they are: in the graph, in models and wrappers in it, and in
    custom layers that hold them as attributes or in lists, as blocks of KerasHub and
    `MultiHeadAttention` do. All other layers are copied. The new model is of the same
    class, or the plain graph where the configuration of a class with a constructor of
    its own lacks something. Predictions stay what they are. If the model is compiled
    the new one is too, with the same loss and metrics and a copy of the optimizer:
    training goes on where it was.

    Weights, and the optimizer's slots, go by the path: the place of the layer and the
    name of the weight. Where the optimizer was built for other weights than the model
    has now, as before `quantize` or Sequential's `pop` and `add`, a warning names the
    slots that are dropped and those that begin as in a new optimizer; the others and
    the count of steps are carried over. If none fits, the whole optimizer begins anew.

    What the code of a custom layer makes, a saved file makes of Keras's layers again:
    load a `.keras` file of such a model by `kerasnorm.load_model`.

    Args:
        model: Sequential or functional model of any class, which does not change. Keras
            must be able to make custom parts again from their configuration.
        to: `"kerasnorm"` (default) or `"keras"`.

    Returns:
        A new model.

    Raises:
        ValueError: If the model is subclassed, without a graph; if a part cannot be
            made again with the same weights; if two layers share a weight or, in one
            model, a name; if a layer is of a subclass of one that is to be converted;
            or, with `to="keras"`, if a layer uses an option that Keras's layer does not
            have.

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
    check_has_graph(model)
    makers = _TO_OURS if to == "kerasnorm" else _TO_KERAS
    pairs = paired_with_new(model)
    _, new = pairs[0]
    for theirs, ours in pairs:
        ours.name = theirs.name
        if type(theirs) in makers:
            become(ours, built_as(makers[type(theirs)](theirs), theirs))
        else:
            _check_is_no_subclass(theirs, makers)
            restore_class(theirs, ours)
        # A model's reaches all in it, which come later.
        if ours.trainable != theirs.trainable:
            ours.trainable = theirs.trainable
        set_path(ours, theirs.path)
    weights = _copy_layers(pairs) if model.built else []
    track_variables(new)
    if model.compiled and (remark := copy_compilation(model, new, weights)):
        warnings.warn(remark, stacklevel=2)
    return new


def _check_is_no_subclass(layer: keras.layers.Layer, makers: Makers) -> None:
    for base in makers:
        if isinstance(layer, base):
            raise ValueError(
                f"The layer {layer.path or layer.name!r} must be a {base.__name__} "
                f"itself to be converted. Received: {type(layer).__name__}, a subclass "
                f"with code of its own. Put a {base.__name__} in its place, or derive "
                "its class from the layer that it is to become."
            )


def _copy_layers(pairs: Pairs) -> Weights:
    """Copy what the layers have learnt; return the weights of both in pairs."""
    weights: Weights = []
    for theirs, ours in pairs:
        weights += paired_weights(theirs, ours)
        if type(ours) is type(theirs) or not isinstance(theirs, DROPOUTS):
            copy_state(theirs, ours)
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


def _of_config(ours: Any) -> Callable[[Any], keras.layers.Layer]:
    return lambda layer: ours.from_config(layer.get_config())


def _of_spatial_dropout(layer: Any) -> keras.layers.Layer:
    ours = KSpatialDropout.from_config(layer.get_config())
    ours.compute_output_shape((None,) * layer.input_spec.ndim)
    return ours


_TO_OURS: Makers = {
    theirs: _of_spatial_dropout if ours is KSpatialDropout else _of_config(ours)
    for theirs, ours in COUNTERPARTS.items()
}


def _batch_normalization(layer: KBatchNorm) -> keras.layers.Layer:
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


def _dropout(layer: KDropout) -> keras.layers.Layer:
    config = _with_constant_rate(layer)
    _refuse(layer, "scale_at", config.pop("scale_at"), "training")
    _refuse(layer, "monte_carlo", config.pop("monte_carlo"), False)
    return keras.layers.Dropout.from_config(config)


def _spatial_dropout(layer: KSpatialDropout) -> keras.layers.Layer:
    config = _with_constant_rate(layer)
    build_config = layer.get_build_config()
    if build_config is None:
        raise ValueError(
            f"The layer {layer.name!r} must be built to become one of Keras's, which "
            "has a class for each rank. Give the model an input shape."
        )
    theirs = SPATIAL_DROPOUTS[len(build_config["input_shape"]) - 3]
    if theirs is keras.layers.SpatialDropout1D:
        _refuse(layer, "data_format", config.pop("data_format"), "channels_last")
    # Their constructors take no `trainable`, and not every one a policy.
    config.pop("trainable")
    return theirs(**config)


def _gaussian_dropout(layer: KGaussianDropout) -> keras.layers.Layer:
    return keras.layers.GaussianDropout.from_config(_with_constant_rate(layer))


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


_TO_KERAS: Makers = {
    KBatchNorm: _batch_normalization,
    KDropout: _dropout,
    KSpatialDropout: _spatial_dropout,
    KGaussianDropout: _gaussian_dropout,
}
