"""Replicas of `tf.distribute`: their statistics together, their masks apart."""

import itertools

import keras
import numpy as np
import pytest

from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout
from tests import oracle
from tests.kerasnorm.probes import BACKEND, KERAS

if BACKEND != "tensorflow":
    pytest.skip("Only TensorFlow has replicas.", allow_module_level=True)

import tensorflow as tf

from tests.kerasnorm.replicas import (
    RATE,
    Replicas,
    draw_on_replicas,
    fit_on_replicas,
    free_addresses,
    start_devices,
    start_worker,
    train,
    train_on_replicas,
)

EPSILON = 1e-3
SIZES = {2: [(5, 3), (0, 6)], 4: [(2, 2, 2, 2), (5, 0, 3, 1)]}


@pytest.fixture(scope="module")
def devices():
    made = Replicas(4, [(start_devices, 4)])
    yield made
    made.close()


@pytest.fixture(scope="module")
def processes():
    addresses = free_addresses(2)
    made = Replicas(2, [(start_worker, addresses, index) for index in range(2)])
    yield made
    made.close()


@pytest.fixture
def replicas(request):
    return request.getfixturevalue(request.param)


def batches(number, mask_shape=None, location=3.0, dtype="float64"):
    """Return steps of x, dL/dy and a mask, split unevenly over the replicas."""
    rng = np.random.default_rng(0)
    steps = []
    for sizes in SIZES[number]:
        shapes = [(size, 4, 3) for size in sizes]
        # Another distribution at each index and on each replica.
        spread = rng.uniform(0.5, 2, (number, 1, 1, 3))
        xs = [
            location * (1 + 0.5 * replica) + scale * rng.standard_normal(shape)
            for replica, (shape, scale) in enumerate(zip(shapes, spread, strict=True))
        ]
        step = [xs, [rng.standard_normal(shape) for shape in shapes]]
        step = [[part.astype(dtype) for part in parts] for parts in step]
        if mask_shape is not None:
            step.append([rng.random((n, *mask_shape)) < 0.6 for n in sizes])
        steps.append(step)
    return steps


def whole(steps):
    """Return the same steps for one device."""
    return [[[np.concatenate(parts)] for parts in step] for step in steps]


def config_of(layer):
    return keras.saving.serialize_keras_object(layer)


def batch_norm(**options):
    return config_of(
        KBatchNorm(
            momentum=0.9,
            epsilon=EPSILON,
            gamma_initializer=keras.initializers.RandomUniform(0.5, 2, seed=1),
            beta_initializer=keras.initializers.RandomNormal(seed=2),
            **{"dtype": "float64", **options},
        )
    )


CASES = {
    "plain": ({}, None),
    "masked samples": ({}, (4, 1)),
    "axis 1, masked elements": ({"axis": 1}, (4, 3)),
    "Alg. 2": ({"moving_average": "cumulative", "bessel_correction": True}, None),
    "debiased, masked elements": ({"moving_average": "debiased"}, (4, 3)),
    "renorm, masked samples": (
        {
            "renorm": True,
            "renorm_clipping": {
                "rmax": keras.optimizers.schedules.PolynomialDecay(1.0, 3, 3.0),
                "dmax": 0.5,
            },
        },
        (4, 1),
    ),
}
ON_DEVICES = pytest.mark.parametrize("replicas", ["devices"], indirect=True)


def cases(on_devices, on_processes):
    """Run the named cases; processes need one, as they only reduce in another way."""
    return pytest.mark.parametrize(
        ("replicas", "options", "mask_shape"),
        [
            pytest.param(kind, *CASES[case], id=f"{kind}-{case}")
            for kind, names in (("devices", on_devices), ("processes", on_processes))
            for case in names
        ],
        indirect=["replicas"],
    )


def on_one_device(config, steps):
    (result,) = train(tf.distribute.get_strategy(), config, whole(steps))
    return result


def assert_same_weights(results, expected, **tolerance):
    """Expect the same weights on every replica, bit by bit, and those of one device."""
    copies = [weights for *_, weights in results]
    for name, value in expected.items():
        np.testing.assert_allclose(copies[0][name], value, err_msg=name, **tolerance)
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy[name], copies[0][name], err_msg=name)


