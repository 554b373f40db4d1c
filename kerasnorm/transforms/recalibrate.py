"""The population statistics of Algorithm 2: `recalibrate`."""

import contextlib
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
from keras import ops

from kerasnorm import _model_inputs, _validation, functional
from kerasnorm._keras import all_layers
from kerasnorm.functional import Moments, Tensor
from kerasnorm.layers._observe import Observer, observed
from kerasnorm.layers._random import RandomLayer, monte_carlo_is
from kerasnorm.layers.batch_norm import KBatchNorm, batch_norms, warn_of_keras_own
from kerasnorm.transforms._configs import check_is_model

BATCH_SIZE = 128
"""Samples at a time if `data` is an array."""

Run = Callable[[Any, Mapping[KBatchNorm, Observer]], None]
"""Run the model on inputs; show the layers' calls to their observers."""


def recalibrate(
    model: keras.Model, data: Any, steps: int | None = None, verbose: int = 1
) -> None:
    """Set the moving statistics of every `KBatchNorm` to those of `data`.

    They are the mean and the variance that inference is to use (Ioffe & Szegedy 2015,
    Alg. 2, lines 7 to 12; "precise BN", Wu & Johnson 2021), computed with the present
    weights and dropout off. Each layer's inputs are those that inference will give it:
    the layers are set one after another, each in its own pass over the data, when the
    layers before it are done. A pass ends with the next layer. A layer that is used
    more than once gets the statistics of all its inputs. Every valid sample counts the
    same.

    With `moving_average` `"debiased"` or `"cumulative"` training goes on as after one
    batch of all samples.

    Args:
        model: Any built Keras model, which is changed in place. Keras's own layers stay
            as they are: see `kerasnorm.convert`.
        data: The inputs. An array, or a list, tuple or dictionary with one for each
            input of the model, is taken 128 samples at a time. Or batches as for `fit`,
            whose labels and weights are ignored: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a generator (its batches are kept in memory) or
            another iterable.
        steps: Batches to use, at least 1. Defaults to all. It must be given if `data`
            does not end. 1,000 to 10,000 samples suffice (Wu & Johnson 2021,
            section 3).
        verbose: 1 (default) for a progress bar, 0 for none.

    Raises:
        ValueError: If there is no `KBatchNorm`, no batch, not one array for each
            input, or if these do not fit the model, or if a statistic would be NaN.
        TypeError: If `data` is none of these.

    Warns:
        UserWarning: If the model has a `BatchNormalization` of Keras as well.

    The model keeps its statistics until the new ones of all layers are known. So it is
    left as it was if anything is raised or the run is interrupted, and another thread
    may use it meanwhile.

    Example:

    >>> import keras, kerasnorm
    >>> model = keras.Sequential([keras.Input((1,)), kerasnorm.KBatchNorm()])
    >>> x = keras.ops.reshape(keras.ops.arange(5.0), (5, 1))
    >>> kerasnorm.recalibrate(model, x, verbose=0)
    >>> norm = model.layers[0]
    >>> float(norm.moving_mean[0]), float(norm.moving_variance[0])
    (2.0, 2.0)

    References:
        - Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576.
    """
    check_is_model(model)
    if steps is not None:
        steps = _validation.check_positive_integer("steps", steps)
    if _are_arrays(data):
        _check_one_array_for_each_input(model, data)
        _model_inputs.check_arrays("data", data)
        _model_inputs.check_inputs_fit("data", model, data)
    batches = _batches(data, steps)
    first = next(batches(), None)
    if first is None:
        raise ValueError("`data` must have at least one batch. Received: none.")
    _model_inputs.check_inputs_fit("data", model, first)
    norms = batch_norms(model)
    dropouts = [la for la in all_layers(model) if isinstance(la, RandomLayer)]
    # The new statistics are in this scope alone until all are known.
    scope = keras.StatelessScope()

    def run(inputs: Any, observers: Mapping[KBatchNorm, Observer]) -> None:
        with (
            scope,
            monte_carlo_is(False, dropouts),
            observed(observers),
            _model_inputs.inputs_that_fit("data", model, inputs),
        ):
            model(inputs, training=False)

    if not all(layer.built for layer in (model, *all_layers(model))):
        # In the scope a model that was never called could not make its variables.
        with (
            monte_carlo_is(False, dropouts),
            _model_inputs.inputs_that_fit("data", model, first),
        ):
            model(first, training=False)
    uses = _uses(run, norms, first)
    order = list(dict.fromkeys(uses))
    if not order:
        raise ValueError(
            f"`model` must use a KBatchNorm. Received: {model.name!r} without one. "
            "`kerasnorm.convert` makes them of Keras's layers."
        )
    warn_of_keras_own(model, "recalibrated")
    progress = keras.utils.Progbar(len(order), verbose=verbose, unit_name="layer")
    for done, norm in enumerate(order, start=1):
        last = len(uses) - uses[::-1].index(norm)
        later = set(order) - set(uses[:last])
        population = _population(run, norm, later, batches)
        _check_numbers(norm, population)
        with scope:
            norm.assign_population(population)
        progress.update(done)
    for norm in order:
        for variable in norm.non_trainable_variables:
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)


