"""The oracle itself: hand-worked numbers, brute force and central differences."""

import ast
import inspect

import numpy as np
import pytest

from tests import oracle

AXES = [(0,), (0, 1, 2), (0, 2, 3), (1, 2)]


def sample(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(3.0, 2.0, shape)


def central_differences(function, x, step=1e-5):
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[index] += step
        below[index] -= step
        gradient[index] = (function(above) - function(below)) / (2 * step)
    return gradient


def test_oracle_imports_neither_keras_nor_kerasnorm():
    tree = ast.parse(inspect.getsource(oracle))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
    }
    assert imported == {"collections", "typing", "numpy"}


def test_moments_by_hand():
    x = np.array([[1.0, 10.0], [2.0, 10.0], [3.0, 40.0], [4.0, 40.0]])
    count, mean, variance = oracle.moments(x, (0,))
    np.testing.assert_array_equal(count, [4, 4])
    np.testing.assert_array_equal(mean, [2.5, 25])
    np.testing.assert_array_equal(variance, [1.25, 225])


@pytest.mark.parametrize("axes", AXES)
def test_moments_are_numpys_mean_and_variance(axes):
    x = sample((3, 2, 4, 5))
    _, mean, variance = oracle.moments(x, axes)
    np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-14)
    np.testing.assert_allclose(variance, x.var(axes), rtol=1e-13)


@pytest.mark.parametrize("axes", AXES)
def test_masked_moments_are_those_of_the_masked_array(axes):
    x = sample((3, 2, 4, 5))
    mask = np.random.default_rng(1).random(x.shape) < 0.6
    count, mean, variance = oracle.moments(x, axes, mask)
    masked = np.ma.array(x, mask=~mask)
    np.testing.assert_array_equal(count, masked.count(axes))
    np.testing.assert_allclose(mean, masked.mean(axes).filled(0), rtol=1e-13)
    np.testing.assert_allclose(variance, masked.var(axes).filled(0), atol=1e-13)


def test_moments_without_a_sample_are_zero():
    for x, mask in [
        (np.zeros((0, 2)), None),
        (sample((4, 2)), np.zeros((4, 1), bool)),
    ]:
        np.testing.assert_array_equal(oracle.moments(x, (0,), mask), np.zeros((3, 2)))


def test_batch_norm_by_hand():
    y = oracle.batch_norm(
        np.array([[1.0], [3.0]]), (0,), np.array([2.0]), np.array([5.0]), epsilon=3.0
    )  # mean 2, variance 1, sqrt(1 + 3) = 2
    np.testing.assert_array_equal(y, [[4.0], [6.0]])