@cases(list(CASES), ["renorm, masked samples"])
def test_synchronized_replicas_are_one_device_with_the_whole_batch(
    replicas, options, mask_shape
):
    """Outputs, gradients and state, with uneven and empty batches."""
    steps = batches(replicas.number, mask_shape)
    config = batch_norm(synchronized=True, **options)
    results = replicas.call(train_on_replicas, config, steps)
    y, dx, weights = on_one_device(batch_norm(**options), steps)
    ys, dxs, _ = zip(*results, strict=True)
    np.testing.assert_allclose(np.concatenate(ys), y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.concatenate(dxs), dx, rtol=1e-12, atol=1e-12)
    # gamma and beta have gone a step along the sum of the replicas' gradients.
    assert_same_weights(results, weights, rtol=1e-12, atol=1e-12)


def parameters(config):
    """Return gamma and beta before the first step."""
    layer = keras.saving.deserialize_keras_object(config)
    layer.build((None, 4, 3))
    return np.array(layer.gamma.value), np.array(layer.beta.value)


@pytest.mark.parametrize(
    ("replicas", "mask_shape"),
    [("devices", (4, 3)), ("processes", None)],
    indirect=["replicas"],
)
def test_synchronized_gradients_are_those_of_the_oracle(replicas, mask_shape):
    steps = batches(replicas.number, mask_shape)[-1:]
    config = batch_norm(synchronized=True)
    results = replicas.call(train_on_replicas, config, steps, True)
    ((x,), (dy,), *masks) = whole(steps)[0]
    mask = masks[0][0] if masks else None
    gamma, beta = parameters(config)

    ys, dxs, weights = zip(*results, strict=True)
    expected = oracle.batch_norm(x, (0, 1), gamma, beta, EPSILON, mask)
    np.testing.assert_allclose(np.concatenate(ys), expected, rtol=1e-12, atol=1e-12)
    expected = oracle.batch_norm_gradients(dy, x, (0, 1), gamma, EPSILON, mask)
    np.testing.assert_allclose(np.concatenate(dxs), expected.x, rtol=1e-11, atol=1e-12)
    for weight in weights:
        np.testing.assert_allclose(weight["gamma"], gamma - RATE * expected.gamma)
        np.testing.assert_allclose(weight["beta"], beta - RATE * expected.beta)


@cases(
    ["axis 1, masked elements", "Alg. 2", "renorm, masked samples"],
    ["debiased, masked elements"],
)
def test_replicas_that_are_not_synchronized_share_the_moving_statistics(
    replicas, options, mask_shape
):
    """Those of all batches as one, though each replica normalizes its own."""
    steps = batches(replicas.number, mask_shape)
    config = batch_norm(**options)
    results = replicas.call(train_on_replicas, config, steps)
    *_, weights = on_one_device(config, steps)
    # The sums of the replicas' own gradients have moved these.
    del weights["gamma"], weights["beta"]
    assert_same_weights(results, weights, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("replicas", "options", "mask_shape"),
    [
        ("devices", {}, (4, 3)),
        ("devices", {"virtual_batch_size": 10}, None),
        ("processes", {}, None),
    ],
    indirect=["replicas"],
)
def test_replicas_that_are_not_synchronized_normalize_their_own_batches(
    replicas, options, mask_shape
):
    """So do ghost batches, synchronized or not; these are as large as the batch."""
    steps = batches(replicas.number, mask_shape)[-1:]
    config = batch_norm(synchronized=bool(options), **options)
    results = replicas.call(train_on_replicas, config, steps, True)
    gamma, beta = parameters(config)
    for x, dy, *masks, (y, dx, _) in zip(*steps[0], results, strict=True):
        mask = masks[0] if masks else None
        expected = oracle.batch_norm(x, (0, 1), gamma, beta, EPSILON, mask)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
        expected = oracle.batch_norm_gradients(dy, x, (0, 1), gamma, EPSILON, mask)
        np.testing.assert_allclose(dx, expected.x, rtol=1e-11, atol=1e-12)

    (xs,), _, *masks = whole(steps)[0]
    pooled = oracle.moments(xs, (0, 1), *(mask for (mask,) in masks))
    for *_, weights in results:
        np.testing.assert_allclose(weights["moving_mean"], 0.1 * pooled.mean)
        variance = 0.9 + 0.1 * pooled.variance
        np.testing.assert_allclose(weights["moving_variance"], variance)


