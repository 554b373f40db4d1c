"""`KBatchNorm` against the float64 oracle."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasnorm import KBatchNorm
from tests import oracle
from tests.kerasnorm.inputs import random_mask, reduction_axes, uneven
from tests.kerasnorm.probes import (
    BACKEND,
    exact,
    in_mode,
    numpy,
    parameters,
    randomised,
    state,
)

if BACKEND == "tensorflow":
    import tensorflow as tf

pytestmark = [pytest.mark.any_backend, pytest.mark.usefixtures("float64")]

LAYOUTS = {
    "rank 2": ((8, 3), -1),
    "rank 3": ((4, 5, 3), -1),
    "rank 3, channels first": ((4, 3, 5), 1),
    "rank 4": ((3, 4, 5, 2), -1),
    "rank 4, channels first": ((3, 2, 4, 5), 1),
    "rank 5": ((2, 3, 4, 3, 2), -1),
    "rank 5, inner axis": ((2, 3, 4, 3, 2), -3),
    "two axes": ((3, 4, 5, 2), (1, 3)),
    "two axes, any order": ((3, 4, 5, 2), (-1, 1)),
    "all axes but the batch": ((6, 2, 3), (1, 2)),
}
LAYOUT = pytest.mark.parametrize(
    ("shape", "axis"), LAYOUTS.values(), ids=LAYOUTS.keys()
)
EPSILON = 0.01
ON_TENSORFLOW = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="tf.function is TensorFlow's."
)


def float32_tolerance(x, layer):
    """A mean that is right to two roundings of the largest input, normalised."""
    largest, smallest = np.abs(x).max(), x.std(0).min()
    gamma, _ = parameters(layer)
    return 2 * np.finfo("float32").eps * largest / smallest * gamma.max() + 1e-5


@pytest.mark.parametrize(
    ("shape", "axis", "scale", "center"),
    [
        *((*layout, True, True) for layout in LAYOUTS.values()),
        ((4, 3, 5), 1, True, False),
        ((3, 4, 5, 2), (1, 3), False, True),
        ((8, 3), -1, False, False),
    ],
)
def test_training_is_algorithm_1(shape, axis, scale, center):
    layer = KBatchNorm(
        axis, epsilon=EPSILON, center=center, scale=scale, dtype="float64"
    )
    x = uneven(shape)
    axes = reduction_axes(len(shape), axis)
    y = randomised(layer, shape)(x, training=True)
    expected = oracle.batch_norm(x, axes, *parameters(layer), EPSILON)
    np.testing.assert_allclose(numpy(y), expected, rtol=1e-12, atol=1e-12)


@LAYOUT
def test_masked_elements_do_not_count(shape, axis):
    layer = randomised(KBatchNorm(axis, epsilon=EPSILON, dtype="float64"), shape)
    x, mask = uneven(shape), random_mask(shape)
    y = layer(x, training=True, mask=mask)
    expected = oracle.batch_norm(
        x, reduction_axes(len(shape), axis), *parameters(layer), EPSILON, mask
    )
    np.testing.assert_allclose(numpy(y), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "axis", "mask_shape", "read_as"),
    [
        ((8, 3), -1, (8,), (8, 1)),
        ((4, 5, 3), -1, (4, 5), (4, 5, 1)),
        ((3, 4, 5, 2), (1, 3), (3, 4, 5), (3, 4, 5, 1)),
        ((3, 4, 5, 2), (1, 3), (3, 1, 1, 1), (3, 1, 1, 1)),
        ((4, 3, 5), 1, (4, 5), (4, 1, 5)),
        ((4, 3, 5), -2, (4, 5), (4, 1, 5)),
        ((3, 2, 4, 5), 1, (3, 4, 5), (3, 1, 4, 5)),
        ((4, 5, 5), 1, (4, 5), (4, 5, 1)),  # both would fit: Keras's reading
        ((4, 3, 5), 1, (4, 1, 5), (4, 1, 5)),
        ((4, 3, 5), 1, (1, 3, 1), (1, 3, 1)),
    ],
)
def test_masks_of_other_shapes_than_the_inputs(shape, axis, mask_shape, read_as):
    layer = randomised(KBatchNorm(axis, epsilon=EPSILON, dtype="float64"), shape)
    x = uneven(shape)
    mask = np.random.default_rng(6).random(mask_shape) < 0.6
    y = layer(x, training=True, mask=mask)
    expected = oracle.batch_norm(
        x,
        reduction_axes(len(shape), axis),
        *parameters(layer),
        EPSILON,
        mask.reshape(read_as),
    )
    np.testing.assert_allclose(numpy(y), expected, rtol=1e-12, atol=1e-12)


@ON_TENSORFLOW
@pytest.mark.parametrize("mask_shape", [(4, 5), (4, 1, 5)])
def test_a_mask_of_sizes_unknown_while_tracing(mask_shape):
    shape = (4, 3, 5)
    layer = randomised(KBatchNorm(1, epsilon=EPSILON, dtype="float64"), shape)
    x = uneven(shape)
    mask = np.random.default_rng(6).random(mask_shape) < 0.6
    unknown = [None if size > 1 else 1 for size in mask_shape]
    signature = [
        tf.TensorSpec((None, 3, None), tf.float64),
        tf.TensorSpec(unknown, tf.bool),
    ]
    call = tf.function(
        lambda x, mask: layer(x, training=True, mask=mask), input_signature=signature
    )
    expected = layer(x, training=True, mask=mask)
    np.testing.assert_allclose(call(x, mask), expected, rtol=1e-12, atol=1e-12)


@LAYOUT
def test_inference_normalises_with_the_moving_statistics(shape, axis):
    layer = randomised(KBatchNorm(axis, epsilon=EPSILON, dtype="float64"), shape)
    x, before = uneven(shape), state(layer)
    expected = oracle.normalize(
        x,
        reduction_axes(len(shape), axis),
        before["moving_mean"],
        before["moving_variance"],
        *parameters(layer),
        EPSILON,
    )
    for call in (
        {},
        {"training": False},
        {"mask": random_mask((shape[0], *[1] * (len(shape) - 1)))},
    ):
        np.testing.assert_allclose(
            numpy(layer(x, **call)), expected, rtol=1e-12, atol=1e-12
        )
    layer.trainable = False
    np.testing.assert_allclose(
        numpy(layer(x, training=True)), expected, rtol=1e-12, atol=1e-12
    )
    for name, value in state(layer).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


@pytest.mark.parametrize("location", [0.0, 1e4])
@LAYOUT
def test_float32(shape, axis, location):
    x = uneven(shape, location=location, dtype="float32")
    layer = randomised(KBatchNorm(axis, epsilon=EPSILON), shape)
    axes = reduction_axes(len(shape), axis)
    tolerance = float32_tolerance(x, layer)
    y = layer(x, training=True)
    expected = oracle.batch_norm(x, axes, *parameters(layer), EPSILON)
    np.testing.assert_allclose(numpy(y), expected, rtol=1e-5, atol=tolerance)


@ON_TENSORFLOW
@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_compiled_float32_keeps_the_variance_at_a_mean_of_ten_thousand(mode):
    """A kernel of one pass over the inputs gives a variance of [0, 16, -8, 24]."""
    shape = (32, 4, 4, 4)
    x = uneven(shape, location=1e4, dtype="float32")
    layer = randomised(KBatchNorm(momentum=0.0, epsilon=EPSILON), shape)
    call = in_mode(lambda x: layer(x, training=True), mode)
    expected = oracle.batch_norm(x, (0, 1, 2), *parameters(layer), EPSILON)
    np.testing.assert_allclose(
        call(x), expected, rtol=1e-5, atol=float32_tolerance(x, layer)
    )
    moments = oracle.moments(x, (0, 1, 2))
    np.testing.assert_allclose(layer.moving_variance, moments.variance, rtol=1e-4)


@pytest.mark.parametrize(
    "policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"]
)
def test_half_precision_is_computed_in_float32_and_rounded_once(policy):
    dtype = keras.DTypePolicy(policy).compute_dtype
    layer = randomised(KBatchNorm(epsilon=EPSILON, dtype=policy), (64, 3))
    assert {w.dtype for w in layer.weights} == {"float32"}
    x = ops.cast(uneven((64, 3), location=30.0), dtype)
    y = layer(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    expected = oracle.batch_norm(exact(x), (0,), *parameters(layer), EPSILON)
    rounding = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    np.testing.assert_allclose(
        exact(y),
        expected,
        rtol=1.01 * rounding,
        atol=float32_tolerance(exact(x), layer),
    )


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, "gamma beta moving_mean moving_variance"),
        ({"center": False, "scale": False}, "moving_mean moving_variance"),
        (
            {"renorm": True},
            "gamma beta moving_mean moving_variance moving_stddev renorm_mean "
            "renorm_stddev",
        ),
        (
            {"moving_average": "debiased"},
            "gamma beta moving_mean moving_variance mean_weight variance_weight",
        ),
    ],
)
def test_weights(options, names):
    layer = KBatchNorm(axis=(1, -1), dtype="float64", **options)
    layer.build((None, 2, None, 3))
    trainable = [name for name in names.split() if name in ("gamma", "beta")]
    assert [w.name for w in layer.trainable_weights] == trainable
    assert [w.name for w in layer.weights] == names.split()
    assert {(tuple(w.shape), w.dtype) for w in layer.weights} == {((2, 3), "float64")}


def expected_average(kind, initial, values, weights, momentum):
    """Each index follows only the batches that have samples there."""
    expected = np.array(initial, "float64")
    for index in np.ndindex(expected.shape):
        seen = [
            (value[index], weight[index])
            for value, weight in zip(values, weights, strict=True)
            if weight[index] > 0
        ]
        if not seen:
            continue
        batches, counts = (np.array(column) for column in zip(*seen, strict=True))
        if kind == "exponential":
            expected[index] = oracle.exponential_average(
                expected[index], batches, momentum
            )
        elif kind == "debiased":
            expected[index] = oracle.debiased_average(batches, counts, momentum)
        else:
            expected[index] = oracle.cumulative_average(batches, counts)
    return expected


@pytest.mark.parametrize(
    ("bessel_correction", "momentum", "dtype"),
    [
        (False, 0.7, "float64"),
        (True, 0.7, "float64"),
        (True, 0.0, "float64"),
        (False, 0.99, "float32"),
        (True, 0.99, "float32"),
    ],
)
@pytest.mark.parametrize("kind", ["exponential", "debiased", "cumulative"])
def test_moving_statistics(kind, bessel_correction, momentum, dtype):
    """Batches of 1 to 9 samples, some of them masked, some at some indices only."""
    layer = KBatchNorm(
        axis=1,
        momentum=momentum,
        moving_average=kind,
        bessel_correction=bessel_correction,
        dtype=dtype,
    )
    randomised(layer, (None, 3, 2))
    initial = state(layer)
    rng = np.random.default_rng(8)
    moments = []
    for step, size in enumerate([1, 9, 3, 1, 6, 2]):
        x = uneven((size, 3, 2), seed=step, dtype=dtype)
        mask = rng.random(x.shape) < 0.6
        mask[:, 1] &= step > 2  # nothing at this index before the fourth batch
        mask[:, 2] &= np.arange(2) + np.arange(size)[:, None] == 0  # or one sample
        layer(x, training=True, mask=mask)
        moments.append(oracle.moments(x, (0, 2), mask))

    counts = [m.count for m in moments]
    means = [m.mean for m in moments]
    variances, degrees = [m.variance for m in moments], counts
    if bessel_correction:
        variances = [oracle.unbiased_variance(m.count, m.variance) for m in moments]
        degrees = [count - 1 for count in counts]
    tolerance = {"float64": 1e-12, "float32": 1e-5}[dtype]
    np.testing.assert_allclose(
        layer.moving_mean,
        expected_average(kind, initial["moving_mean"], means, counts, momentum),
        rtol=tolerance,
        atol=tolerance,
    )
    np.testing.assert_allclose(
        layer.moving_variance,
        expected_average(
            kind, initial["moving_variance"], variances, degrees, momentum
        ),
        rtol=tolerance,
        atol=tolerance,
    )


def test_cumulative_average_with_bessels_correction_is_algorithm_2():
    """Over batches of one size: E[x] = E[mean_B], Var[x] = m/(m-1) E[variance_B]."""
    layer = KBatchNorm(
        moving_average="cumulative", bessel_correction=True, dtype="float64"
    )
    batches = [uneven((4, 3), seed=step) for step in range(5)]
    for batch in batches:
        layer(batch, training=True)
    np.testing.assert_allclose(
        layer.moving_mean, np.mean([b.mean(0) for b in batches], 0), rtol=1e-13
    )
    np.testing.assert_allclose(
        layer.moving_variance,
        4 / 3 * np.mean([b.var(0) for b in batches], 0),
        rtol=1e-13,
    )


def test_a_batch_of_one_sample_is_normalised_to_beta():
    layer = randomised(KBatchNorm(bessel_correction=True, dtype="float64"), (None, 3))
    before = state(layer)
    x = uneven((1, 3))
    y = layer(x, training=True)
    np.testing.assert_allclose(numpy(y), before["beta"][None], rtol=1e-15)
    after = state(layer)
    np.testing.assert_array_equal(after["moving_variance"], before["moving_variance"])
    np.testing.assert_allclose(
        after["moving_mean"], 0.99 * before["moving_mean"] + 0.01 * x[0], rtol=1e-14
    )


SCHEDULES = {
    "rmax": keras.optimizers.schedules.PiecewiseConstantDecay([1], [1.0, 2.0]),
    "dmax": keras.optimizers.schedules.PolynomialDecay(0.0, 4, 1.0),
}


@pytest.mark.parametrize(
    ("clipping", "kind"),
    [
        (None, "exponential"),
        ({"rmax": 1.1}, "exponential"),
        ({"rmin": 0.8, "rmax": 1.5, "dmax": 0.4}, "cumulative"),
        ({"rmin": 0.9, **SCHEDULES}, "exponential"),
    ],
    ids=["free", "rmax", "all", "schedules"],
)
def test_renorm(clipping, kind):
    layer = KBatchNorm(
        axis=1,
        momentum=0.9,
        epsilon=EPSILON,
        renorm=True,
        renorm_clipping=clipping,
        renorm_momentum=0.6,
        moving_average=kind,
        dtype="float64",
    )
    shape = (4, 3, 5)
    initial = state(randomised(layer, shape))
    means, stddevs, counts = [], [], []
    for step in range(6):
        x = uneven((2 + step, 3, 5), seed=step, location=-2.0)
        mask = np.random.default_rng(step).random((2 + step, 1, 5)) < 0.8
        before = state(layer)
        y = layer(x, training=True, mask=mask)

        count, mean, variance = oracle.moments(x, (0, 2), mask)
        stddev = np.sqrt(variance + EPSILON)
        bounds = {
            bound: float(value(step)) if callable(value) else value
            for bound, value in (clipping or {}).items()
        }
        r, d = oracle.renorm_correction(
            mean, stddev, before["renorm_mean"], before["renorm_stddev"], **bounds
        )
        expected = oracle.batch_renorm(
            x, (0, 2), *parameters(layer), EPSILON, r, d, mask
        )
        # keras.ops.maximum gives float32 of float64 on PyTorch.
        tolerance = 1e-6 if BACKEND == "torch" else 1e-11
        np.testing.assert_allclose(numpy(y), expected, rtol=tolerance, atol=tolerance)
        means.append(mean)
        stddevs.append(stddev)
        counts.append(count)

    ones = np.ones_like(counts)
    after = state(layer)
    for name, values in [("renorm_mean", means), ("renorm_stddev", stddevs)]:
        expected = expected_average("exponential", initial[name], values, ones, 0.6)
        np.testing.assert_allclose(after[name], expected, rtol=1e-12, err_msg=name)
    for name, values in [("moving_mean", means), ("moving_stddev", stddevs)]:
        expected = expected_average(kind, initial[name], values, counts, 0.9)
        np.testing.assert_allclose(after[name], expected, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(
        after["moving_variance"], after["moving_stddev"] ** 2 - EPSILON, rtol=1e-12
    )
    if "steps_seen" in after:
        assert after["steps_seen"] == 6


def test_masks_of_earlier_layers_reach_the_layer_and_those_behind():
    layer = KBatchNorm(dtype="float64", epsilon=EPSILON)
    x = uneven((4, 5, 3))
    x[0, 2:] = x[3, 1:] = 0.0
    masked = keras.layers.Masking(dtype="float64")(x)
    y = layer(masked, training=True)
    mask = (x != 0).any(-1)
    expected = oracle.batch_norm(
        x, (0, 1), np.ones(3), np.zeros(3), EPSILON, mask[..., None]
    )
    np.testing.assert_allclose(numpy(y), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(numpy(y._keras_mask), mask)


def test_integers_are_normalised_as_floats():
    layer = randomised(KBatchNorm(epsilon=EPSILON), (8, 3))
    x = np.random.default_rng(9).integers(0, 255, (8, 3))
    expected = oracle.batch_norm(x, (0,), *parameters(layer), EPSILON)
    np.testing.assert_allclose(
        numpy(layer(x, training=True)), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has replicas.")
def test_synchronized_is_refused_where_there_are_no_replicas():
    with pytest.raises(ValueError, match=rf"False on the {BACKEND} .*=True.*tf\.distr"):
        KBatchNorm(synchronized=True)
