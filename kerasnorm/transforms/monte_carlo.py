"""Predictions with their uncertainty: `monte_carlo`."""

import contextlib
import operator
import random
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kerasnorm import _model_inputs, _validation, functional
from kerasnorm._keras import all_layers, producer
from kerasnorm._words import int32, low_bits
from kerasnorm.functional import Tensor
from kerasnorm.layers._random import RandomLayer, monte_carlo_is
from kerasnorm.transforms._configs import check_is_model

_BUILTIN = (
    keras.layers.Dropout,  # of which the spatial ones are subclasses
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
)

_KEEP_VALUES = (keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute)


class MonteCarloPrediction(NamedTuple):
    """What `monte_carlo` returns: NumPy arrays, entropies in nats.

    `mean` and `variance` have the shape of the model's output. The entropies lack its
    last axis, or have its shape if it is `(batch,)`. They are `None` if the outputs are
    no probabilities: `monte_carlo` says when they are.
    """

    mean: np.ndarray
    variance: np.ndarray
    predictive_entropy: np.ndarray | None
    expected_entropy: np.ndarray | None
    mutual_information: np.ndarray | None

    def __repr__(self) -> str:
        shapes = (
            f"{name}={None if value is None else f'<{value.dtype} {value.shape}>'}"
            for name, value in self._asdict().items()
        )
        return f"MonteCarloPrediction({', '.join(shapes)})"


def monte_carlo(
    model: keras.Model,
    x: Any,
    samples: int = 50,
    seed: int | None = None,
    batch_size: int | None = None,
    *,
    from_logits: bool = False,
    verbose: int = 0,
) -> MonteCarloPrediction:
    """Average a model's predictions over random dropout masks.

    Srivastava et al. 2014, section 7.5, do so; Gal & Ghahramani 2016 show that it
    approximates Bayesian inference. Every `KDropout`, `KSpatialDropout` and
    `KGaussianDropout` runs as in training. All other layers, batch normalization too,
    run as at inference. With p_s the output of sample s and H the entropy:

    - mean = sum(p_s) / S, variance = sum((p_s - mean)^2) / S;
    - predictive entropy H(mean): the whole uncertainty;
    - expected entropy sum(H(p_s)) / S: the uncertainty in the data;
    - their difference, the mutual information of the prediction and the weights: the
      uncertainty of the model (Gal 2016, section 3.3.1).

    The entropies are those of the classes if the outputs are not negative and sum to 1
    over the last axis. They are those of two classes, H(p) = -p log p - (1 - p)
    log(1 - p), if the output is the probability of one class: it has one element for
    each prediction (shape `(batch, 1)` or `(batch,)`), and a sigmoid makes it. That is
    seen of a Sequential or functional model that ends in it. Of a subclassed model it
    is not: let that return logits, and give `from_logits=True`.

    No variable of the model changes, and another thread may use it meanwhile. The
    memory does not depend on `samples`.

    Args:
        model: Model with one output, also in a dictionary or list, and dropout layers
            of this package. Keras's own may be there at a rate of 0 only, also those of
            recurrent layers: see `kerasnorm.convert`.
        x: The inputs, an array or a structure of arrays.
        samples: S, at least 1. Defaults to 50.
        seed: Integer. The same seed and `batch_size` give the same masks. Defaults to a
            random one.
        batch_size: Samples of `x` at a time. Defaults to 32.
        from_logits: Whether the outputs are logits, which a softmax makes
            probabilities first, or a sigmoid where the output has one element for each
            prediction. Defaults to `False`.
        verbose: 1 for a progress bar. Defaults to 0.

    Returns:
        `MonteCarloPrediction`.

    Raises:
        ValueError: If there is no dropout layer, or one of Keras's, if the model has
            several outputs, if `samples` or `batch_size` is below 1, or if `x` is
            empty or does not fit the model.
        TypeError: If an argument is of a wrong type.

    Example:

    >>> import keras, kerasnorm
    >>> model = keras.Sequential([
    ...     keras.Input((8,)), kerasnorm.KDropout(0.5),
    ...     keras.layers.Dense(3, activation="softmax")])
    >>> x = keras.random.normal((4, 8), seed=1)
    >>> prediction = kerasnorm.monte_carlo(model, x, samples=20, seed=0)
    >>> prediction.mean.shape, prediction.mutual_information.shape
    ((4, 3), (4,))

    References:
        - Gal & Ghahramani 2016, "Dropout as a Bayesian approximation",
          arXiv:1506.02142.
        - Gal 2016, "Uncertainty in deep learning", PhD thesis, Cambridge.
    """
    check_is_model(model)
    samples = _validation.check_positive_integer("samples", samples)
    if batch_size is not None:
        batch_size = _validation.check_positive_integer("batch_size", batch_size)
    from_logits = _validation.check_boolean("from_logits", from_logits)
    seed = _validation.check_seed(seed)
    if seed is None:
        seed = random.randrange(2**31)
    dropout_layers(model)
    _model_inputs.check_arrays("x", x)
    _model_inputs.check_inputs_fit("x", model, x)
    check_has_one_output(model, _outputs_of_first(model, x))
    index = np.arange(len(keras.tree.flatten(x)[0]), dtype="int32")
    prediction = MonteCarloPrediction(
        **_Drawer(model, samples, seed, from_logits).predict(
            {"x": x, "index": index}, batch_size=batch_size, verbose=verbose
        )
    )
    is_sigmoid = from_logits or _ends_in("sigmoid", model)
    if _are_probabilities(prediction.mean, is_sigmoid):
        return prediction
    return MonteCarloPrediction(*prediction[:2], None, None, None)


