"""The library on every backend of Keras, against one truth.

Runs under whatever KERAS_BACKEND says (`make test-backends`), in float32: JAX has
nothing wider unless told.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasnorm
from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout
from tests import oracle

BACKEND = keras.backend.backend()
# torch.compile needs a C++ compiler; JAX's way without compiling takes half a minute.
JIT_COMPILE = {"tensorflow": [False, True], "jax": [True], "torch": [False]}[BACKEND]
EPSILON = 0.01
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def uneven(shape, seed=0):
    """Neither constant nor centred, and another distribution in each channel."""
    channel = np.arange(1, shape[-1] + 1)
    x = channel * np.random.default_rng(seed).normal(1, 2, shape)
    return x.astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor).copy()


def randomised(layer, shape):
    """The layer, built, none of its weights at their usual initial values."""
    layer.build(shape)
    rng = np.random.default_rng(9)
    for weight in layer.weights:
        if not weight.name.endswith("weight"):
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return layer


def state(layer):
    return {weight.name: numpy(weight.value) for weight in layer.weights}


def gradients(layer, x, dy, **arguments):
    """Of sum(dy * layer(x)) for x and the trainable weights, by the backend's means."""
    trainable = [weight.value for weight in layer.trainable_variables]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(dy * layer(x, training=True, **arguments))
        found = tape.gradient(loss, [x, *trainable])
    elif BACKEND == "jax":
        import jax

        fixed = [weight.value for weight in layer.non_trainable_variables]

        def loss(x, trainable):
            y, _ = layer.stateless_call(trainable, fixed, x, training=True, **arguments)
            return ops.sum(dy * y)

        of_x, of_weights = jax.grad(loss, argnums=(0, 1))(x, trainable)
        found = [of_x, *of_weights]
    else:
        x = ops.convert_to_tensor(x).requires_grad_()
        y = layer(x, training=True, **arguments)
        (ops.convert_to_tensor(dy) * y).sum().backward()
        found = [x.grad, *(value.grad for value in trainable)]
    return [numpy(gradient) for gradient in found]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("bessel", [False, True])
@pytest.mark.parametrize("average", ["exponential", "debiased", "cumulative"])
def test_batch_norm_and_its_moving_statistics(average, bessel, masked):
    layer = KBatchNorm(
        momentum=0.8,
        epsilon=EPSILON,
        moving_average=average,
        bessel_correction=bessel,
    )
    initial = state(randomised(layer, (None, 5, 3)))
    gamma_beta = initial["gamma"], initial["beta"]
    counts, means, variances, degrees = [], [], [], []
    for step, samples in enumerate((6, 4, 7)):
        x = uneven((samples, 5, 3), step)
        mask = np.random.default_rng(step).random((samples, 5)) < 0.7
        mask = mask if masked else None
        wide = None if mask is None else mask[..., None]
        expected = oracle.batch_norm(x, (0, 1), *gamma_beta, EPSILON, wide)
        y = layer(x, training=True, mask=mask)
        np.testing.assert_allclose(numpy(y), expected, **CLOSE)
        count, mean, variance = oracle.moments(x, (0, 1), wide)
        counts.append(count)
        degrees.append(count - 1 if bessel else count)
        means.append(mean)
        unbiased = oracle.unbiased_variance(count, variance)
        variances.append(unbiased if bessel else variance)

    def moving(name, batches, weights):
        if average == "exponential":
            return oracle.exponential_average(initial[name], batches, 0.8)
        momentum = 0.8 if average == "debiased" else 1.0
        return oracle.debiased_average(batches, weights, momentum)

    mean = moving("moving_mean", means, counts)
    variance = moving("moving_variance", variances, degrees)
    np.testing.assert_allclose(state(layer)["moving_mean"], mean, **CLOSE)
    np.testing.assert_allclose(state(layer)["moving_variance"], variance, **CLOSE)
    expected = oracle.normalize(x, (0, 1), mean, variance, *gamma_beta, EPSILON)
    np.testing.assert_allclose(numpy(layer(x, training=False)), expected, **CLOSE)


