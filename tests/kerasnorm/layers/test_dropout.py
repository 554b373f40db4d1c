"""The dropout layers against the float64 oracle, mask for mask."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasnorm import KDropout, KGaussianDropout, KSpatialDropout
from tests import oracle
from tests.kerasnorm import inputs
from tests.kerasnorm.probes import BACKEND, exact, in_mode, numpy

pytestmark = pytest.mark.any_backend

RATES = [0.001, 0.2, 0.5, 0.8, 1.0]
LAYERS = [KDropout, KSpatialDropout, KGaussianDropout]
ON_TENSORFLOW = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="tf.function is TensorFlow's."
)
STATE_DTYPE = {"jax": "uint32", "torch": "int32"}.get(BACKEND, "int64")


def uneven(shape, seed=0):
    return inputs.uneven(shape, seed, dtype="float32")


def random_state(layer):
    return numpy(layer.seed_generator.state.value).tolist()


@pytest.mark.parametrize(
    ("rate", "seed"),
    [(0.001, 0), (0.2, 7), (0.5, 2**31 - 1), (0.8, 2**31 + 5), (1.0, 2**40 + 3)],
)
def test_successive_calls_drop_by_successive_masks(rate, seed):
    layer = KDropout(rate, seed=seed)
    for draw in range(3):
        x = uneven((5, 4, 3), seed=draw)
        mask = oracle.keep_mask(x.shape, rate, (seed, draw))
        expected = oracle.inverted_dropout(x, mask, rate)
        np.testing.assert_allclose(layer(x, training=True), expected, rtol=3e-7)
        # The state holds the low 32 bits, which the masks use.
        held = np.array(seed % 2**32).astype(STATE_DTYPE)
        assert random_state(layer) == [held, draw + 1]


def test_a_batch_of_another_size_draws_the_next_mask():
    layer = KDropout(0.2, seed=7)
    for draw, samples in enumerate((6, 5, 1, 0)):
        x = uneven((samples, 4, 3))
        mask = oracle.keep_mask(x.shape, 0.2, (7, draw))
        expected = oracle.inverted_dropout(x, mask, 0.2)
        np.testing.assert_allclose(layer(x, training=True), expected, rtol=3e-7)


@pytest.mark.parametrize(
    ("dtype", "scale_at"),
    [
        ("float64", "training"),
        ("float64", "inference"),
        ("float16", "training"),
        ("bfloat16", "inference"),
        ("mixed_bfloat16", "training"),
    ],
)
def test_other_dtypes_have_the_same_masks(dtype, scale_at, float64):
    layer = KDropout(0.2, seed=4, scale_at=scale_at, dtype=dtype)
    x = ops.cast(uneven((50, 20)), layer.compute_dtype)
    mask = oracle.keep_mask(x.shape, 0.2, (4, 0))
    y = layer(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    if scale_at == "training":
        expected = oracle.inverted_dropout(exact(x), mask, 0.2)
    else:
        expected = oracle.thin(exact(x), mask)
    eps = {"float64": 2.0**-50, "float16": 2.0**-10}.get(dtype, 2.0**-7)
    np.testing.assert_allclose(exact(y), expected, rtol=eps)


@pytest.mark.parametrize("rate", RATES)
def test_the_papers_own_scaling(rate):
    layer = KDropout(rate, seed=3, scale_at="inference")
    x = uneven((6, 5))
    mask = oracle.keep_mask(x.shape, rate, (3, 0))
    np.testing.assert_array_equal(layer(x, training=True), oracle.thin(x, mask))
    np.testing.assert_allclose(layer(x), oracle.scale_weights(x, rate), rtol=3e-7)


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("call", [{}, {"training": False}, {"training": None}])
def test_inference_is_the_identity_and_draws_nothing(layer_class, call):
    layer = layer_class(0.5, seed=1)
    x = uneven((4, 3, 5))
    np.testing.assert_array_equal(layer(x, **call), x)
    assert random_state(layer) == [1, 0]


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_rate_0_is_the_identity_and_draws_nothing(layer_class, training):
    layer = layer_class(0, seed=1)
    x = uneven((4, 3, 5))
    np.testing.assert_array_equal(layer(x, training=training), x)
    assert random_state(layer) == [1, 0]


@pytest.mark.parametrize("scale_at", ["training", "inference"])
def test_monte_carlo_drops_at_inference_as_in_training(scale_at):
    layer = KDropout(0.4, seed=2, scale_at=scale_at, monte_carlo=True)
    x = uneven((6, 5))
    for draw, call in enumerate([{}, {"training": False}, {"training": True}]):
        mask = oracle.keep_mask(x.shape, 0.4, (2, draw))
        expected = (
            oracle.inverted_dropout(x, mask, 0.4)
            if scale_at == "training"
            else oracle.thin(x, mask)
        )
        np.testing.assert_allclose(layer(x, **call), expected, rtol=3e-7)


@pytest.mark.parametrize(
    ("noise_shape", "mask_shape"),
    [
        ((None, 1, None), (4, 1, 3)),
        ((None, None, None), (4, 5, 3)),
        ((4, 1, 1), (4, 1, 1)),
        ((1, 5, 3), (1, 5, 3)),
        ([None, 5, 1], (4, 5, 1)),
        ((5, 3), (5, 3)),
        ((5, 1), (5, 1)),
        ((1,), (1,)),
        ((None, 3), (5, 3)),  # `None` is the size of the axis it is aligned with
        ((None,), (3,)),
    ],
)
def test_noise_shape(noise_shape, mask_shape):
    layer = KDropout(0.4, noise_shape=noise_shape, seed=6)
    x = uneven((4, 5, 3))
    mask = np.broadcast_to(oracle.keep_mask(mask_shape, 0.4, (6, 0)), x.shape)
    expected = oracle.inverted_dropout(x, mask, 0.4)
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=3e-7)


@pytest.mark.parametrize(
    ("data_format", "rank"),
    [
        ("channels_last", 3),
        ("channels_first", 3),
        (None, 4),
        ("channels_first", 4),
        ("channels_last", 5),
    ],
)
def test_spatial_dropout_drops_whole_feature_maps(data_format, rank):
    shape = (6, 4, 3, 2, 5)[:rank]
    channels_first = data_format == "channels_first"
    layer = KSpatialDropout(0.3, seed=5, data_format=data_format)
    x = uneven(shape)
    spatial = (1,) * (rank - 2)
    mask_shape = (6, 4, *spatial) if channels_first else (6, *spatial, shape[-1])
    mask = np.broadcast_to(oracle.keep_mask(mask_shape, 0.3, (5, 0)), shape)
    expected = oracle.inverted_dropout(x, mask, 0.3)
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=3e-7)


@pytest.mark.parametrize(
    ("rate", "dtype"),
    [
        (0.1, "float32"),
        (0.5, "float32"),
        (0.9, "float32"),
        (0.5, "float16"),
        (0.9, "bfloat16"),
    ],
)
def test_gaussian_dropout(rate, dtype):
    layer = KGaussianDropout(rate, seed=8, dtype=dtype)
    eps = {"float32": 1e-6, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    for draw in range(2):
        x = ops.cast(uneven((20, 6), seed=draw), dtype)
        expected = exact(x) * oracle.gaussian_noise(x.shape, rate, (8, draw))
        y = layer(x, training=True)
        assert keras.backend.standardize_dtype(y.dtype) == dtype
        # The noise itself is float32; see test_functional.py.
        tolerance = 1e-4 * np.abs(exact(x)).max()
        np.testing.assert_allclose(exact(y), expected, rtol=eps, atol=tolerance)


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize(
    "mode", ["eager", *(pytest.param(m, marks=ON_TENSORFLOW) for m in ("graph", "xla"))]
)
def test_a_scheduled_rate_follows_the_training_steps(layer_class, mode):
    """Early dropout: 0.75 for two steps, then 0.25, with no new trace."""
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.75, 0.25])
    layer = layer_class(schedule, seed=1)
    x = uneven((8, 3, 5))
    layer.build(x.shape)
    traces = []

    def call(x, training):
        traces.append(training)
        return layer(x, training=training)

    call = in_mode(call, mode)
    for step in range(5):
        rate = 0.75 if step <= 1 else 0.25
        assert numpy(layer.steps_seen.value) == step
        call(x, training=False)  # neither a step nor a draw
        y = call(x, training=True)
        if layer_class is KGaussianDropout:
            expected = x * oracle.gaussian_noise(x.shape, rate, (1, step))
        else:
            shape = x.shape if layer_class is KDropout else (8, 1, 5)
            mask = np.broadcast_to(oracle.keep_mask(shape, rate, (1, step)), x.shape)
            expected = oracle.inverted_dropout(x, mask, rate)
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-3)
    if mode != "eager":
        assert sorted(traces) == [False, True]
    assert [w.name for w in layer.weights] == ["steps_seen"]


def test_a_scheduled_rate_scales_inference_by_the_rate_reached():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.75, 0.25])
    layer = KDropout(schedule, scale_at="inference")
    x = uneven((8, 3))
    np.testing.assert_allclose(layer(x), oracle.scale_weights(x, 0.75), rtol=3e-7)
    layer(x, training=True)
    np.testing.assert_allclose(layer(x), oracle.scale_weights(x, 0.25), rtol=3e-7)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_schedule_that_leaves_the_domain_is_clipped(layer_class):
    """A ramp that overshoots drops all, or nearly: no NaN, no negative scale."""
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.5, -0.5])
    layer = layer_class(schedule, seed=1)
    x = uneven((8, 3, 5))
    first, second = (numpy(layer(x, training=True)) for _ in range(2))
    assert np.isfinite(first).all()
    if layer_class is not KGaussianDropout:
        np.testing.assert_array_equal(first, np.zeros_like(x))
    np.testing.assert_array_equal(second, x)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_seeds(layer_class):
    x = uneven((8, 3, 5))
    same, again, other = (layer_class(0.5, seed=s) for s in (1, 1, 2))
    first, second = (numpy(layer(x, training=True)) for layer in (same, again))
    np.testing.assert_array_equal(first, second)
    first, second = (numpy(layer(x, training=True)) for layer in (same, other))
    assert np.any(first != second)
    unseeded = [numpy(layer_class(0.5)(x, training=True)) for _ in range(2)]
    assert np.any(unseeded[0] != unseeded[1])


@pytest.mark.parametrize("seed", [-1, 2**63, -(2**70) + 3])
def test_the_low_32_bits_of_a_seed_count(seed):
    x = uneven((4, 5, 3))
    layer, same = (KDropout(0.5, seed=s) for s in (seed, seed % 2**32))
    assert layer.get_config()["seed"] == seed
    first, second = (numpy(la(x, training=True)) for la in (layer, same))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_random_state_is_a_variable_and_not_a_weight(layer_class):
    layer = layer_class(0.5, seed=1)
    layer.build((None, 3, 5))
    assert [v.path for v in layer.variables] == [layer.seed_generator.state.path]
    assert layer.weights == []


@pytest.mark.parametrize("layer_class", LAYERS)
def test_masks_of_earlier_layers_pass_through(layer_class):
    x = uneven((4, 5, 3))
    x[:, 3:] = 0.0
    y = layer_class(0.5)(keras.layers.Masking()(x), training=True)
    np.testing.assert_array_equal(y._keras_mask, (x != 0).any(-1))


@pytest.mark.parametrize("rate", [np.float32(0.5), np.float64(0.5), np.int64(1), 1, 0])
def test_numpy_and_integer_rates(rate):
    layer = KDropout(rate)
    assert layer.rate == float(rate)
    assert isinstance(layer.get_config()["rate"], float)


@ON_TENSORFLOW
@pytest.mark.parametrize("layer_class", [KDropout, KGaussianDropout])
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5), (7,), ()])
@pytest.mark.parametrize("options", [{}, {"scale_at": "inference"}])
def test_inputs_of_unknown_rank(layer_class, shape, options):
    import tensorflow as tf

    if layer_class is KGaussianDropout and options:
        pytest.skip("KDropout has the argument.")
    layer, expected = (layer_class(0.4, seed=2, **options) for _ in range(2))

    @tf.function
    def call(x, training):
        x = tf.numpy_function(lambda x: x, [x], tf.float32)
        assert x.shape.rank is None
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        return y, tape.gradient(y, x)

    x = uneven(shape) if len(shape) > 1 else np.full(shape, 3.0, "float32")
    for training in (True, False, True):
        y, dx = call(x, training)
        known = expected(x, training=training)
        assert y.shape == shape
        np.testing.assert_allclose(y, known, rtol=1e-6)
        np.testing.assert_allclose(x * dx, known, rtol=1e-5)


SPARSE = pytest.mark.skipif(BACKEND == "torch", reason="Keras has no sparse ones there")


def sparse(x):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.sparse.from_dense(x)
    from jax.experimental import sparse

    return sparse.BCOO.fromdense(x)


def dense(x):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        assert isinstance(x, tf.SparseTensor)
        return tf.sparse.to_dense(x)
    return x.todense()


@SPARSE
@pytest.mark.parametrize("training", [True, False])
def test_gaussian_dropout_of_sparse_inputs(training):
    x = uneven((6, 5))
    x[np.random.default_rng(0).random(x.shape) < 0.6] = 0.0
    layer, expected = (KGaussianDropout(0.4, seed=2) for _ in range(2))
    y = layer(sparse(x), training=training)
    known = expected(x, training=training)
    np.testing.assert_allclose(dense(y), known, rtol=1e-6)


@SPARSE
@pytest.mark.parametrize("layer_class", [KDropout, KSpatialDropout])
def test_sparse_inputs_that_are_refused(layer_class):
    x = sparse(np.eye(3, dtype="float32"))
    with pytest.raises(TypeError, match=r"`inputs` must be a dense tensor.*a sparse"):
        layer_class(0.5)(x, training=True)


SCHEDULE = keras.optimizers.schedules.CosineDecay(0.5, 9)


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("rate", [0.5, SCHEDULE])
def test_layers_are_built_when_they_are_made(layer_class, rate):
    """As Keras's, which have no weights: Keras's own layer tests ask for it."""
    layer = layer_class(rate)
    assert layer.built
    assert layer.count_params() == isinstance(
        rate, keras.optimizers.schedules.CosineDecay
    )
    layer.build((None, 3, 5))
    assert layer.built

    class WithBuild(layer_class):
        def build(self, input_shape):
            self.extra = self.add_weight(shape=input_shape[-1:])

    layer = WithBuild(rate)
    assert not layer.built
    layer(uneven((4, 3, 5)))
    assert layer.extra.shape == (5,)
