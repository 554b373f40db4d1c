"""`KBatchNorm`'s ghost batches, `virtual_batch_size`, against the oracle of each."""

import keras
import numpy as np
import pytest

from kerasnorm import KBatchNorm
from tests import oracle
from tests.kerasnorm import inputs
from tests.kerasnorm.inputs import reduction_axes
from tests.kerasnorm.probes import (
    BACKEND,
    exact,
    gradients,
    in_mode,
    numpy,
    parameters,
    randomised,
    state,
)

if BACKEND == "tensorflow":
    import tensorflow as tf

pytestmark = pytest.mark.usefixtures("float64")
ON_TENSORFLOW = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="tf.function is TensorFlow's."
)

EPSILON = 0.01
SIZE = 4
# keras.ops.maximum gives float32 of float64 on PyTorch.
RENORM_TOLERANCE = 1e-6 if BACKEND == "torch" else 1e-11
LAYOUTS = {
    "rank 2": ((3,), -1),
    "rank 3": ((5, 3), -1),
    "rank 3, channels first": ((3, 5), 1),
    "rank 4": ((3, 5, 2), -1),
    "rank 5, inner axis": ((3, 4, 3, 2), -3),
    "two axes": ((4, 5, 2), (1, 3)),
    "two axes, any order": ((4, 5, 2), (-1, 1)),
    "all axes but the batch": ((2, 3), (1, 2)),
}
LAYOUT = pytest.mark.parametrize(("shape", "axis"), LAYOUTS.values(), ids=LAYOUTS)
BATCHES = [0, 1, 3, 4, 5, 8]


def uneven(shape, seed=0):
    """Another distribution at each index, and in each ghost batch."""
    number = np.arange(shape[0]) // SIZE
    return inputs.uneven(shape, seed) + number.reshape(-1, *[1] * (len(shape) - 1))


def ghost_layer(shape, axis=-1, **options):
    options = {"momentum": 0.9, "epsilon": EPSILON, "dtype": "float64", **options}
    layer = KBatchNorm(axis, virtual_batch_size=SIZE, **options)
    return randomised(layer, (None, *shape))


def ghosts(batch, size=SIZE):
    return [slice(start, start + size) for start in range(0, batch, size)]


def by_ghost(function, *arrays):
    """`function` of each ghost batch of the arrays; `None` stays."""
    return [
        function(*(None if array is None else array[ghost] for array in arrays))
        for ghost in ghosts(len(arrays[0]))
    ]


def concatenated(parts, like):
    return np.concatenate([*parts, like[:0]])


def assert_normalizes_ghosts(layer, x, mask=None, call=None, tolerance=1e-12):
    """Outputs and statistics of one step."""
    axes = reduction_axes(x.ndim, layer.axis)
    before = state(layer)
    gamma, beta = parameters(layer)
    y = (call or layer)(x, training=True, mask=mask)

    def normalize(x, mask):
        return oracle.batch_norm(x, axes, gamma, beta, EPSILON, mask)

    expected = concatenated(by_ghost(normalize, x, mask), x)
    np.testing.assert_allclose(numpy(y), expected, rtol=tolerance, atol=tolerance)
    # One update, by the moments of the whole batch.
    count, *moments = oracle.moments(x, axes, mask)
    after = state(layer)
    for name, batch in zip(("moving_mean", "moving_variance"), moments, strict=True):
        average = oracle.exponential_average(before[name], [batch], layer.momentum)
        np.testing.assert_allclose(
            after[name],
            np.where(count > 0, average, before[name]),
            rtol=tolerance,
            atol=tolerance,
            err_msg=name,
        )


@pytest.mark.parametrize(
    ("shape", "axis", "batch"),
    [
        *((*layout, 11) for layout in LAYOUTS.values()),
        *(((5, 3), -1, batch) for batch in BATCHES),
    ],
)
def test_each_ghost_batch_is_normalized_on_its_own(shape, axis, batch):
    """Also where the last is smaller than the others, or the first and only one."""
    assert_normalizes_ghosts(ghost_layer(shape, axis), uneven((batch, *shape)))


@LAYOUT
def test_masked_elements_do_not_count(shape, axis):
    batch = (11, *shape)
    mask = np.random.default_rng(5).random(batch) < 0.6
    mask[:SIZE] = False  # a ghost batch without a valid sample
    assert_normalizes_ghosts(ghost_layer(shape, axis), uneven(batch), mask)