def test_renorm():
    bounds = {"rmin": 0.7, "rmax": 1.5, "dmax": 0.4}
    layer = KBatchNorm(
        epsilon=EPSILON, renorm=True, renorm_clipping=bounds, renorm_momentum=0.6
    )
    before = state(randomised(layer, (None, 3)))
    x = uneven((20, 3))
    _, mean, variance = oracle.moments(x, (0,))
    stddev = np.sqrt(variance + EPSILON)
    r, d = oracle.renorm_correction(
        mean, stddev, before["renorm_mean"], before["renorm_stddev"], **bounds
    )
    expected = oracle.batch_renorm(
        x, (0,), before["gamma"], before["beta"], EPSILON, r, d
    )
    np.testing.assert_allclose(numpy(layer(x, training=True)), expected, **CLOSE)
    for name, batch in (("renorm_mean", mean), ("renorm_stddev", stddev)):
        average = oracle.exponential_average(before[name], [batch], 0.6)
        np.testing.assert_allclose(state(layer)[name], average, **CLOSE)


def test_ghost_batches():
    layer = KBatchNorm(momentum=0.5, epsilon=EPSILON, virtual_batch_size=4)
    before = state(randomised(layer, (None, 3)))
    x = uneven((10, 3))
    gamma_beta = before["gamma"], before["beta"]
    expected = [
        oracle.batch_norm(part, (0,), *gamma_beta, EPSILON)
        for part in (x[:4], x[4:8], x[8:])
    ]
    y = numpy(layer(x, training=True))
    np.testing.assert_allclose(y, np.concatenate(expected), **CLOSE)
    _, *pooled = oracle.moments(x, (0,))
    for name, batch in zip(("moving_mean", "moving_variance"), pooled, strict=True):
        average = oracle.exponential_average(before[name], [batch], 0.5)
        np.testing.assert_allclose(state(layer)[name], average, **CLOSE)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ghosts", [False, True])
def test_gradients(ghosts, masked):
    size = 4 if ghosts else None
    layer = KBatchNorm(epsilon=EPSILON, virtual_batch_size=size)
    gamma = state(randomised(layer, (None, 5, 3)))["gamma"]
    x, dy = uneven((8, 5, 3)), uneven((8, 5, 3), 1)
    mask = np.random.default_rng(2).random((8, 5)) < 0.7 if masked else None
    parts = [
        oracle.batch_norm_gradients(
            *(dy[part], x[part], (0, 1), gamma, EPSILON),
            mask[part][..., None] if masked else None,
        )
        for part in ([slice(4), slice(4, 8)] if ghosts else [slice(8)])
    ]
    dx, dgamma, dbeta = gradients(layer, x, dy, mask=mask)
    expected = np.concatenate([part.x for part in parts])
    np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-4)
    expected = sum(part.gamma for part in parts)
    np.testing.assert_allclose(dgamma, expected, rtol=1e-4, atol=1e-3)
    expected = sum(part.beta for part in parts)
    np.testing.assert_allclose(dbeta, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1, 2**31 + 5, 2**40 + 3])
def test_every_backend_draws_the_same(seed):
    dropout, maps, noise = (
        layer(0.3, seed=seed) for layer in (KDropout, KSpatialDropout, KGaussianDropout)
    )
    for draw in range(2):
        x = uneven((5, 4, 3), draw)
        mask = oracle.keep_mask(x.shape, 0.3, (seed, draw))
        expected = oracle.inverted_dropout(x, mask, 0.3)
        y = numpy(dropout(x, training=True))
        np.testing.assert_array_equal(y != 0, mask)
        np.testing.assert_allclose(y, expected, rtol=3e-7)
        mask = oracle.keep_mask((5, 1, 3), 0.3, (seed, draw))
        y = numpy(maps(x, training=True))
        np.testing.assert_array_equal(y != 0, np.broadcast_to(mask, x.shape))
        expected = x * oracle.gaussian_noise(x.shape, 0.3, (seed, draw))
        y = numpy(noise(x, training=True))
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-3)


def test_dropout_passes_its_mask_to_the_gradient():
    x, dy = uneven((6, 5)), uneven((6, 5), 1)
    (dx,) = gradients(randomised(KDropout(0.3, seed=4), x.shape), x, dy)
    mask = oracle.keep_mask(x.shape, 0.3, (4, 0))
    np.testing.assert_allclose(dx, oracle.inverted_dropout(dy, mask, 0.3), rtol=3e-7)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has replicas.")
def test_synchronized_is_refused():
    with pytest.raises(ValueError, match=rf"False on the {BACKEND} .*=True.*tf\.distr"):
        KBatchNorm(synchronized=True)


