"""Gradient checkpointing: the second pass is the first one again, and counts nothing.

Independent: the same layers where nothing is computed twice.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasnorm
from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout
from tests.kerasnorm.inputs import uneven
from tests.kerasnorm.probes import BACKEND, gradients, in_mode, numpy

pytestmark = pytest.mark.any_backend

ON_TENSORFLOW = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="tf.recompute_grad is TensorFlow's."
)
SLOWLY = [pytest.mark.slow, ON_TENSORFLOW]
NOT_ON_JAX = pytest.mark.skipif(
    BACKEND == "jax", reason="JAX's way without compiling is slow; `fit` compiles."
)
MODES = [
    pytest.param("eager", marks=NOT_ON_JAX),
    *(pytest.param(mode, marks=SLOWLY) for mode in ("graph", "xla")),
]
X = uneven((8, 5, 3), location=-2.0, dtype="float32")
DY = uneven((8, 5, 6), seed=2, dtype="float32")
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


class Counted(layers.Layer):
    """The identity, which counts its calls, and has a loss."""

    calls = 0

    def call(self, x):
        type(self).calls += 1
        self.add_loss(0.1 * ops.mean(ops.square(x)))
        return x


def schedule():
    return keras.optimizers.schedules.PolynomialDecay(0.6, 3, 0.2)


def stack():
    """Make all layers with state, Keras's own too; the same ones each time."""
    keras.utils.set_random_seed(5)
    return [
        layers.Dense(6, activation="relu"),
        KBatchNorm(momentum=0.8, moving_average="debiased"),
        KSpatialDropout(0.3, seed=1),
        layers.Dropout(0.3, seed=2),
        KBatchNorm(momentum=0.8, renorm=True),
        KDropout(schedule(), seed=3),
        layers.BatchNormalization(momentum=0.8),
        KGaussianDropout(0.2, seed=4),
        Counted(),
    ]


def block():
    return keras.Sequential([keras.Input(X.shape[1:]), *stack()])


def small():
    keras.utils.set_random_seed(5)
    stack = [layers.Dense(6), KBatchNorm(momentum=0.8), KDropout(0.5, seed=1)]
    return keras.Sequential([keras.Input(X.shape[1:]), *stack])


def assert_same_variables(ours, theirs):
    assert len(ours.variables) == len(theirs.variables)
    for one, other in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_allclose(
            numpy(one.value), numpy(other.value), err_msg=one.path, **CLOSE
        )


@pytest.mark.parametrize("mode", MODES)
def test_gradients_and_state_are_those_without_recomputation(mode):
    plain, recomputed = block(), kerasnorm.recompute(block())
    recomputed.build(X.shape)
    for _ in range(2):
        Counted.calls = 0
        found, expected = (
            in_mode(lambda x, dy, la=la: gradients(la, x, dy, training=True), mode)
            if mode == "eager"
            else in_mode(tape_of(la), mode)
            for la in (recomputed, plain)
        )
        for one, other in zip(found(X, DY), expected(X, DY), strict=True):
            np.testing.assert_allclose(numpy(one), numpy(other), **CLOSE)
        assert Counted.calls == 3  # twice, and once without
        assert_same_variables(recomputed, plain)


def tape_of(layer):
    """As `probes.gradients`, to be traced."""
    import tensorflow as tf

    def call(x, dy):
        x, dy = tf.convert_to_tensor(x), tf.convert_to_tensor(dy)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(dy * layer(x, training=True))
        return tape.gradient(loss, [x, *layer.trainable_variables])

    return call


def model_of(make):
    inputs = keras.Input(X.shape[1:])
    outputs = layers.Dense(1, name="head")(layers.Flatten()(make(inputs)))
    model = keras.Model(inputs, outputs)
    head = model.get_layer("head")
    head.kernel.assign(np.linspace(-1, 1, head.kernel.shape[0])[:, None])
    return model


def fit(model, jit_compile):
    model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=jit_compile)
    x = uneven((24, 5, 3), location=-2.0, dtype="float32")
    y = x.mean((1, 2))[:, None]
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return history.history["loss"]


# torch.compile needs a C++ compiler.
JIT_COMPILE = {
    "tensorflow": [False, pytest.param(True, marks=pytest.mark.slow)],
    "jax": [True],
    "torch": [False],
}[BACKEND]