class _Drawer(keras.Model):
    """`draw_masks` as a model, so that `predict` compiles and feeds it."""

    def __init__(
        self, model: keras.Model, samples: int, seed: int, from_logits: bool
    ) -> None:
        # With the default policy it would cast the model's variables.
        super().__init__(name="monte_carlo", dtype=model.variable_dtype)
        self._model, self._samples = model, samples
        self._seed = int32(seed % 2**32)
        self._from_logits = from_logits

    def call(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        first = inputs["index"][0]
        seed = batch_seed(ops.full_like(first, self._seed), first)
        return draw_masks(
            self._model, inputs["x"], seed, self._samples, self._from_logits
        )


def batch_seed(seed: Tensor, first: Tensor | None = None) -> Tensor:
    """Return the seed that `monte_carlo` gives `draw_masks` for a batch.

    Args:
        seed: The seed of all batches, int32, of shape ().
        first: The place of the batch's first sample, int32, of shape (). Defaults to
            that of the first batch.
    """
    first = ops.zeros_like(seed) if first is None else first
    return functional.random_words(
        ops.reshape(first, (1,)), ops.stack([seed, ops.zeros_like(seed)])
    )[0]


def draw_masks(
    model: keras.Model,
    x: Any,
    seed: Tensor,
    samples: int | Tensor,
    from_logits: bool = False,
) -> dict[str, Tensor]:
    """Return the fields of the prediction of one batch by name, as tensors.

    It runs in a graph, too. The entropies mean nothing if the outputs are no
    probabilities.

    Args:
        model: The model.
        x: The inputs.
        seed: Integer tensor of shape ().
        samples: The number of draws, an integer or a tensor.
        from_logits: As in `monte_carlo`.
    """
    layers = dropout_layers(model)
    positions = ops.arange(len(layers), dtype="int32")
    # On JAX the variables have the values of the scope around, and no others.
    values = [(variable, variable.value) for variable in model.variables]

    def draw(index: Tensor) -> Tensor:
        words = functional.random_words(positions, ops.stack([seed, index]))
        words = low_bits(words, 31)  # the states are unsigned
        states = [
            (state, ops.cast(ops.stack([words[i], 0]), state.dtype))
            for i, state in enumerate(la.seed_generator.state for la in layers)
        ]
        # They stand in for the states of the layers, which do not move on.
        with monte_carlo_is(True, layers), keras.StatelessScope(values + states):
            (y,) = keras.tree.flatten(model(x, training=False))
        y = functional.widen(y)
        if not from_logits:
            return y
        return ops.sigmoid(y) if _is_one_class(y.shape) else ops.softmax(y)

    def add(index: Tensor, sums: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mean, m2, total_entropy = sums
        y = draw(index)
        deviation = y - mean
        mean = mean + deviation / ops.cast(index + 1, y.dtype)
        m2 = m2 + deviation * (y - mean)
        return mean, m2, total_entropy + _entropy(y)

    first = draw(ops.convert_to_tensor(0, dtype="int32"))
    sums = (first, ops.zeros_like(first), _entropy(first))
    if not isinstance(samples, int):
        samples = ops.maximum(samples, 1)
        sums = ops.fori_loop(1, samples, add, sums)
    elif samples > 1:  # OpenVINO takes no loop that does nothing
        sums = ops.fori_loop(1, samples, add, sums)
    mean, m2, total_entropy = sums
    count = ops.cast(samples, mean.dtype)
    predictive, expected = _entropy(mean), total_entropy / count
    return {
        "mean": mean,
        "variance": m2 / count,
        "predictive_entropy": predictive,
        "expected_entropy": expected,
        "mutual_information": predictive - expected,
    }


def dropout_layers(model: keras.Model) -> list[RandomLayer]:
    """Return the dropout layers; refuse those of Keras."""
    layers = [la for la in all_layers(model) if isinstance(la, RandomLayer)]
    others = [la for la in all_layers(model) if not isinstance(la, RandomLayer)]
    builtin = [la for la in others if isinstance(la, _BUILTIN) and la.rate > 0]
    inside = [(la, name) for la in others for name in _own_dropout(la)]
    if layers and not builtin and not inside:
        return layers
    received = "none"
    advice = "`kerasnorm.convert` makes them of Keras's."
    if builtin:
        received = f"the {type(builtin[0]).__name__} {builtin[0].name!r}"
    elif inside:
        layer, name = inside[0]
        received = (
            f"the {type(layer).__name__} {layer.name!r}, which has "
            f"{name}={getattr(layer, name)}"
        )
        advice = "Give it 0 there, and put a KDropout before or behind the layer."
    raise ValueError(
        "`model` must have dropout layers, all of kerasnorm. Received: "
        f"{model.name!r} with {received}. {advice}"
    )


def _own_dropout(layer: keras.layers.Layer) -> list[str]:
    """Return the arguments by which a layer drops something itself, as an LSTM does.

    They are none if it gives its rate to dropout layers that it holds.
    """
    if any(isinstance(la, RandomLayer) for la in all_layers(layer)):
        return []
    names = ("dropout", "recurrent_dropout")
    values = {name: getattr(layer, name, None) for name in names}
    return [
        name
        for name, rate in values.items()
        if isinstance(rate, (int, float)) and rate > 0
    ]


def _outputs_of_first(model: keras.Model, x: Any) -> list[Tensor]:
    """Return the model's outputs of the first sample; no variable changes."""
    first = keras.tree.map_structure(operator.itemgetter(slice(1)), x)
    # A StatelessScope makes no variables, which a model may do that was never called.
    is_built = all(layer.built for layer in (model, *all_layers(model)))
    scope = keras.StatelessScope() if is_built else contextlib.nullcontext()
    with _model_inputs.inputs_that_fit("x", model, first), scope:
        outputs: list[Tensor] = keras.tree.flatten(model(first, training=False))
    return outputs


def check_has_one_output(model: keras.Model, outputs: list[Tensor]) -> None:
    """Refuse a model whose `outputs` are several."""
    if len(outputs) != 1:
        raise ValueError(
            f"`model` must have one output. Received: {model.name!r} with "
            f"{len(outputs)}. Make a model of one of them: "
            "keras.Model(model.inputs, output)."
        )


def _is_one_class(shape: tuple[int | None, ...]) -> bool:
    """Return whether each prediction is one number."""
    return len(shape) < 2 or shape[-1] == 1


def _entropy(p: Tensor) -> Tensor:
    """Return H(p) = -sum(p log p) over the last axis, in nats; p = 0 adds 0.

    Where that has one element p, or is not there, the other class has 1 - p.
    """

    def summand(p: Tensor) -> Tensor:
        safe = ops.where(p > 0, p, 1.0)
        return -safe * ops.log(safe)

    if _is_one_class(p.shape):
        entropy = summand(p) + summand(1.0 - p)
        return entropy if len(p.shape) < 2 else ops.squeeze(entropy, -1)
    return ops.sum(summand(p), axis=-1)


def _are_probabilities(p: np.ndarray, is_sigmoid: bool) -> bool:
    if _is_one_class(p.shape):
        return is_sigmoid and bool(((p >= 0) & (p <= 1)).all())
    return bool((p >= 0).all() and np.allclose(p.sum(axis=-1), 1, atol=1e-2))


def are_seen_to_be_probabilities(model: keras.Model) -> bool:
    """Return whether a sigmoid or softmax makes the output as the entropies need it."""
    (output,) = model.outputs
    return _ends_in("sigmoid" if _is_one_class(output.shape) else "softmax", model)


def _ends_in(name: str, layer: Any) -> bool:
    """Return whether an activation makes the outputs of a model or a layer in it."""
    while isinstance(layer, keras.layers.Wrapper):
        layer = layer.layer
    outputs = getattr(layer, "outputs", None)
    if not isinstance(layer, keras.Model) or not outputs:
        # An operation of `keras.ops` has no activation.
        activation = getattr(layer, "activation", type(layer).__name__.lower())
        is_last = getattr(layer, "axis", -1) == -1
        return is_last and activation in (getattr(keras.activations, name), name)
    operation, inputs = producer(outputs[0])
    while name == "sigmoid" and isinstance(operation, _KEEP_VALUES):
        operation, inputs = producer(inputs[0])
    return _ends_in(name, operation)