@pytest.mark.any_backend
def test_masked_samples_do_not_count():
    mask = np.arange(11).reshape(11, 1, 1) % 3 > 0
    assert_normalizes_ghosts(ghost_layer((5, 3)), uneven((11, 5, 3)), mask)


def test_a_mask_that_is_the_same_for_all_samples():
    mask = np.array([[[True], [False], [True], [True], [False]]])
    layer, x = ghost_layer((5, 3)), uneven((11, 5, 3))
    gamma, beta = parameters(layer)
    y = layer(x, training=True, mask=mask)

    def normalize(x):
        return oracle.batch_norm(x, (0, 1), gamma, beta, EPSILON, mask)

    expected = concatenated(by_ghost(normalize, x), x)
    np.testing.assert_allclose(numpy(y), expected, rtol=1e-12, atol=1e-12)


@ON_TENSORFLOW
@pytest.mark.parametrize("masked", [False, True])
def test_batches_of_unknown_sizes(masked):
    layer = ghost_layer((5, 3))
    signature = [
        tf.TensorSpec((None, None, 3), tf.float64),
        tf.TensorSpec((None, None, 1), tf.bool),
    ]

    @tf.function(input_signature=signature)
    def trace(x, mask):
        y = layer(x, training=True, mask=mask if masked else None)
        assert y.shape.as_list() == [None, None, 3]
        return y

    def call(x, training, mask):
        return trace(x, np.ones((*x.shape[:2], 1), bool) if mask is None else mask)

    for batch in (11, 8, 3, 1, 0):
        mask = None
        if masked:
            mask = np.random.default_rng(batch).random((batch, 5, 1)) < 0.6
        assert_normalizes_ghosts(layer, uneven((batch, 5, 3)), mask, call)


@ON_TENSORFLOW
@pytest.mark.parametrize("batch", [0, 3, 11])
def test_xla(batch):
    layer = ghost_layer((5, 3))
    call = in_mode(layer, "xla")
    assert_normalizes_ghosts(layer, uneven((batch, 5, 3)), call=call)


@pytest.mark.parametrize(
    ("shape", "axis", "batch", "masked"),
    [
        ((5, 3), -1, 0, False),
        ((5, 3), -1, 1, True),
        ((5, 3), -1, 3, False),
        ((5, 3), -1, 8, True),
        ((5, 3), -1, 11, False),
        ((5, 3), -1, 11, True),
        pytest.param((4, 5, 2), (1, 3), 11, True, marks=pytest.mark.any_backend),
    ],
)
def test_gradients(shape, axis, batch, masked):
    layer = ghost_layer(shape, axis)
    x = uneven((batch, *shape))
    mask = np.random.default_rng(5).random(x.shape) < 0.6 if masked else None
    dy = np.random.default_rng(6).standard_normal(x.shape)
    axes = reduction_axes(x.ndim, axis)
    dx, dgamma, dbeta = gradients(layer, x, dy, training=True, mask=mask)

    gamma, _ = parameters(layer)

    def of_ghost(x, dy, mask):
        return oracle.batch_norm_gradients(dy, x, axes, gamma, EPSILON, mask)

    expected = by_ghost(of_ghost, x, dy, mask)
    np.testing.assert_allclose(
        dx, concatenated([g.x for g in expected], x), rtol=1e-10, atol=1e-11
    )
    zeros = np.zeros_like(gamma)
    for ours, name in ((dgamma, "gamma"), (dbeta, "beta")):
        total = sum((getattr(g, name) for g in expected), zeros)
        np.testing.assert_allclose(ours, total, rtol=1e-10, atol=1e-11)


