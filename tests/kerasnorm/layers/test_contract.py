"""One table of the public layers, and what each of them must do in Keras."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import kerasnorm
from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout

SHAPE = (8, 4, 6)
RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, SHAPE).astype("float32")
Y = RNG.normal(0, 1, (8, 2)).astype("float32")


def decay(first, last):
    return keras.optimizers.schedules.PolynomialDecay(first, 10, last)


CASES = {
    "batch norm": (KBatchNorm, {"momentum": 0.8}),
    "batch norm, axes": (KBatchNorm, {"axis": (1, -1), "scale": False}),
    "batch norm, debiased": (KBatchNorm, {"moving_average": "debiased"}),
    "batch norm, Alg. 2": (
        KBatchNorm,
        {"axis": 1, "moving_average": "cumulative", "bessel_correction": True},
    ),
    "batch norm, arguments": (
        KBatchNorm,
        {
            "center": False,
            "gamma_initializer": keras.initializers.Constant(0.7),
            "gamma_regularizer": keras.regularizers.L2(0.01),
            "gamma_constraint": keras.constraints.NonNeg(),
        },
    ),
    "batch norm, synchronized": (KBatchNorm, {"synchronized": True}),
    "batch norm, ghost batches": (KBatchNorm, {"virtual_batch_size": 3}),
    "batch renorm": (
        KBatchNorm,
        {
            "renorm": True,
            "renorm_clipping": {"rmax": decay(1.0, 3.0), "rmin": 0.5, "dmax": 5.0},
            "renorm_momentum": 0.9,
        },
    ),
    "dropout": (KDropout, {"rate": 0.4}),
    "dropout, all dropped": (KDropout, {"rate": 1.0}),
    "dropout, noise shape": (KDropout, {"rate": 0.4, "noise_shape": (None, 1, None)}),
    "dropout, scaled at inference": (KDropout, {"rate": 0.4, "scale_at": "inference"}),
    "dropout, Monte Carlo": (KDropout, {"rate": 0.4, "monte_carlo": True}),
    "dropout, scheduled": (KDropout, {"rate": decay(0.9, 0.1)}),
    "spatial dropout": (KSpatialDropout, {"rate": 0.4}),
    "spatial dropout, first": (
        KSpatialDropout,
        {"rate": 0.4, "data_format": "channels_first"},
    ),
    "spatial dropout, scheduled": (KSpatialDropout, {"rate": decay(0.9, 0.1)}),
    "gaussian dropout": (KGaussianDropout, {"rate": 0.4}),
    "gaussian dropout, scheduled": (KGaussianDropout, {"rate": decay(0.9, 0.1)}),
}


def make(case, **options):
    layer_class, arguments = CASES[case]
    if layer_class is not KBatchNorm:
        options = {"seed": 5, **options}
    return layer_class(**arguments, **options)


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def model_of(case, **options):
    return keras.Sequential(
        [
            keras.Input(SHAPE[1:]),
            make(case, **options),
            layers.Flatten(),
            layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(1)),
        ]
    )


def trained(model, steps=3):
    """Move every kind of state away from where it starts."""
    for step in range(steps):
        model(X + step, training=True)
    return model


def copy_of(model):
    """The same model with the same weights and random state."""
    clone = keras.models.clone_model(model)
    assign(clone, values(model))
    return clone


def assign(model, arrays):
    for variable, array in zip(model.variables, arrays, strict=True):
        variable.assign(array)


def values(model):
    return [np.array(v.value) for v in model.variables]


def assert_same_variables(one, other, **tolerance):
    for first, second in zip(one.variables, other.variables, strict=True):
        np.testing.assert_allclose(
            first.value, second.value, err_msg=first.path, **tolerance
        )


def assert_continues_alike(one, other):
    """Equal state now, equal outputs, and equal state again after training."""
    assert_same_variables(one, other, rtol=0)
    for training in (False, True, False):
        np.testing.assert_array_equal(
            one(X, training=training), other(X, training=training)
        )
    assert_same_variables(one, other, rtol=0)


def test_every_public_layer_is_in_the_table():
    public = {
        value
        for value in map(kerasnorm.__dict__.get, kerasnorm.__all__)
        if isinstance(value, type) and issubclass(value, keras.Layer)
    }
    assert public == {layer_class for layer_class, _ in CASES.values()}
    assert len(public) == 4  # KBatchNormalization is KBatchNorm


def test_config_round_trip(case):
    layer = make(case, name="layer", dtype="mixed_float16", trainable=False)
    serialized = keras.saving.serialize_keras_object(layer)
    assert serialized["registered_name"] == f"kerasnorm>{type(layer).__name__}"
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(serialized)))
    assert type(copy) is type(layer)
    assert copy.get_config() == layer.get_config()
    assert keras.saving.serialize_keras_object(copy) == serialized
    assert (copy.name, copy.trainable) == ("layer", False)
    assert copy.dtype_policy.name == "mixed_float16"
    copy = type(layer).from_config(layer.get_config())
    assert keras.saving.serialize_keras_object(copy) == serialized


def test_config_names_every_argument(case):
    arguments = CASES[case][1]
    config = make(case).get_config()
    assert set(arguments) <= set(config)
    plain = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in arguments.items()
        if isinstance(value, bool | int | float | str | tuple)
    }
    as_json = json.loads(json.dumps(config, default=str))
    assert {name: as_json[name] for name in plain} == plain


def test_keras_file(case, tmp_path):
    model = trained(model_of(case))
    model.save(tmp_path / "model.keras")
    assert_continues_alike(model, keras.models.load_model(tmp_path / "model.keras"))


def test_weights_file(case, tmp_path):
    model = trained(model_of(case))
    model.save_weights(tmp_path / "model.weights.h5")
    other = model_of(case)
    other.load_weights(tmp_path / "model.weights.h5")
    assert_continues_alike(model, other)


def test_checkpoint(case, tmp_path):
    model = trained(model_of(case))
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    other = trained(model_of(case), steps=1)
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert_continues_alike(model, other)


SERVE = """
import sys
sys.modules["kerasnorm"] = sys.modules["keras"] = None  # importing them fails
from pathlib import Path
import numpy as np
import tensorflow as tf
x = np.load("x.npy")
for path in sorted(Path().glob("case_*")):
    serve = tf.saved_model.load(path).signatures["serving_default"]
    outputs = [serve(tf.constant(x[:size])) for size in (8, 1, 0)]
    np.savez(f"{path}.npz", *[next(iter(o.values())).numpy() for o in outputs])
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Outputs of every case, exported and loaded where only TensorFlow can be."""
    directory = tmp_path_factory.mktemp("served")
    np.save(directory / "x.npy", X)
    expected = {}
    for number, case in enumerate(CASES):
        model = trained(model_of(case))
        model.export(directory / f"case_{number}", verbose=False)
        expected[case] = [model(X[:size]).numpy() for size in (8, 1, 0)]
    subprocess.run([sys.executable, "-c", SERVE], cwd=directory, check=True)
    answers = {}
    for number, case in enumerate(CASES):
        with np.load(directory / f"case_{number}.npz") as outputs:
            answers[case] = list(outputs.values())
    return expected, answers


def test_saved_model_without_keras_and_kerasnorm(case, served):
    expected, answers = served
    for one, other in zip(answers[case], expected[case], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


class Subclassed(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x, training=False):
        return self.layer(x, training=training)


def test_sequential_functional_and_subclassed_models(case):
    sequential = keras.Sequential()
    sequential.add(keras.Input(SHAPE[1:]))
    sequential.add(make(case))
    inputs = keras.Input(SHAPE[1:])
    functional = keras.Model(inputs, make(case)(inputs))
    subclassed = Subclassed(make(case))
    late = keras.Sequential([make(case)])  # built by the first call
    layer = make(case)
    assert sequential.output_shape == functional.output_shape == (None, *SHAPE[1:])
    for training in (True, False):
        expected = layer(X, training=training)
        for model in (sequential, functional, subclassed, late):
            np.testing.assert_array_equal(model(X, training=training), expected)


def test_fit_evaluate_and_predict(case):
    check_fit_evaluate_and_predict(case, jit_compile=False)


@pytest.mark.parametrize(
    "case",
    [
        "batch norm",
        "batch renorm",
        "dropout, scheduled",
        "spatial dropout",
        "gaussian dropout",
    ],
)
def test_fit_evaluate_and_predict_under_xla(case):
    check_fit_evaluate_and_predict(case, jit_compile=True)


def check_fit_evaluate_and_predict(case, jit_compile):
    model = model_of(case)
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=jit_compile)
    before = copy_of(model)
    history = model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0)

    # The same four steps by hand.
    optimizer = keras.optimizers.SGD(0.01)
    losses = []
    for start in (0, 4, 0, 4):
        batch = slice(start, start + 4)
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(before(X[batch], training=True) - Y[batch]))
            loss += sum(before.losses)
        variables = before.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        losses.append(float(loss))
    np.testing.assert_allclose(
        history.history["loss"], np.mean(np.reshape(losses, (2, 2)), 1), rtol=1e-3
    )
    assert_same_variables(model, before, rtol=1e-3, atol=1e-5)

    copy = copy_of(model)
    predicted = model.predict(X, verbose=0)
    np.testing.assert_allclose(predicted, copy(X), rtol=1e-4, atol=1e-5)
    mse = np.mean(np.square(copy(X) - Y)) + sum(copy.losses)
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), mse, rtol=1e-4)


class Everything(keras.Model):
    """Every public layer, one after the other."""

    def __init__(self):
        super().__init__()
        self.all = one_of_each()
        self.flatten, self.dense = layers.Flatten(), layers.Dense(2)

    def call(self, x, training=False):
        for layer in self.all:
            x = layer(x, training=training)
        return self.dense(self.flatten(x))


def one_of_each():
    """The first case of every layer."""
    cases = {layer_class: case for case, (layer_class, _) in reversed(CASES.items())}
    return [make(case) for case in cases.values()]


def functional_everything():
    x = inputs = keras.Input(SHAPE[1:])
    for layer in one_of_each():
        x = layer(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


@pytest.mark.parametrize("make_model", [functional_everything, Everything])
def test_all_layers_in_one_model(make_model):
    """`fit` moves every variable; `evaluate` and `predict` agree and move none."""
    model = make_model()
    model.compile(keras.optimizers.SGD(0.001), "mse")
    model(X)
    before = values(model)
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
    after = values(model)
    assert all(np.isfinite(array).all() for array in after)
    assert all(np.any(one != two) for one, two in zip(before, after, strict=True))
    predicted = model.predict(X, verbose=0)
    np.testing.assert_allclose(predicted, model(X), rtol=1e-4, atol=1e-5)
    mse = np.mean(np.square(predicted - Y))
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), mse, rtol=1e-4)
    for one, other in zip(values(model), after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_train_on_batch_is_a_gradient_tape_loop(case):
    model = model_of(case)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    copy, optimizer = copy_of(model), keras.optimizers.SGD(0.01)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(copy(x, training=True) - y)) + sum(copy.losses)
        variables = copy.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    for _ in range(3):
        np.testing.assert_allclose(model.train_on_batch(X, Y), step(X, Y), rtol=1e-5)
    assert_same_variables(model, copy, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_tf_function(case, jit_compile):
    model = model_of(case)
    copy = copy_of(model)
    call = tf.function(copy, jit_compile=jit_compile)
    for training in (True, True, False):
        np.testing.assert_allclose(
            call(X, training=training),
            model(X, training=training),
            rtol=1e-4,
            atol=1e-5,
        )
    assert_same_variables(model, copy, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_training_as_a_tensor(case, jit_compile):
    """One trace; each value does what the Python value does, eagerly too."""
    model = model_of(case)
    copy, eager = copy_of(model), copy_of(model)
    traces = []

    def step(model, x, training):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=training)
            loss = ops.sum(ops.square(y - Y))
        return y, *tape.gradient(loss, [x, *model.trainable_variables])

    @tf.function(jit_compile=jit_compile)
    def compiled(x, training):
        traces.append(training)
        return step(copy, x, training)

    x = tf.constant(X)
    for training in (True, False, True, True, False):
        expected = step(model, x, training)
        for results in (
            compiled(x, tf.constant(training)),
            step(eager, x, tf.constant(training)),
        ):
            for one, other in zip(results, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        assert_same_variables(model, copy, rtol=1e-5, atol=1e-6)
        assert_same_variables(model, eager, rtol=1e-5, atol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_dtype_policies(case, policy):
    """The float32 layer's outputs and state, but for the rounding of the inputs."""
    layer, reference = make(case, dtype=policy), make(case)
    compute_dtype = layer.dtype_policy.compute_dtype
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(compute_dtype, 1e-6)
    x = ops.cast(X, compute_dtype)
    for training in (True, True, False):
        y = layer(x, training=training)
        assert keras.backend.standardize_dtype(y.dtype) == compute_dtype
        np.testing.assert_allclose(
            ops.cast(y, "float32"),
            reference(ops.cast(x, "float32"), training=training),
            rtol=2 * eps,
            atol=1e-3,
        )
    dtype = "float64" if policy == "float64" else "float32"
    floats = [w.dtype for w in layer.weights if "float" in w.dtype]
    assert set(floats) <= {dtype}
    for one, other in zip(layer.variables, reference.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, err_msg=one.path)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_fit_in_mixed_precision(case, policy):
    model = model_of(case, dtype=policy)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    before = copy_of(model)
    model.fit(X, Y, batch_size=4, verbose=0)
    after = values(model)
    assert all(np.isfinite(array).all() for array in after)
    # The layers behind learn, and so does each variable of the layer itself.
    changed = [
        np.any(one != other) for one, other in zip(after, values(before), strict=True)
    ]
    assert all(changed) or case == "dropout, all dropped"