def _batches(data: Any, steps: int | None) -> Callable[[], Iterator[Any]]:
    """Return a function that goes through the inputs of the batches from the first."""
    batches: Callable[[], Iterator[Any]]
    if isinstance(data, Iterator):
        batches = list(itertools.islice(data, steps)).__iter__
    elif isinstance(data, keras.utils.PyDataset):
        number = data.num_batches
        batches = lambda: map(  # noqa: E731
            data.__getitem__, itertools.count() if number is None else range(number)
        )
    elif _are_arrays(data):
        batches = lambda: _slices(data)  # noqa: E731
    elif isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        batches = data.__iter__
    else:
        raise TypeError(
            "`data` must be an array, a structure of arrays or an iterable of batches. "
            f"Received: {type(data).__name__}."
        )

    def inputs() -> Iterator[Any]:
        for batch in itertools.islice(batches(), steps):
            x = keras.utils.unpack_x_y_sample_weight(batch)[0]
            if not _are_arrays(x):
                raise TypeError(
                    "`data` must have batches that are arrays or structures of arrays. "
                    f"Received: a batch of {type(x).__name__}."
                )
            yield x

    return inputs


def _are_arrays(data: Any) -> bool:
    """Return whether `data` is an array or a structure of arrays, as for `fit`."""
    return all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(data))


def _check_one_array_for_each_input(model: keras.Model, data: Any) -> None:
    inputs = getattr(model, "inputs", None) if model.built else None
    received = len(keras.tree.flatten(data))
    if inputs is not None and received != len(inputs):
        raise ValueError(
            f"`data` must have one array for each of the {len(inputs)} inputs of "
            f"{model.name!r}. Received: {received} arrays. Of batches, or of inputs "
            "with labels, give a generator or a tf.data.Dataset."
        )


def _slices(arrays: Any) -> Iterator[tuple[Any]]:
    samples = len(keras.tree.flatten(arrays)[0])
    for start in range(0, samples, BATCH_SIZE):
        part = operator.itemgetter(slice(start, start + BATCH_SIZE))
        yield (keras.tree.map_structure(part, arrays),)


class _IsReached(BaseException):
    """A layer that is used later has been called. (Keras rewrites an `Exception`.)"""


def _uses(run: Run, norms: list[KBatchNorm], inputs: Any) -> list[KBatchNorm]:
    """Return the layers in the order of their calls, as often as they are called."""
    uses: list[KBatchNorm] = []

    def observer_of(norm: KBatchNorm) -> Observer:
        return lambda x, y, mask: uses.append(norm)

    run(inputs, {norm: observer_of(norm) for norm in norms})
    return uses


def _population(
    run: Run,
    norm: KBatchNorm,
    later: Iterable[KBatchNorm],
    batches: Callable[[], Iterator[Any]],
) -> Moments:
    """Return the moments of a layer's inputs; run the model as far as a later layer."""
    population: Moments | None = None

    def observe(x: Tensor, y: Tensor, mask: Tensor | None) -> None:
        nonlocal population
        part = functional.moments(x, norm.reduction_axes, mask)
        population = (
            part if population is None else functional.merge_moments(population, part)
        )

    def stop(x: Tensor, y: Tensor, mask: Tensor | None) -> None:
        raise _IsReached

    for inputs in batches():
        with contextlib.suppress(_IsReached):
            run(inputs, {**dict.fromkeys(later, stop), norm: observe})
    assert population is not None  # it was used by the first batch
    return population


def _check_numbers(norm: KBatchNorm, population: Moments) -> None:
    moments = (population.mean, population.variance)
    if any(bool(ops.any(ops.isnan(moment))) for moment in moments):
        raise ValueError(
            "`data` must give every layer inputs with a mean and a variance. "
            f"Received: inputs of {norm.name!r} whose mean or variance is NaN. Look "
            "for NaN and infinity in the data and in the weights of the layers before."
        )
