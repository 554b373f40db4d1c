"""Ghost batches, `virtual_batch_size`, against the float64 oracle of each."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasnorm import KBatchNorm, functional
from tests import oracle

EPSILON = 0.01
SIZE = 4
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
BATCH = pytest.mark.parametrize("batch", [0, 1, 3, 4, 5, 8, 11])


def uneven(shape, seed=0):
    """Another distribution at each index, and in each ghost batch."""
    rng = np.random.default_rng(seed)
    scale = np.random.default_rng(99).uniform(0.5, 2, shape[1:])
    location = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) // SIZE + 2
    return scale * (location + rng.standard_normal(shape))


def reduction_axes(rank, axis):
    kept = {a % rank for a in (axis if isinstance(axis, tuple) else (axis,))}
    return tuple(a for a in range(rank) if a not in kept)


def ghost_layer(shape, axis=-1, **options):
    options = {"momentum": 0.9, "epsilon": EPSILON, "dtype": "float64", **options}
    layer = KBatchNorm(axis, virtual_batch_size=SIZE, **options)
    layer.build((None, *shape))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        if weight.name in ("beta", "moving_mean", "renorm_mean"):
            weight.assign(rng.normal(0, 1, weight.shape))
        elif weight.dtype == "float64" and not weight.name.endswith("_weight"):
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return layer


def values(layer):
    return {w.name: np.array(w.value) for w in layer.weights}


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
    before = values(layer)
    gamma, beta = before["gamma"], before["beta"]
    y = (call or layer)(x, training=True, mask=mask)

    def normalize(x, mask):
        return oracle.batch_norm(x, axes, gamma, beta, EPSILON, mask)

    expected = concatenated(by_ghost(normalize, x, mask), x)
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)
    # One update, by the moments of the whole batch.
    count, *moments = oracle.moments(x, axes, mask)
    after = values(layer)
    for name, batch in zip(("moving_mean", "moving_variance"), moments, strict=True):
        average = oracle.exponential_average(before[name], [batch], layer.momentum)
        np.testing.assert_allclose(
            after[name],
            np.where(count > 0, average, before[name]),
            rtol=tolerance,
            atol=tolerance,
            err_msg=name,
        )


@BATCH
@LAYOUT
def test_each_ghost_batch_is_normalized_on_its_own(shape, axis, batch):
    """Also where the last is smaller than the others, or the first and only one."""
    assert_normalizes_ghosts(ghost_layer(shape, axis), uneven((batch, *shape)))


@pytest.mark.parametrize("kind", ["of samples", "of elements"])
@LAYOUT
def test_masked_samples_do_not_count(shape, axis, kind):
    batch = (11, *shape)
    of = batch if kind == "of elements" else (11, *[1] * len(shape))
    mask = np.random.default_rng(5).random(of) < 0.6
    mask[:SIZE] = False  # a ghost batch without a valid sample
    assert_normalizes_ghosts(ghost_layer(shape, axis), uneven(batch), mask)


def test_a_mask_that_is_the_same_for_all_samples():
    mask = np.array([[[True], [False], [True], [True], [False]]])
    layer, x = ghost_layer((5, 3)), uneven((11, 5, 3))
    gamma, beta = values(layer)["gamma"], values(layer)["beta"]
    y = layer(x, training=True, mask=mask)

    def normalize(x):
        return oracle.batch_norm(x, (0, 1), gamma, beta, EPSILON, mask)

    expected = concatenated(by_ghost(normalize, x), x)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


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


@BATCH
def test_xla(batch):
    layer = ghost_layer((5, 3))
    call = tf.function(layer, jit_compile=True)
    assert_normalizes_ghosts(layer, uneven((batch, 5, 3)), call=call)


@pytest.mark.parametrize("masked", [False, True])
@BATCH
@pytest.mark.parametrize(("shape", "axis"), [((5, 3), -1), ((4, 5, 2), (1, 3))])
def test_gradients(shape, axis, batch, masked):
    layer = ghost_layer(shape, axis)
    x = uneven((batch, *shape))
    mask = np.random.default_rng(5).random(x.shape) < 0.6 if masked else None
    dy = np.random.default_rng(6).standard_normal(x.shape)
    axes = reduction_axes(x.ndim, axis)
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = layer(inputs, training=True, mask=mask)
    dx, dgamma, dbeta = tape.gradient(y, [inputs, *layer.trainable_variables], dy)

    gamma = values(layer)["gamma"]

    def gradients(x, dy, mask):
        return oracle.batch_norm_gradients(dy, x, axes, gamma, EPSILON, mask)

    expected = by_ghost(gradients, x, dy, mask)
    np.testing.assert_allclose(
        dx, concatenated([g.x for g in expected], x), rtol=1e-10, atol=1e-11
    )
    zeros = np.zeros_like(gamma)
    for ours, name in ((dgamma, "gamma"), (dbeta, "beta")):
        total = sum((getattr(g, name) for g in expected), zeros)
        np.testing.assert_allclose(ours, total, rtol=1e-10, atol=1e-11)


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
        before = values(layer)
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
        np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-11)
        _, mean, variance = oracle.moments(x, (0, 2), mask)
        stddev = np.sqrt(variance + EPSILON)
        after = values(layer)
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
    ours, expected = values(layer), values(whole)
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-12, err_msg=name)


def test_schedules_count_batches_not_ghost_batches():
    rmax = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 3.0)
    layer = KBatchNorm(
        virtual_batch_size=SIZE, renorm=True, renorm_clipping={"rmax": rmax}
    )
    for _ in range(3):
        layer(uneven((11, 3)), training=True)
    assert layer.steps_seen.numpy() == 3


def test_inference_is_that_of_the_layer_without_ghost_batches():
    layer, x = ghost_layer((5, 3)), uneven((11, 5, 3))
    before = values(layer)
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
        np.testing.assert_allclose(layer(x), expected, rtol=1e-12, atol=1e-12)
        layer.trainable = False
        y = layer(x, training=training)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    after = values(layer)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_half_precision_is_computed_in_float32():
    """Also where ghost batches are filled up and renormalized."""
    x = uneven((11, 5, 3)).astype("float16")
    options = {"virtual_batch_size": SIZE, "renorm": True, "epsilon": EPSILON}
    half, single = KBatchNorm(dtype="float16", **options), KBatchNorm(**options)
    y = half(x, training=True)
    assert y.dtype == "float16"
    expected = single(x.astype("float32"), training=True)
    np.testing.assert_allclose(y, expected, rtol=2**-10, atol=1e-6)
    np.testing.assert_array_equal(half.moving_variance, single.moving_variance)


def test_a_large_mean_costs_no_digits_of_the_variance():
    rng = np.random.default_rng(0)
    x = rng.normal(1e4, 1, (64, 3)).astype("float32")
    layer = KBatchNorm(virtual_batch_size=16, momentum=0.0)
    layer(x, training=True)
    # The spacing of the ghost batches' means, 0.001, times their distance, 0.25.
    np.testing.assert_allclose(
        layer.moving_variance, oracle.moments(x, (0,)).variance, rtol=5e-4
    )


def test_config():
    layer = KBatchNorm(virtual_batch_size=32)
    config = layer.get_config()
    assert config["virtual_batch_size"] == 32
    assert KBatchNorm.from_config(config).virtual_batch_size == 32
    assert KBatchNorm().get_config()["virtual_batch_size"] is None


@pytest.mark.parametrize("axis", [0, (0, 1), -2])
def test_the_samples_axis_cannot_be_kept(axis):
    layer = KBatchNorm(axis, virtual_batch_size=SIZE)
    with pytest.raises(ValueError, match="without the first axis with ghost batches"):
        layer.build((8, 3))


@BATCH
@pytest.mark.parametrize("size", [1, 4, 16])
def test_splitting(batch, size):
    x = uneven((batch, 2, 3))
    mask = np.random.default_rng(3).random((batch, 1, 3)) < 0.5
    parts, valid = functional.ghost_batches(x, size, mask)
    _, all_valid = functional.ghost_batches(x, size)
    parts, valid, all_valid = map(np.asarray, (parts, valid, all_valid))
    assert parts.shape == (len(ghosts(batch, size)), size, 2, 3)
    assert (valid.dtype, valid.shape) == (bool, (len(parts), size, 1, 3))
    for number, ghost in enumerate(ghosts(batch, size)):
        samples = len(x[ghost])
        np.testing.assert_array_equal(parts[number, :samples], x[ghost])
        np.testing.assert_array_equal(valid[number, :samples], mask[ghost])
        assert all_valid[number, :samples].all()
        assert not valid[number, samples:].any()
        assert not all_valid[number, samples:].any()


@pytest.mark.parametrize("sizes", [(5,), (3, 0, 1, 7), (0, 0), (0, 4)])
def test_pooled_moments_are_those_of_all_samples(sizes):
    rng = np.random.default_rng(0)
    parts = [
        rng.normal(3 * number, 1 + number, (size, 3))
        for number, size in enumerate(sizes)
    ]
    masks = [rng.random(part.shape) < 0.7 for part in parts]
    each = [
        oracle.moments(part, (0,), mask)
        for part, mask in zip(parts, masks, strict=True)
    ]
    stacked = functional.Moments(*map(np.stack, zip(*each, strict=True)))
    pooled = functional.pool_moments(stacked)
    expected = oracle.moments(np.concatenate(parts), (0,), np.concatenate(masks))
    for ours, truth in zip(pooled, expected, strict=True):
        np.testing.assert_allclose(ours, truth, rtol=1e-13, atol=1e-13)