@ON_DEVICES
def test_a_large_mean_costs_synchronized_replicas_no_digits(replicas):
    """They cost the built-in layer's variance, E[x^2] - E[x]^2, more than a half."""
    rng = np.random.default_rng(0)
    xs = rng.normal(1e4, 1, (replicas.number, 16, 4, 3)).astype("float32")
    dys = rng.standard_normal(xs.shape).astype("float32")
    steps = [[list(xs), list(dys)]]
    options = {"momentum": 0.0, "epsilon": EPSILON, "synchronized": True}
    truth = oracle.moments(xs, (0, 1, 2))
    builtin = replicas.call(
        train_on_replicas,
        config_of(keras.layers.BatchNormalization(**options)),
        steps,
    )
    off = np.abs(builtin[0][2]["moving_variance"] - truth.variance)
    assert np.max(off / truth.variance) > 0.5

    results = replicas.call(train_on_replicas, config_of(KBatchNorm(**options)), steps)
    ys, dxs, weights = zip(*results, strict=True)
    for weight in weights:
        np.testing.assert_allclose(weight["moving_mean"], truth.mean, rtol=1e-7)
        np.testing.assert_allclose(weight["moving_variance"], truth.variance, rtol=1e-6)
    expected = oracle.batch_norm(xs, (0, 1, 2), np.ones(3), np.zeros(3), EPSILON)
    # Normalized with a float32 mean, whose spacing is 0.001, they would be off by 4e-4.
    np.testing.assert_allclose(np.stack(ys), expected, atol=1e-5)
    dx = oracle.batch_norm_gradients(dys, xs, (0, 1, 2), np.ones(3), EPSILON).x
    np.testing.assert_allclose(np.stack(dxs), dx, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_large_mean_costs_one_replica_no_digits(compiled):
    rng = np.random.default_rng(0)
    x = rng.normal(1e4, 1, (64, 4, 3)).astype("float32")
    steps = [[[x], [np.ones_like(x)]]]
    config = config_of(KBatchNorm(epsilon=EPSILON, synchronized=True))
    ((y, *_),) = train(tf.distribute.get_strategy(), config, steps, compiled)
    expected = oracle.batch_norm(x, (0, 1), np.ones(3), np.zeros(3), EPSILON)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@ON_DEVICES
def test_masks_and_synchronized_replicas_together(replicas):
    """With a mask the built-in layer is not synchronized and says nothing."""
    steps = batches(replicas.number, (4, 1), dtype="float32")[:1]
    # Keras's masks lack the last axis.
    steps[0][2] = [mask[..., 0] for mask in steps[0][2]]
    xs, _, masks = steps[0]
    ones, zeros = np.ones(3), np.zeros(3)
    options = {"epsilon": EPSILON, "synchronized": True}
    builtin = replicas.call(
        train_on_replicas,
        config_of(keras.layers.BatchNormalization(**options)),
        steps,
    )
    for x, mask, (y, *_) in zip(xs, masks, builtin, strict=True):
        own = oracle.batch_norm(x, (0, 1), ones, zeros, EPSILON, mask[..., None])
        np.testing.assert_allclose(y, own, atol=1e-4)

    results = replicas.call(train_on_replicas, config_of(KBatchNorm(**options)), steps)
    together = oracle.batch_norm(
        np.concatenate(xs),
        (0, 1),
        ones,
        zeros,
        EPSILON,
        np.concatenate(masks)[..., None],
    )
    y = np.concatenate([y for y, *_ in results])
    np.testing.assert_allclose(y, together, atol=1e-4)


def draws_of(replicas, layer, shape):
    first, second, states = zip(
        *replicas.call(draw_on_replicas, config_of(layer), shape), strict=True
    )
    for state in states:
        np.testing.assert_array_equal(state, [layer.seed, 2])
    return np.stack([*first, *second])


@pytest.mark.parametrize(
    ("replicas", "layer_class", "builtin_class"),
    [
        ("devices", KDropout, keras.layers.Dropout),
        ("devices", KSpatialDropout, keras.layers.SpatialDropout1D),
        ("devices", KGaussianDropout, keras.layers.GaussianDropout),
        ("processes", KDropout, keras.layers.Dropout),
    ],
    indirect=["replicas"],
)
def test_replicas_draw_noise_of_their_own_and_the_same_on_every_run(
    replicas, layer_class, builtin_class
):
    """All draws of the built-in layers are equal on all replicas."""
    shape, number = (500, 1, 20), replicas.number
    builtin = replicas.call(
        draw_on_replicas, config_of(builtin_class(0.5, seed=3)), shape
    )
    for first, *_ in builtin[1:]:
        np.testing.assert_array_equal(first, builtin[0][0])

    draws = draws_of(replicas, layer_class(0.5, seed=3), shape)
    assert len(draws) == 2 * number
    again = draws_of(replicas, layer_class(0.5, seed=3), shape)
    np.testing.assert_array_equal(draws, again)
    # Independent noise has a correlation of standard deviation 1 / sqrt(10,000);
    # beyond 6 of them is one pair in 5e8.
    correlations = np.corrcoef(draws.reshape(2 * number, -1))
    apart = correlations[~np.eye(2 * number, dtype=bool)]
    assert np.abs(apart).max() < 6 / np.sqrt(10_000)
    other = draws_of(replicas, layer_class(0.5, seed=4), shape)
    assert all(np.any(one != two) for one, two in itertools.product(draws, other))


def test_saved_statistics_are_those_of_all_replicas(devices, tmp_path):
    """Where the built-in layer saves those of the first: means of 0, 10, 20..."""
    rng = np.random.default_rng(0)
    replica = np.arange(devices.number).repeat(2)
    x = rng.normal(10 * replica[:, None], 1, (2 * devices.number, 1))
    x = x.astype("float32")
    options = {"momentum": 0.0, "center": False, "scale": False}
    inputs = keras.Input((1,))
    both = [
        keras.layers.BatchNormalization(name="builtin", **options)(inputs),
        KBatchNorm(name="ours", **options)(inputs),
    ]
    model = keras.Model(inputs, keras.layers.Concatenate()(both))
    path = str(tmp_path / "model.keras")
    y = np.zeros((len(x), 2), "float32")
    devices.call_one(fit_on_replicas, config_of(model), x, y, len(x), path)
    loaded = keras.models.load_model(path)

    def saved(name):
        layer = loaded.get_layer(name)
        return [float(value[0]) for value in (layer.moving_mean, layer.moving_variance)]

    first = [x[:2].mean(), x[:2].var()]
    np.testing.assert_allclose(saved("builtin"), first, rtol=1e-4)
    np.testing.assert_allclose(saved("ours"), [x.mean(), x.var()], rtol=1e-4)


def regression(samples):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (samples, 5)).astype("float32")
    y = (x @ rng.normal(0, 0.3, (5, 1))).astype("float32")
    return x, y