@pytest.mark.parametrize("renormalised", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("axes", [(0,), (0, 2)])
def test_gradients_are_the_central_differences(axes, masked, renormalised):
    rng = np.random.default_rng(2)
    x = rng.normal(1.0, 2.0, (4, 3, 2))
    shape = oracle.moments(x, axes).mean.shape
    gamma, beta = rng.normal(1, 0.5, shape), rng.normal(0, 1, shape)
    mask = rng.random((4, 1, 2)) < 0.7 if masked else None
    r = rng.uniform(0.5, 2, shape) if renormalised else np.ones(shape)
    d = rng.normal(0, 1, shape) if renormalised else np.zeros(shape)
    dy = rng.normal(0, 1, x.shape)

    def loss(x, gamma, beta):
        y = oracle.batch_renorm(x, axes, gamma, beta, 0.1, r, d, mask)
        return np.sum(dy * y)

    gradients = oracle.batch_norm_gradients(dy, x, axes, gamma, 0.1, mask, r, d)
    np.testing.assert_allclose(
        gradients.x,
        central_differences(lambda v: loss(v, gamma, beta), x),
        atol=1e-8,
    )
    np.testing.assert_allclose(
        gradients.gamma,
        central_differences(lambda v: loss(x, v, beta), gamma),
        atol=1e-8,
    )
    np.testing.assert_allclose(
        gradients.beta,
        central_differences(lambda v: loss(x, gamma, v), beta),
        atol=1e-8,
    )


def test_renorm_with_the_batchs_own_statistics_is_batch_norm():
    x = sample((6, 3))
    ones, zeros = np.ones(3), np.zeros(3)
    _, mean, variance = oracle.moments(x, (0,))
    stddev = np.sqrt(variance + 1e-3)
    r, d = oracle.renorm_correction(mean, stddev, mean, stddev)
    np.testing.assert_array_equal([r, d], [ones, zeros])
    np.testing.assert_array_equal(
        oracle.batch_renorm(x, (0,), ones, zeros, 1e-3, r, d),
        oracle.batch_norm(x, (0,), ones, zeros, 1e-3),
    )


def test_unclipped_renorm_normalises_with_the_moving_statistics():
    x = sample((6, 3))
    _, mean, variance = oracle.moments(x, (0,))
    r, d = oracle.renorm_correction(
        mean, np.sqrt(variance + 0.25), np.full(3, 2.0), np.full(3, 4.0)
    )
    y = oracle.batch_renorm(x, (0,), np.full(3, 3.0), np.ones(3), 0.25, r, d)
    np.testing.assert_allclose(y, 3 * (x - 2) / 4 + 1, rtol=1e-13)


def test_renorm_clipping_by_hand():
    r, d = oracle.renorm_correction(
        np.array([5.0, -5.0, 0.5]),
        np.array([4.0, 0.1, 1.5]),
        np.zeros(3),
        np.ones(3),
        rmin=0.5,
        rmax=3.0,
        dmax=2.0,
    )
    np.testing.assert_array_equal(r, [3.0, 0.5, 1.5])
    np.testing.assert_array_equal(d, [2.0, -2.0, 0.5])


@pytest.mark.parametrize("split", [0, 1, 5, 9])
def test_merged_moments_are_those_of_all_samples(split):
    x = sample((9, 3)) + 1e4
    merged = oracle.merge(
        oracle.moments(x[:split], (0,)), oracle.moments(x[split:], (0,))
    )
    for ours, expected in zip(merged, oracle.moments(x, (0,)), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-10)


def test_unbiased_variance_is_numpys_with_one_degree_of_freedom():
    x = sample((5, 3))
    ours = oracle.unbiased_variance(np.float64(5), x.var(0))
    np.testing.assert_allclose(ours, x.var(0, ddof=1), rtol=1e-14)
    for count in (0.0, 1.0):
        assert oracle.unbiased_variance(np.float64(count), np.float64(7.0)) == 0


def test_averages_are_the_recursions_that_the_layers_name():
    rng = np.random.default_rng(3)
    batches, counts = rng.normal(5, 2, (7, 3)), rng.integers(1, 9, (7, 3))
    exponential = initial = rng.normal(0, 1, 3)
    debiased, weight = np.zeros(3), np.zeros(3)
    for batch, count in zip(batches, counts, strict=True):
        exponential = 0.9 * exponential + 0.1 * batch
        total = 0.9 * weight + 0.1 * count
        debiased = (0.9 * weight * debiased + 0.1 * count * batch) / total
        weight = total
    np.testing.assert_allclose(
        oracle.exponential_average(initial, batches, 0.9), exponential, rtol=1e-13
    )
    np.testing.assert_allclose(
        oracle.debiased_average(batches, counts, 0.9), debiased, rtol=1e-13
    )
    np.testing.assert_allclose(
        oracle.cumulative_average(batches, counts),
        (batches * counts).sum(0) / counts.sum(0),
        rtol=1e-13,
    )


@pytest.mark.parametrize(
    ("rate", "threshold"),
    [(0.0, 0), (0.5, 32768), (0.2, 13107), (0.001, 66), (1, 65536)],
)
def test_keep_fraction_by_hand(rate, threshold):
    assert oracle.keep_threshold(rate) == threshold
    assert oracle.keep_fraction(rate) == (65536 - threshold) / 65536


def test_both_scalings_have_the_expectation_of_the_paper():
    """All 2^3 masks, weighted by their probability at p = 0.75: exactly p x and x."""
    x = np.array([2.0, -3.0, 5.0])
    p = 0.75
    masks = [np.array([i & 1, i & 2, i & 4]) > 0 for i in range(8)]
    weights = [np.prod(np.where(mask, p, 1 - p)) for mask in masks]
    thinned = sum(w * oracle.thin(x, m) for w, m in zip(weights, masks, strict=True))
    inverted = sum(
        w * oracle.inverted_dropout(x, m, 1 - p)
        for w, m in zip(weights, masks, strict=True)
    )
    np.testing.assert_allclose(thinned, oracle.scale_weights(x, 1 - p), rtol=1e-15)
    np.testing.assert_allclose(inverted, x, rtol=1e-15)


def test_everything_dropped_is_zero():
    x = np.array([1.0, np.pi])
    np.testing.assert_array_equal(oracle.inverted_dropout(x, x < 0, 1.0), [0, 0])
    np.testing.assert_array_equal(oracle.scale_weights(x, 1.0), [0, 0])


def test_random_words_by_pure_integer_arithmetic():
    def mix(h):
        h = (h ^ h >> 16) * 0x7FEB352D % 2**32
        h = (h ^ h >> 15) * 0x846CA68B % 2**32
        return h ^ h >> 16

    for seed, draws in [(0, 0), (42, 7), (2**32 - 1, 2**31)]:
        key_0 = mix(mix((seed + 0x9E3779B9) % 2**32) ^ draws)
        key_1 = mix((mix(seed ^ 0x85EBCA6B) + draws) % 2**32)
        expected = [mix((mix(i ^ key_0) + i + key_1) % 2**32) for i in range(50)]
        np.testing.assert_array_equal(oracle.random_words(50, (seed, draws)), expected)


def test_keep_mask_takes_the_low_half_of_a_word_first():
    (word,) = oracle.random_words(1, (3, 1)).tolist()
    for rate in np.linspace(0, 1, 21):
        expected = [
            half >= oracle.keep_threshold(rate) for half in (word % 2**16, word >> 16)
        ]
        assert oracle.keep_mask((2,), rate, (3, 1)).tolist() == expected
        assert oracle.keep_mask((1,), rate, (3, 1)).tolist() == expected[:1]


def test_draws_are_uniform_and_masks_of_successive_draws_are_independent():
    """Bounds of five standard errors: each a false alarm at 6e-7 of all seeds."""
    size = 2**16
    for seed in [(0, 0), (0, 1), (1, 0), (123456789, 1000)]:
        words = oracle.random_words(size, seed)
        for bit in range(32):
            ones = np.count_nonzero(words >> bit & 1)
            assert abs(ones - size / 2) < 5 * np.sqrt(size / 4)
    first, second, other = (
        oracle.keep_mask((size,), 0.5, seed) for seed in [(5, 0), (5, 1), (6, 0)]
    )
    pairs = [(first, second), (first, other), (first[1:], first[:-1])]
    for one, two in pairs:
        agree = np.count_nonzero(one == two)
        assert abs(agree - len(one) / 2) < 5 * np.sqrt(len(one) / 4)


def test_gaussian_noise_has_the_mean_and_variance_of_inverted_dropout():
    """Bounds of five standard errors; the fourth moment of a Gaussian is 3 sigma^4."""
    size, rate = 200_000, 0.2
    noise = oracle.gaussian_noise((size,), rate, (9, 2))
    variance = rate / (1 - rate)
    assert abs(noise.mean() - 1) < 5 * np.sqrt(variance / size)
    assert abs(noise.var() - variance) < 5 * variance * np.sqrt(2 / size)
    kurtosis = np.mean((noise - 1) ** 4) / variance**2
    assert abs(kurtosis - 3) < 5 * np.sqrt(96 / size)