@pytest.mark.any_backend
@pytest.mark.parametrize("masked", [False, True])
def test_renorm(masked):
    """r and d are each ghost batch's own; what they refer to follows the whole."""
    clipping = {"rmin": 0.7, "rmax": 1.3, "dmax": 0.6}
    layer = ghost_layer(
        (3, 5), axis=1, renorm=True, renorm_clipping=clipping, renorm_momentum=0.7
    )
    for step, batch in enumerate((11, 8, 3)):
        x = uneven((batch, 3, 5), seed=step)
        mask = np.random.default_rng(step).random(x.shape) < 0.6 if masked else None
        before = state(layer)
        y = layer(x, training=True, mask=mask)

        def normalize(x, mask, before=before):
            _, mean, variance = oracle.moments(x, (0, 2), mask)
            r, d = oracle.renorm_correction(
                mean,
                np.sqrt(variance + EPSILON),
                before["renorm_mean"],
                before["renorm_stddev"],
                **clipping,
            )
            return oracle.batch_renorm(
                x, (0, 2), before["gamma"], before["beta"], EPSILON, r, d, mask
            )

        expected = np.concatenate(by_ghost(normalize, x, mask))
        np.testing.assert_allclose(
            numpy(y), expected, rtol=RENORM_TOLERANCE, atol=RENORM_TOLERANCE
        )
        _, mean, variance = oracle.moments(x, (0, 2), mask)
        stddev = np.sqrt(variance + EPSILON)
        after = state(layer)
        for name, value, momentum in (
            ("moving_mean", mean, 0.9),
            ("moving_stddev", stddev, 0.9),
            ("renorm_mean", mean, 0.7),
            ("renorm_stddev", stddev, 0.7),
        ):
            average = oracle.exponential_average(before[name], [value], momentum)
            np.testing.assert_allclose(after[name], average, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("bessel_correction", [False, True])
@pytest.mark.parametrize("moving_average", ["debiased", "cumulative"])
def test_every_average_follows_the_whole_batch(moving_average, bessel_correction):
    """As a layer without ghost batches does."""
    options = {
        "moving_average": moving_average,
        "bessel_correction": bessel_correction,
        "momentum": 0.9,
        "dtype": "float64",
    }
    layer = KBatchNorm(virtual_batch_size=SIZE, **options)
    whole = KBatchNorm(**options)
    for step, batch in enumerate((11, 1, 0, 6)):
        x = uneven((batch, 5, 3), seed=step)
        mask = np.random.default_rng(step).random(x.shape) < 0.6
        layer(x, training=True, mask=mask)
        whole(x, training=True, mask=mask)
    ours, expected = state(layer), state(whole)
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-12, err_msg=name)


def test_schedules_count_batches_not_ghost_batches():
    rmax = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 3.0)
    layer = KBatchNorm(
        virtual_batch_size=SIZE, renorm=True, renorm_clipping={"rmax": rmax}
    )
    for _ in range(3):
        layer(uneven((11, 3)), training=True)
    assert numpy(layer.steps_seen.value) == 3


def test_inference_is_that_of_the_layer_without_ghost_batches():
    layer, x = ghost_layer((5, 3)), uneven((11, 5, 3))
    before = state(layer)
    expected = oracle.normalize(
        x,
        (0, 1),
        before["moving_mean"],
        before["moving_variance"],
        before["gamma"],
        before["beta"],
        EPSILON,
    )
    for training in (False, True):
        np.testing.assert_allclose(numpy(layer(x)), expected, rtol=1e-12, atol=1e-12)
        layer.trainable = False
        y = layer(x, training=training)
        np.testing.assert_allclose(numpy(y), expected, rtol=1e-12, atol=1e-12)
    after = state(layer)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_half_precision_is_computed_in_float32():
    """Also where ghost batches are filled up and renormalized."""
    x = uneven((11, 5, 3)).astype("float16")
    options = {"virtual_batch_size": SIZE, "renorm": True, "epsilon": EPSILON}
    half, single = KBatchNorm(dtype="float16", **options), KBatchNorm(**options)
    y = half(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    expected = single(x.astype("float32"), training=True)
    np.testing.assert_allclose(exact(y), exact(expected), rtol=2**-10, atol=1e-6)
    np.testing.assert_array_equal(
        state(half)["moving_variance"], state(single)["moving_variance"]
    )


def test_a_large_mean_costs_no_digits_of_the_variance():
    rng = np.random.default_rng(0)
    x = rng.normal(1e4, 1, (64, 3)).astype("float32")
    layer = KBatchNorm(virtual_batch_size=16, momentum=0.0)
    layer(x, training=True)
    # The spacing of the ghost batches' means, 0.001, times their distance, 0.25.
    np.testing.assert_allclose(
        state(layer)["moving_variance"], oracle.moments(x, (0,)).variance, rtol=5e-4
    )


@pytest.mark.parametrize("axis", [0, (0, 1), -2])
def test_the_samples_axis_cannot_be_kept(axis):
    layer = KBatchNorm(axis, virtual_batch_size=SIZE)
    with pytest.raises(ValueError, match="without the first axis with ghost batches"):
        layer.build((8, 3))