def network():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, name="conv"),
            KBatchNorm(momentum=0.8, moving_average="debiased", name="norm"),
            layers.ReLU(),
            KSpatialDropout(0.1, seed=1),
            layers.Flatten(),
            KGaussianDropout(0.1, seed=2),
            layers.Dense(8, activation="relu"),
            KBatchNorm(momentum=0.8, renorm=True),
            KDropout(keras.optimizers.schedules.PolynomialDecay(0.3, 20, 0.1), seed=3),
            layers.Dense(1),
        ]
    )


X = uneven((40, 6, 6, 2))
Y = X.mean(axis=(1, 2)) @ np.array([[1.0], [-0.5]], "float32")


@pytest.mark.parametrize("jit_compile", JIT_COMPILE)
def test_training_saving_and_going_on(jit_compile, tmp_path):
    model = network()
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=jit_compile)
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    losses = model.fit(X, Y, epochs=8, **fit).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    predicted = model.predict(X, verbose=0)
    np.testing.assert_allclose(predicted, numpy(model(X, training=False)), **CLOSE)

    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    whole = keras.saving.load_model(tmp_path / "model.keras")
    weights = network()
    weights.load_weights(tmp_path / "model.weights.h5")
    for loaded in (whole, weights):
        np.testing.assert_allclose(loaded.predict(X, verbose=0), predicted, **CLOSE)
        seeds = [la.seed_generator.state for la in loaded.layers if hasattr(la, "rate")]
        assert [numpy(s.value).tolist() for s in seeds] == [[1, 24], [2, 24], [3, 24]]
    model.fit(X, Y, epochs=2, **fit)
    whole.fit(X, Y, epochs=2, **fit)
    for ours, theirs in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_convert_and_fold():
    keras.utils.set_random_seed(3)
    theirs = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(momentum=0.8),
            layers.ReLU(),
            layers.SpatialDropout2D(0.1),
            layers.BatchNormalization(momentum=0.8, axis=1),
            layers.Flatten(),
            layers.GaussianDropout(0.1),
            layers.Dropout(0.2),
            layers.Dense(1),
        ]
    )
    theirs.compile(keras.optimizers.Adam(0.02), "mse")
    theirs.fit(X, Y, epochs=2, batch_size=16, verbose=0)
    expected = theirs.predict(X, verbose=0)
    assert expected.std() > 0.1
    ours = kerasnorm.convert(theirs)
    for model in (ours, kerasnorm.convert(ours, to="keras"), kerasnorm.fold(ours)):
        np.testing.assert_allclose(model.predict(X, verbose=0), expected, **CLOSE)
    ours.fit(X, Y, batch_size=16, verbose=0)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations) + 3
    # It shares nothing with the original, which trains on too.
    np.testing.assert_array_equal(theirs.predict(X, verbose=0), expected)
    theirs.fit(X, Y, batch_size=16, verbose=0)


def test_recalibrate():
    model = network()
    model.compile("sgd", "mse")
    kerasnorm.recalibrate(model, X, verbose=0)
    inputs = numpy(model.get_layer("conv")(X))
    _, mean, variance = oracle.moments(inputs, (0, 1, 2))
    found = state(model.get_layer("norm"))
    np.testing.assert_allclose(found["moving_mean"], mean, **CLOSE)
    np.testing.assert_allclose(found["moving_variance"], variance, **CLOSE)
    before = model.get_layer("norm").get_weights()
    model.fit(X, Y, verbose=0)
    assert not np.array_equal(model.get_layer("norm").get_weights()[2], before[2])


def test_monte_carlo_draws_the_same_on_every_backend():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4), KBatchNorm(), KDropout(0.4)]
    )
    x = uneven((3, 5))
    prediction = kerasnorm.monte_carlo(model, x, samples=6, seed=11)
    (batch_seed,) = oracle.random_words(1, (11, 0)).tolist()
    y = numpy(model(x, training=False))
    draws = []
    for sample in range(6):
        (word,) = oracle.random_words(1, (batch_seed, sample)).tolist()
        mask = oracle.keep_mask(y.shape, 0.4, (word & 0x7FFFFFFF, 0))
        draws.append(oracle.inverted_dropout(y, mask, 0.4))
    np.testing.assert_allclose(prediction.mean, np.mean(draws, 0), **CLOSE)
    np.testing.assert_allclose(prediction.variance, np.var(draws, 0), **CLOSE)