def model_config(rate, *synchronized):
    """Configure a model with a batch norm layer for each of `synchronized`."""

    def dense(units, seed):
        initializer = keras.initializers.GlorotUniform(seed)
        return keras.layers.Dense(units, kernel_initializer=initializer)

    model = keras.Sequential([keras.Input((5,))])
    for number, together in enumerate(synchronized):
        model.add(dense(16, number))
        model.add(KBatchNorm(momentum=0.5, synchronized=together))
        model.add(keras.layers.Activation("relu"))
        model.add(KDropout(rate, seed=number))
    model.add(dense(1, len(synchronized)))
    return config_of(model)


@pytest.mark.skipif(
    KERAS < (3, 12),
    reason="On replicas `fit` of Keras 3.8 reports other losses than on one device.",
)
def test_fit_of_synchronized_replicas_is_fit_on_one_device(devices, tmp_path):
    x, y = regression(32)
    config = model_config(0.0, True)
    losses, weights = devices.call_one(
        fit_on_replicas, config, x, y, 16, str(tmp_path / "model.keras")
    )
    one = keras.saving.deserialize_keras_object(config)
    one.compile(keras.optimizers.SGD(0.1), "mse")
    history = one.fit(x, y, 16, epochs=3, shuffle=False, verbose=0)
    np.testing.assert_allclose(losses, history.history["loss"], rtol=1e-4)
    for own in weights:
        for weight, value in zip(one.weights, own, strict=True):
            np.testing.assert_allclose(
                value, weight, rtol=1e-3, atol=1e-5, err_msg=weight.path
            )


def test_fit_with_dropout_and_uneven_batches(devices, tmp_path):
    """It learns, alike on all replicas, and the file has what they have learnt."""
    x, y = regression(21)  # of the last batch of 5 one replica of 4 has nothing
    config = model_config(0.2, True, False)
    path = str(tmp_path / "model.keras")
    losses, weights = devices.call_one(fit_on_replicas, config, x, y, 16, path)
    assert losses[-1] < losses[0]
    for arrays in zip(*weights, strict=True):
        assert np.isfinite(arrays[0]).all()
        for array in arrays[1:]:
            np.testing.assert_array_equal(array, arrays[0])
    loaded = keras.models.load_model(path)
    for weight, value in zip(loaded.weights, weights[0], strict=True):
        np.testing.assert_array_equal(weight, value)