def test_stateless_call_of_an_array(case):
    """Keras hands it to `call` as it is, which a layer's own call does not."""
    layer, expected = make(case), make(case)
    layer.build(SHAPE)
    y = expected(X, training=True)
    trained = [v.value for v in layer.trainable_variables]
    others = [v.value for v in layer.non_trainable_variables]
    received, after = layer.stateless_call(trained, others, X, training=True)
    np.testing.assert_allclose(received, y, rtol=1e-6, atol=1e-6)
    for value, variable in zip(after, expected.non_trainable_variables, strict=True):
        np.testing.assert_allclose(value, variable, rtol=1e-6, err_msg=variable.path)


def test_unknown_batch_size(case):
    model = model_of(case)
    copy = copy_of(model)
    signature = [tf.TensorSpec((None, *SHAPE[1:]))]
    traces = {
        training: tf.function(
            lambda x, training=training: copy(x, training=training),
            input_signature=signature,
        )
        for training in (True, False)
    }
    for size in (8, 1, 3, 0):
        for training in (True, False):
            expected = model(X[:size], training=training)
            y = traces[training](X[:size])
            assert y.shape == (size, 2)
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert_same_variables(model, copy, rtol=1e-5, atol=1e-6)


def test_frozen(case):
    """Batch norm freezes into inference; dropout has nothing to freeze, as in Keras."""
    model = trained(model_of(case))
    copy = copy_of(model)
    layer = model.layers[0]
    layer.trainable = False
    assert layer.trainable_variables == []
    model.compile(keras.optimizers.SGD(0.01), "mse")
    before = [np.array(w.value) for w in layer.weights if w.name != "steps_seen"]
    frozen = layer(X, training=True)
    is_batch_norm = isinstance(layer, KBatchNorm)
    np.testing.assert_array_equal(frozen, copy.layers[0](X, training=not is_batch_norm))
    model.fit(X, Y, verbose=0)
    after = [np.array(w.value) for w in layer.weights if w.name != "steps_seen"]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
