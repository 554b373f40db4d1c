"""The equations of `kerasnorm.functional` against the float64 oracle."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasnorm import functional
from tests import oracle
from tests.kerasnorm.inputs import random_mask, uneven
from tests.kerasnorm.probes import BACKEND, in_mode, numpy

if BACKEND != "tensorflow":
    pytest.skip("It traces with tf.function.", allow_module_level=True)

import tensorflow as tf

REDUCTIONS = [
    ((8, 3), (0,)),
    ((4, 5, 3), (0, 1)),
    ((4, 3, 5), (0, 2)),
    ((3, 4, 5, 2), (0, 1, 2)),
    ((3, 4, 5, 2), (0, 2)),
    ((2, 3, 4, 3, 2), (0, 1, 2, 3)),
]
RATES = [0.0, 1e-6, 0.001, 0.2, 0.5, 0.8, 0.99999, 1.0]
SEEDS = [(0, 0), (1, 0), (1, 1), (42, 12345), (2**31 + 5, 2**31), (2**32 - 1, 7)]


def seed_tensor(seed):
    """As `keras.random.SeedGenerator` holds it with TensorFlow."""
    return ops.convert_to_tensor(np.array(seed), "int64")


def assert_moments(ours, expected, **tolerance):
    for name in ("count", "mean", "variance"):
        value = ops.convert_to_numpy(getattr(ours, name))
        np.testing.assert_allclose(
            np.broadcast_to(value, expected.mean.shape),
            getattr(expected, name),
            err_msg=name,
            **tolerance,
        )


@pytest.mark.parametrize("masked", [None, "samples", "elements"])
@pytest.mark.parametrize(("shape", "axes"), REDUCTIONS)
def test_moments(shape, axes, masked):
    x = uneven(shape)
    mask = None
    if masked is not None:
        mask_shape = shape if masked == "elements" else (shape[0], *[1] * (x.ndim - 1))
        mask = random_mask(mask_shape)
    ours = functional.moments(ops.convert_to_tensor(x), axes, mask)
    assert_moments(ours, oracle.moments(x, axes, mask), rtol=1e-12)
    assert ours.mean.shape == ours.variance.shape == oracle.moments(x, axes).mean.shape


def test_float32_moments_keep_the_variance_at_a_mean_of_ten_thousand():
    x = uneven((64, 3), location=1e4, dtype="float32")
    ours = functional.moments(ops.convert_to_tensor(x), (0,))
    # The mean is right to two roundings of the largest value. Its error enters the
    # variance squared, beside one rounding for each of the 64 additions.
    unit = np.finfo("float32").eps
    assert_moments(ours, oracle.moments(x, (0,)), rtol=64 * unit)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_moments_are_computed_in_float32(dtype):
    """Sums of 2000 values near 60 overflow float16 and stall in bfloat16."""
    x = ops.cast(uneven((2000, 2), location=60.0), dtype)
    ours = functional.moments(x, (0,))
    assert {v.dtype for v in (ours.mean, ours.variance)} == {tf.float32}
    expected = oracle.moments(ops.convert_to_numpy(ops.cast(x, "float64")), (0,))
    assert_moments(ours, expected, rtol=2000 * np.finfo("float32").eps)


@pytest.mark.parametrize(
    ("x", "mask"),
    [
        (np.zeros((0, 3)), None),
        (uneven((4, 3)), np.zeros((4, 1), bool)),
        (np.full((4, 3), np.nan), np.zeros((4, 1), bool)),
    ],
    ids=["empty", "masked", "masked NaN"],
)
def test_moments_without_a_sample_are_zero(x, mask):
    ours = functional.moments(ops.convert_to_tensor(x), (0,), mask)
    for value in ours:
        np.testing.assert_array_equal(ops.convert_to_numpy(value), np.zeros_like(value))


def test_what_is_masked_has_no_influence_however_bad():
    x = uneven((6, 3))
    mask = np.array([[True], [False], [True], [True], [False], [True]])
    poisoned = np.where(mask, x, [np.nan, np.inf, 1e300])
    ours = functional.moments(ops.convert_to_tensor(poisoned), (0,), mask)
    assert_moments(ours, oracle.moments(x[mask[:, 0]], (0,)), rtol=1e-12)


@pytest.mark.parametrize("split", [0, 1, 20, 39, 40])
@pytest.mark.parametrize("location", [0.0, 1e4])
def test_merged_moments_are_the_moments_of_all_samples(split, location):
    x = uneven((40, 3), location=location)
    parts = [
        functional.moments(ops.convert_to_tensor(part), (0,))
        for part in (x[:split], x[split:])
    ]
    expected = oracle.moments(x, (0,))
    assert_moments(functional.merge_moments(*parts), expected, rtol=1e-12)


def test_merging_nothing_with_nothing_is_nothing():
    nothing = functional.moments(ops.zeros((0, 3)), (0,))
    for value in functional.merge_moments(nothing, nothing):
        np.testing.assert_array_equal(ops.convert_to_numpy(value), np.zeros_like(value))


def test_merging_in_float32_keeps_a_variance_that_one_pass_loses():
    """E[x^2] - E[x]^2 gives 0 to 136 for a variance of 1 at a mean of 1e4."""
    x = uneven((64, 4), location=1e4, dtype="float32")
    parts = [
        functional.moments(ops.convert_to_tensor(part), (0,)) for part in np.split(x, 8)
    ]
    merged = parts[0]
    for part in parts[1:]:
        merged = functional.merge_moments(merged, part)
    # The means of the parts are rounded at 1e4, so their differences, which are of
    # the order of the standard deviation, are right to 1e4 * eps, about 0.001.
    assert_moments(merged, oracle.moments(x, (0,)), rtol=0.01)


@pytest.mark.parametrize("batch", [0, 1, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("size", [1, 4, 16])
def test_ghost_batches(batch, size):
    x = uneven((batch, 2, 3))
    mask = np.random.default_rng(3).random((batch, 1, 3)) < 0.5
    parts, valid = functional.ghost_batches(x, size, mask)
    _, all_valid = functional.ghost_batches(x, size)
    parts, valid, all_valid = map(numpy, (parts, valid, all_valid))
    ghosts = [slice(start, start + size) for start in range(0, batch, size)]
    assert parts.shape == (len(ghosts), size, 2, 3)
    assert (valid.dtype, valid.shape) == (bool, (len(parts), size, 1, 3))
    for number, ghost in enumerate(ghosts):
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
        np.testing.assert_allclose(numpy(ours), truth, rtol=1e-13, atol=1e-13)


def test_unbiased_variance():
    count = np.array([0.0, 1.0, 2.0, 3.0, 100.0])
    variance = np.array([0.0, 0.0, 5.0, 6.0, 7.0])
    np.testing.assert_allclose(
        functional.unbiased_variance(count, variance),
        oracle.unbiased_variance(count, variance),
        rtol=1e-15,
    )


@pytest.mark.parametrize("with_beta", [True, False])
@pytest.mark.parametrize("with_gamma", [True, False])
@pytest.mark.parametrize(("shape", "axes"), REDUCTIONS)
def test_normalize(shape, axes, with_gamma, with_beta):
    x = uneven(shape)
    statistics_shape = oracle.moments(x, axes).mean.shape
    rng = np.random.default_rng(2)
    mean, gamma, beta = (rng.normal(1, 0.5, statistics_shape) for _ in range(3))
    variance = rng.uniform(0.5, 3, statistics_shape)
    wide = [np.expand_dims(v, axes) for v in (mean, variance, gamma, beta)]
    ours = functional.normalize(
        ops.convert_to_tensor(x),
        wide[0],
        wide[1],
        wide[2] if with_gamma else None,
        wide[3] if with_beta else None,
        epsilon=1e-3,
    )
    expected = oracle.normalize(
        x,
        axes,
        mean,
        variance,
        gamma if with_gamma else np.ones_like(gamma),
        beta if with_beta else np.zeros_like(beta),
        1e-3,
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


BATCHES = np.random.default_rng(3).normal(5.0, 2.0, (6, 3))
COUNTS = np.array(
    [[0, 4, 1], [3, 4, 1], [8, 0, 1], [1, 4, 1], [0, 0, 1], [2, 7, 1]], float
)


def test_exponential_average():
    moving = initial = np.array([0.0, 1.0, -2.0])
    for batch in BATCHES:
        moving = functional.exponential_average(moving, batch, 0.9)
    expected = oracle.exponential_average(initial, BATCHES, 0.9)
    np.testing.assert_allclose(moving, expected, rtol=1e-13)


@pytest.mark.parametrize("initial", [0.0, 1.0, 1e6])
def test_weighted_averages_forget_their_initial_value(initial):
    debiased = cumulative = np.full(3, initial)
    debiased_weight = cumulative_weight = np.zeros(3)
    for step, (batch, count) in enumerate(zip(BATCHES, COUNTS, strict=True), start=1):
        debiased, debiased_weight = functional.debiased_average(
            debiased, debiased_weight, batch, count, 0.9
        )
        cumulative, cumulative_weight = functional.cumulative_average(
            cumulative, cumulative_weight, batch, count
        )
        seen = COUNTS[:step].sum(0) > 0
        for ours, expected in [
            (debiased, oracle.debiased_average),
            (cumulative, oracle.cumulative_average),
        ]:
            arguments = (BATCHES[:step][:, seen], COUNTS[:step][:, seen])
            if expected is oracle.debiased_average:
                arguments = (*arguments, 0.9)
            truth = np.full(3, initial)
            truth[seen] = expected(*arguments)
            # Subtracting the initial value costs the digits that it has before.
            np.testing.assert_allclose(ours, truth, rtol=1e-13, atol=1e-15 * initial)
    np.testing.assert_allclose(cumulative_weight, COUNTS.sum(0))


def test_a_batch_of_weight_zero_changes_no_average():
    moving, weight = np.array([7.0, 8.0]), np.array([0.0, 3.0])
    nothing, zero = np.array([0.0, 0.0]), np.zeros(2)
    cumulative = functional.cumulative_average(moving, weight, nothing, zero)
    np.testing.assert_array_equal(cumulative, [moving, weight])
    debiased, _ = functional.debiased_average(moving, weight, nothing, zero, 0.9)
    np.testing.assert_array_equal(debiased, moving)


@pytest.mark.parametrize(
    "clipping",
    [
        {},
        {"rmin": 0.8},
        {"rmax": 1.2},
        {"dmax": 0.5},
        {"rmin": 0.7, "rmax": 1.5, "dmax": 0.3},
    ],
)
def test_renorm_correction(clipping):
    rng = np.random.default_rng(4)
    mean, renorm_mean = rng.normal(0, 1, (2, 20))
    stddev, renorm_stddev = rng.uniform(0.5, 2, (2, 20))
    ours = functional.renorm_correction(
        mean, stddev, renorm_mean, renorm_stddev, **clipping
    )
    expected = oracle.renorm_correction(
        mean, stddev, renorm_mean, renorm_stddev, **clipping
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-14)


def test_no_gradient_flows_through_the_renorm_correction():
    mean, stddev = tf.Variable([1.0, 2.0]), tf.Variable([1.5, 0.5])
    with tf.GradientTape() as tape:
        r, d = functional.renorm_correction(mean, stddev, 0.5, 2.0, rmax=3.0)
        total = tf.reduce_sum(r + d)
    assert tape.gradient(total, [mean, stddev]) == [None, None]


@pytest.mark.parametrize("rate", RATES)
def test_threshold_and_keep_fraction(rate):
    assert functional.drop_threshold(rate) == oracle.keep_threshold(rate)
    assert functional.keep_fraction(rate) == oracle.keep_fraction(rate)
    assert abs(functional.keep_fraction(rate) - (1 - rate)) <= 2**-17
    # The rate of a schedule is a float32 tensor.
    tensor = ops.convert_to_tensor(rate, "float32")
    assert int(functional.drop_threshold(tensor)) == oracle.keep_threshold(rate)
    assert float(functional.keep_fraction(tensor)) == oracle.keep_fraction(rate)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_words_bit_for_bit(seed):
    ours = ops.convert_to_numpy(
        functional.random_words(ops.arange(1000, dtype="int32"), seed_tensor(seed))
    )
    np.testing.assert_array_equal(
        ours.astype(np.int64) & 0xFFFFFFFF, oracle.random_words(1000, seed)
    )


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("shape", [(7,), (4, 3), (2, 5, 1, 3), (0, 3), ()])
def test_keep_mask_bit_for_bit_in_every_execution_mode(shape, mode):
    draw = in_mode(lambda seed: functional.keep_mask(shape, 0.3, seed), mode)
    for seed in SEEDS:
        np.testing.assert_array_equal(
            draw(seed_tensor(seed)), oracle.keep_mask(shape, 0.3, seed)
        )


@pytest.mark.parametrize("rate", RATES)
def test_keep_mask_at_every_rate(rate):
    expected = oracle.keep_mask((50, 21), rate, (5, 3))
    for given in (rate, ops.convert_to_tensor(rate, "float32")):
        mask = functional.keep_mask((50, 21), given, seed_tensor((5, 3)))
        assert mask.dtype == tf.bool
        np.testing.assert_array_equal(mask, expected)


def test_keep_mask_of_a_shape_that_is_only_known_when_run():
    @tf.function(input_signature=[tf.TensorSpec((None, 5))])
    def draw(x):
        return functional.keep_mask(ops.shape(x), 0.3, seed_tensor((8, 2)))

    for size in (0, 1, 6):
        np.testing.assert_array_equal(
            draw(np.zeros((size, 5), "float32")),
            oracle.keep_mask((size, 5), 0.3, (8, 2)),
        )


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rate", [0.0, 0.001, 0.2, 0.5, 1.0])
def test_both_scalings_in_every_dtype(rate, dtype):
    x = ops.cast(uneven((50, 4)), dtype)
    mask = oracle.keep_mask((50, 4), rate, (1, 2))
    exact = ops.convert_to_numpy(ops.cast(x, "float64"))

    def numpy(y):
        assert keras.backend.standardize_dtype(y.dtype) == dtype
        return ops.convert_to_numpy(ops.cast(y, "float64"))

    # One rounding of the scale in float32 or wider, one of the product there, one
    # to the dtype of x.
    eps = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10}
    tolerance = 2 * eps.get(dtype, 2.0**-7)
    np.testing.assert_allclose(
        numpy(functional.inverted_dropout(x, mask, rate)),
        oracle.inverted_dropout(exact, mask, rate),
        rtol=tolerance,
    )
    np.testing.assert_array_equal(
        numpy(functional.thin(x, mask)), oracle.thin(exact, mask)
    )
    np.testing.assert_allclose(
        numpy(functional.scale_by_keep_fraction(x, rate)),
        oracle.scale_weights(exact, rate),
        rtol=tolerance,
    )


def test_the_expected_loss_of_section_9_1():
    """E|y - (R*X)w|^2 = |y - pXw|^2 + p(1-p)|Gamma w|^2, over all 2^6 masks."""
    rng = np.random.default_rng(5)
    x, w, y = rng.normal(1, 1, (3, 2)), rng.normal(0, 1, 2), rng.normal(0, 1, 3)
    rate = 0.25
    p = functional.keep_fraction(rate)
    expectation = 0.0
    for bits in range(2**6):
        mask = (bits >> np.arange(6) & 1).astype(bool).reshape(3, 2)
        thinned = ops.convert_to_numpy(functional.thin(ops.convert_to_tensor(x), mask))
        probability = p ** mask.sum() * (1 - p) ** (~mask).sum()
        expectation += probability * np.sum((y - thinned @ w) ** 2)
    scaled = ops.convert_to_numpy(
        functional.scale_by_keep_fraction(ops.convert_to_tensor(x), rate)
    )
    gamma = np.sqrt(np.diag(x.T @ x))
    ridge = np.sum((y - scaled @ w) ** 2) + p * (1 - p) * np.sum((gamma * w) ** 2)
    np.testing.assert_allclose(expectation, ridge, rtol=1e-13)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_gaussian_noise(rate):
    ours = functional.gaussian_noise((301, 7), rate, seed_tensor((4, 9)))
    assert ours.dtype == tf.float32
    # Float32 rounds the uniform before its logarithm, and -2 log u near u = 1 and
    # the cosine's argument, up to 2 pi, lose some units in the last place.
    np.testing.assert_allclose(
        ours, oracle.gaussian_noise((301, 7), rate, (4, 9)), atol=1e-4
    )
