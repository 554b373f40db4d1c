"""What holds for every input: invariances, bounds, and the law of the masks.

These properties cut across functional.py and the layers' files.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from kerasnorm import KBatchNorm, KDropout, KSpatialDropout, functional
from tests import oracle

REPEATABLE = settings(max_examples=25, deadline=None, derandomize=True)
# Where the layer is compiled anew for each example.
FEWER = settings(REPEATABLE, max_examples=6)

EPSILON = 1e-3
SHAPES = hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=6)
VALUES = st.floats(-100, 100)
INPUTS = hnp.arrays("float64", SHAPES, elements=VALUES)
RATES = st.floats(0, 1)
RANDOM_STATES = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1))
AVERAGES = st.sampled_from(["exponential", "debiased", "cumulative"])


def train(x, epsilon=EPSILON, **options):
    layer = KBatchNorm(epsilon=epsilon, dtype="float64", **options)
    return ops.convert_to_numpy(layer(x, training=True)), layer


def keep_mask(shape, rate, state):
    seed = ops.convert_to_tensor(np.array(state), "int64")
    return ops.convert_to_numpy(functional.keep_mask(shape, rate, seed))


@REPEATABLE
@given(x=INPUTS, shift=st.floats(-1e3, 1e3))
def test_a_shift_of_the_inputs_changes_no_output(x, shift):
    y, layer = train(x)
    shifted, shifted_layer = train(x + shift)
    # The shift rounds each input by up to 1e3 * 2^-53, to be divided by sqrt(1e-3).
    np.testing.assert_allclose(shifted, y, atol=1e-10)
    np.testing.assert_allclose(
        shifted_layer.moving_variance, layer.moving_variance, rtol=1e-9, atol=1e-10
    )


@REPEATABLE
@given(x=INPUTS, factor=st.floats(0.01, 100), sign=st.sampled_from([-1, 1]))
def test_a_factor_changes_only_the_weight_of_epsilon(x, factor, sign):
    y, _ = train(x)
    scaled, _ = train(sign * factor * x, epsilon=EPSILON * factor**2)
    np.testing.assert_allclose(scaled, sign * y, atol=1e-10)


@REPEATABLE
@given(x=INPUTS, seed=st.integers(0, 100))
def test_the_order_of_the_batch_does_not_matter(x, seed):
    order = np.random.default_rng(seed).permutation(len(x))
    y, layer = train(x)
    permuted, permuted_layer = train(x[order])
    np.testing.assert_allclose(permuted, y[order], atol=1e-10)
    for one, other in zip(layer.weights, permuted_layer.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@REPEATABLE
@given(x=INPUTS)
def test_outputs_have_mean_0_and_the_variance_that_epsilon_leaves(x):
    y, _ = train(x)
    axes = tuple(range(x.ndim - 1))
    variance = x.var(axes)
    np.testing.assert_allclose(y.mean(axes), np.zeros(x.shape[-1]), atol=1e-10)
    np.testing.assert_allclose(
        y.var(axes), variance / (variance + EPSILON), rtol=1e-9, atol=1e-10
    )


@REPEATABLE
@given(x=INPUTS, seed=st.integers(0, 100), other=VALUES)
def test_masked_inputs_influence_only_their_own_outputs(x, seed, other):
    mask = np.random.default_rng(seed).random((len(x), *[1] * (x.ndim - 1))) < 0.6
    layers = [KBatchNorm(epsilon=EPSILON, dtype="float64") for _ in range(2)]
    one = layers[0](x, training=True, mask=mask)
    two = layers[1](np.where(mask, x, other), training=True, mask=mask)
    keep = np.broadcast_to(mask, x.shape)
    np.testing.assert_array_equal(one[keep], two[keep])
    for first, second in zip(layers[0].weights, layers[1].weights, strict=True):
        np.testing.assert_array_equal(first, second)


@REPEATABLE
@given(
    batches=st.lists(
        hnp.arrays(
            "float64", st.tuples(st.integers(0, 5), st.just(2)), elements=VALUES
        ),
        max_size=5,
    ),
    moving_average=AVERAGES,
    momentum=st.floats(0, 1),
    bessel_correction=st.booleans(),
)
def test_moving_values_stay_within_what_has_been_seen(
    batches, moving_average, momentum, bessel_correction
):
    layer = KBatchNorm(
        moving_average=moving_average,
        momentum=momentum,
        bessel_correction=bessel_correction,
        dtype="float64",
    )
    layer.build((None, 2))
    means, variances = [np.zeros(2)], [np.ones(2)]
    for batch in batches:
        layer(batch, training=True)
        if len(batch):
            means.append(batch.mean(0))
        if len(batch) > bessel_correction:
            variances.append(batch.var(0, ddof=int(bessel_correction)))
    for moving, seen in [
        (layer.moving_mean.numpy(), means),
        (layer.moving_variance.numpy(), variances),
    ]:
        slack = 1e-12 * (1 + np.abs(seen).max())
        assert (moving >= np.min(seen, 0) - slack).all()
        assert (moving <= np.max(seen, 0) + slack).all()
        assert np.isfinite(moving).all()


@REPEATABLE
@given(x=INPUTS, cuts=st.tuples(st.integers(0, 6), st.integers(0, 6)))
def test_merging_moments_is_associative_and_commutative(x, cuts):
    first, second = sorted(cuts)
    axes = tuple(range(x.ndim - 1))
    a, b, c = (
        functional.moments(ops.convert_to_tensor(part), axes)
        for part in (x[:first], x[first:second], x[second:])
    )
    merge = functional.merge_moments
    for merged in (merge(merge(a, b), c), merge(a, merge(b, c)), merge(merge(c, a), b)):
        for one, other in zip(merged, oracle.moments(x, axes), strict=True):
            np.testing.assert_allclose(
                np.broadcast_to(one, other.shape), other, rtol=1e-10, atol=1e-10
            )


@REPEATABLE
@given(rate=RATES)
def test_the_exact_rate_is_within_half_a_step_of_the_given_one(rate):
    keep = functional.keep_fraction(rate)
    assert abs(1 - keep - rate) <= 2**-17
    assert (keep * 2**16).is_integer()


@FEWER
@given(rate=st.floats(0, 0.99), seed=st.integers(0, 2**31), size=st.integers(1, 200))
def test_every_output_is_0_or_the_input_over_the_fraction_kept(rate, seed, size):
    x = np.random.default_rng(seed).uniform(1, 2, size).astype("float32")
    y = ops.convert_to_numpy(KDropout(rate, seed=seed)(x, training=True))
    kept = y != 0
    # Two roundings in float32: of the scale and of the product.
    np.testing.assert_allclose(
        y[kept], x[kept] / oracle.keep_fraction(rate), rtol=2.5e-7
    )
    np.testing.assert_array_equal(kept, keep_mask((size,), rate, (seed, 0)))


@REPEATABLE
@given(rate=RATES, state=RANDOM_STATES)
def test_the_count_of_units_kept_is_binomial(rate, state):
    """Hoeffding: each of the 25 examples is a false alarm once in 10^9 seeds."""
    size, false_alarm = 2**14, 1e-9
    kept = np.count_nonzero(keep_mask((size,), rate, state))
    bound = np.sqrt(size * np.log(2 / false_alarm) / 2)
    assert abs(kept - size * functional.keep_fraction(rate)) <= bound


@REPEATABLE
@given(rate=RATES, state=RANDOM_STATES, shape=SHAPES)
def test_the_same_seed_gives_the_same_mask_in_every_shape(rate, state, shape):
    mask = keep_mask(shape, rate, state)
    np.testing.assert_array_equal(mask, keep_mask(shape, rate, state))
    size = int(np.prod(shape))
    np.testing.assert_array_equal(mask.ravel(), keep_mask((size,), rate, state))
    longer = keep_mask((size + 7,), rate, state)
    np.testing.assert_array_equal(mask.ravel(), longer[:size])


@REPEATABLE
@given(rates=st.tuples(RATES, RATES), state=RANDOM_STATES)
def test_a_higher_rate_drops_what_a_lower_one_drops_and_more(rates, state):
    low, high = sorted(rates)
    more, fewer = (keep_mask((1000,), rate, state) for rate in (low, high))
    assert not np.any(fewer & ~more)


@REPEATABLE
@given(state=RANDOM_STATES, rate=st.floats(0.2, 0.8))
def test_successive_masks_and_those_of_other_seeds_are_independent(state, rate):
    """Agreement as of independent masks, by Hoeffding false once in 10^9 seeds."""
    size, false_alarm = 2**13, 1e-9
    seed, count = state
    mask = keep_mask((size,), rate, state)
    keep = functional.keep_fraction(rate)
    bound = np.sqrt(size * np.log(2 / false_alarm) / 2)
    for other in [(seed, count + 1), ((seed + 1) % 2**32, count)]:
        agree = np.count_nonzero(mask == keep_mask((size,), rate, other))
        assert abs(agree - size * (keep**2 + (1 - keep) ** 2)) <= bound


@FEWER
@given(
    shape=hnp.array_shapes(min_dims=3, max_dims=5, min_side=1, max_side=4),
    rate=st.floats(0, 0.9),
    channels_first=st.booleans(),
)
def test_a_feature_map_is_dropped_as_a_whole(shape, rate, channels_first):
    layer = KSpatialDropout(
        rate, data_format="channels_first" if channels_first else "channels_last"
    )
    kept = np.asarray(layer(np.ones(shape, "float32"), training=True)) != 0
    spatial = tuple(
        range(2, len(shape)) if channels_first else range(1, len(shape) - 1)
    )
    np.testing.assert_array_equal(kept.all(spatial), kept.any(spatial))