@pytest.mark.parametrize("jit_compile", JIT_COMPILE)
def test_fit(jit_compile):
    """The losses within the block count, too, and once."""
    plain = model_of(block())
    recomputed = model_of(kerasnorm.recompute(block()))
    losses = [fit(model, jit_compile) for model in (recomputed, plain)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert_same_variables(recomputed, plain)
    x = X + 1
    np.testing.assert_allclose(
        recomputed.predict(x, verbose=0), plain.predict(x, verbose=0), **CLOSE
    )


@pytest.mark.skipif(not hasattr(keras, "RematScope"), reason="Keras 3.9 brought it.")
@pytest.mark.parametrize("jit_compile", JIT_COMPILE)
@pytest.mark.parametrize(
    "scope", [{"mode": "full"}, {"mode": "larger_than", "output_size_threshold": 20}]
)
def test_layers_made_in_a_remat_scope(scope, jit_compile):
    def ours():
        return [
            KBatchNorm(momentum=0.8, renorm=True),
            KSpatialDropout(0.3, seed=1),
            KDropout(schedule(), seed=3),
            KGaussianDropout(0.2, seed=4),
        ]

    plain = model_of(keras.Sequential(ours()))
    with keras.RematScope(**scope):
        made = ours()
    recomputed = model_of(keras.Sequential(made))
    losses = [fit(model, jit_compile) for model in (recomputed, plain)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert_same_variables(recomputed, plain)


def test_masks_pass_through():
    x = X.copy()
    x[:, 3:] = 0.0
    norm = KBatchNorm(momentum=0.0)
    layer = kerasnorm.recompute(norm)
    y = layer(layers.Masking()(x), training=True)
    np.testing.assert_allclose(
        numpy(norm.moving_mean.value), x[:, :3].mean((0, 1)), rtol=1e-5
    )
    np.testing.assert_array_equal(numpy(y._keras_mask), (x != 0).any(-1))


def test_training_reaches_layers_that_do_not_take_it():
    """In the second pass nothing is around the layer that would tell."""

    class Own(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dropout = KDropout(0.5, seed=1)

        def call(self, x):
            return self.dropout(x)

    dx, *_ = gradients(kerasnorm.recompute(Own()), X, np.ones_like(X), training=True)
    assert set(dx.ravel().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_dtype_policies(policy, float64):
    kept = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        plain, recomputed = small(), kerasnorm.recompute(small())
        dx, expected = (
            gradients(la, X.astype(la.compute_dtype), DY, training=True)[0]
            for la in (recomputed, plain)
        )
    finally:
        keras.config.set_dtype_policy(kept)
    np.testing.assert_array_equal(dx, expected)
    if BACKEND != "jax":
        assert_same_variables(recomputed, plain)


def test_saved_and_loaded(tmp_path):
    model = model_of(kerasnorm.recompute(keras.Sequential(stack()[:-1]), name="block"))
    model(X, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("block")) is type(model.get_layer("block"))
    np.testing.assert_allclose(numpy(loaded(X)), numpy(model(X)), **CLOSE)


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match=r"`layer` must be a Keras layer.*layer=<"):
        kerasnorm.recompute(ops.relu)


@ON_TENSORFLOW
@pytest.mark.parametrize("layer", [KDropout(0.5), KBatchNorm(), small()])
@pytest.mark.parametrize("traced", [False, True])
def test_tf_recompute_grad_is_not_silently_wrong(layer, traced):
    import tensorflow as tf

    call = tf.recompute_grad(lambda x: layer(x, training=True))

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(x)
        return tape.gradient(y, x)

    layer(X)
    with pytest.raises(RuntimeError, match=r"called again .*`kerasnorm\.recompute`"):
        in_mode(gradient, "graph" if traced else "eager")(tf.constant(X))


@pytest.mark.skipif(BACKEND != "torch", reason="It is PyTorch's.")
@pytest.mark.parametrize("layer", [KDropout(0.5), KBatchNorm()])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_torch_checkpoint_is_not_silently_wrong(layer, use_reentrant):
    from torch.utils.checkpoint import checkpoint

    x = ops.convert_to_tensor(X).requires_grad_()
    y = checkpoint(lambda x: layer(x, training=True), x, use_reentrant=use_reentrant)
    with pytest.raises(RuntimeError, match=r"called again .*`kerasnorm\.recompute`"):
        y.sum().backward()


@pytest.mark.skipif(BACKEND != "jax", reason="It is JAX's.")
def test_jax_checkpoint_of_a_stateless_call():
    import jax

    layer = small()
    trained = [v.value for v in layer.trainable_variables]
    others = [v.value for v in layer.non_trainable_variables]

    def loss(trained, x):
        y, after = layer.stateless_call(trained, others, x, training=True)
        return ops.sum(DY * y), after

    plain, checkpointed = (
        jax.grad(f, argnums=(0, 1), has_aux=True)(trained, X)
        for f in (loss, jax.checkpoint(loss))
    )
    for one, other in zip(*map(jax.tree.leaves, (plain, checkpointed)), strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)
