"""One table of the public layers, and what each of them must do in Keras.

It cuts across the layers' files. What takes seconds to compile or to save is done
once, on a model with a branch for each case.
"""

import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasnorm
from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout
from tests.kerasnorm.probes import BACKEND, numpy

if BACKEND != "tensorflow":
    pytest.skip("test_other_backends.py sees the others.", allow_module_level=True)

import tensorflow as tf

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
BATCH_NORMS = [case for case, (kind, _) in CASES.items() if kind is KBatchNorm]


def make(case, **options):
    layer_class, arguments = CASES[case]
    if layer_class is not KBatchNorm:
        options = {"seed": 5, **options}
    return layer_class(**arguments, **options)


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def branches(cases=CASES, **options):
    """Make a model with a branch for each case: its layer and a dense one."""
    inputs = keras.Input(SHAPE[1:])
    outputs = {}
    for case in cases:
        layer = make(case, name=f"{branch(case)}_layer", **options)
        dense = layers.Dense(
            2,
            kernel_initializer=keras.initializers.GlorotUniform(1),
            name=branch(case),
        )
        outputs[branch(case)] = dense(layers.Flatten()(layer(inputs)))
    return keras.Model(inputs, outputs)


def branch(case):
    """Return the name of a case's output."""
    return re.sub(r"\W+", "_", case)


def layer_of(model, case):
    return model.get_layer(f"{branch(case)}_layer")


def trained(model, steps=3):
    """Move every kind of state away from where it starts."""
    for step in range(steps):
        model(X + step, training=True)
    return model


@pytest.fixture(scope="module")
def model():
    """A trained model of all cases, which a test may train further."""
    return trained(branches())


def alike(model, other):
    """Give the other model of the same branches the weights and random state."""
    for variable, source in zip(other.variables, model.variables, strict=True):
        assert variable.shape == source.shape
        variable.assign(source.value)
    return other


def values(model):
    return [numpy(v.value) for v in model.variables]


def assert_same_variables(one, other, **tolerance):
    for first, second in zip(one.variables, other.variables, strict=True):
        np.testing.assert_allclose(
            first.value, second.value, err_msg=first.path, **tolerance
        )


def assert_same_outputs(ours, expected, **tolerance):
    assert ours.keys() == expected.keys()
    for case, y in ours.items():
        np.testing.assert_allclose(y, expected[case], err_msg=case, **tolerance)


def assert_continues_alike(one, other):
    """Equal state now, equal outputs, and equal state again after training."""
    assert_same_variables(one, other, rtol=0)
    for training in (False, True, False):
        outputs = (model(X, training=training) for model in (one, other))
        assert_same_outputs(*outputs, rtol=0)
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


def test_keras_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    assert_continues_alike(model, keras.models.load_model(tmp_path / "model.keras"))


def test_weights_file(model, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    other = branches()
    other.load_weights(tmp_path / "model.weights.h5")
    assert_continues_alike(model, other)


def test_checkpoint(model, tmp_path):
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    other = trained(branches(), steps=1)
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert_continues_alike(model, other)


SERVE = """
import sys
sys.modules["kerasnorm"] = sys.modules["keras"] = None  # importing them fails
import numpy as np
import tensorflow as tf
x = np.load("x.npy")
serve = tf.saved_model.load("model").signatures["serving_default"]
for size in (8, 1, 0):
    np.savez(f"{size}.npz", **serve(tf.constant(x[:size])))
"""


def test_saved_model_without_keras_and_kerasnorm(model, tmp_path):
    """Exported, and loaded where TensorFlow is all that can be imported."""
    np.save(tmp_path / "x.npy", X)
    model.export(tmp_path / "model", verbose=False)
    subprocess.run([sys.executable, "-c", SERVE], cwd=tmp_path, check=True)
    for size in (8, 1, 0):
        with np.load(tmp_path / f"{size}.npz") as served:
            assert_same_outputs(served, model(X[:size]), rtol=1e-5, atol=1e-6)


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


# One case for each piece of code that XLA compiles.
COMPILED_CASES = [
    "batch norm, axes",
    "batch norm, ghost batches",
    "batch renorm",
    "dropout, scaled at inference",
    "dropout, Monte Carlo",
    "dropout, scheduled",
    "spatial dropout, first",
    "gaussian dropout",
]
OTHER_CASES = [case for case in CASES if case not in COMPILED_CASES]


def modes(in_graphs):
    """Run these cases in graphs, and those of `COMPILED_CASES` under XLA."""
    return pytest.mark.parametrize(
        ("cases", "jit_compile"),
        [(in_graphs, False), (COMPILED_CASES, True)],
        ids=["graph", "xla"],
    )


def targets(model, samples=slice(None)):
    return dict.fromkeys(model.output_names, Y[samples])


@modes(OTHER_CASES)
def test_fit_evaluate_and_predict(cases, jit_compile):
    model = branches(cases)
    mse = dict.fromkeys(model.output_names, "mse")
    model.compile(keras.optimizers.SGD(0.01), mse, jit_compile=jit_compile)
    other = alike(model, branches(cases))
    history = model.fit(
        X, targets(model), batch_size=4, epochs=2, shuffle=False, verbose=0
    ).history

    # The same four steps by hand.
    optimizer = keras.optimizers.SGD(0.01)
    losses = []
    for start in (0, 4, 0, 4):
        batch = slice(start, start + 4)
        with tf.GradientTape() as tape:
            outputs = other(X[batch], training=True)
            step = {
                f"{name}_loss": ops.mean(ops.square(y - Y[batch]))
                for name, y in outputs.items()
            }
            step["loss"] = sum(step.values()) + sum(other.losses)
        variables = other.trainable_variables
        optimizer.apply(tape.gradient(step["loss"], variables), variables)
        losses.append(step)
    assert history.keys() == losses[0].keys()
    for name, found in history.items():
        by_hand = np.array([step[name] for step in losses]).reshape(2, 2).mean(1)
        np.testing.assert_allclose(found, by_hand, rtol=1e-3, err_msg=name)
    assert_same_variables(model, other, rtol=1e-3, atol=1e-5)

    alike(model, other)
    kept = [numpy(weight.value) for weight in model.weights]
    predicted = model.predict(X, verbose=0)
    assert_same_outputs(predicted, other(X), rtol=1e-4, atol=1e-5)
    evaluated = model.evaluate(X, targets(model), verbose=0, return_dict=True)
    for name, y in other(X).items():
        mse = np.mean(np.square(y - Y))
        np.testing.assert_allclose(
            evaluated[f"{name}_loss"], mse, rtol=1e-4, err_msg=name
        )
    for weight, value in zip(model.weights, kept, strict=True):
        np.testing.assert_array_equal(numpy(weight.value), value, err_msg=weight.path)


@modes(OTHER_CASES)
def test_training_as_a_tensor(cases, jit_compile):
    """One trace; each value does what the Python value does, eagerly too."""
    model, copy, eager = (branches(cases) for _ in range(3))
    alike(model, copy)
    alike(model, eager)
    traces = []

    def step(model, x, training):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = model(x, training=training)
            loss = sum(ops.sum(ops.square(y - Y)) for y in outputs.values())
        variables = [x, *model.trainable_variables]
        return outputs, tape.gradient(loss, variables)

    @tf.function(jit_compile=jit_compile)
    def compiled(x, training):
        traces.append(training)
        return step(copy, x, training)

    x = tf.constant(X)
    for training in (True, False, True):
        expected, expected_gradients = step(model, x, training)
        for outputs, gradients in (
            compiled(x, tf.constant(training)),
            step(eager, x, tf.constant(training)),
        ):
            assert_same_outputs(outputs, expected, rtol=1e-4, atol=1e-4)
            for one, other in zip(gradients, expected_gradients, strict=True):
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


@pytest.mark.parametrize(
    ("policy", "cases", "jit_compile"),
    [
        ("mixed_float16", COMPILED_CASES, False),
        ("mixed_float16", list(CASES)[::6], True),
        ("mixed_bfloat16", list(CASES)[::6], True),
    ],
)
def test_fit_in_mixed_precision(policy, cases, jit_compile):
    """The layers behind learn, and so does each variable of the layer itself."""
    model = branches(cases, dtype=policy)
    mse = dict.fromkeys(model.output_names, "mse")
    model.compile(keras.optimizers.SGD(0.01), mse, jit_compile=jit_compile)
    before = values(model)
    model.fit(X, targets(model), batch_size=4, verbose=0)
    for variable, one, other in zip(
        model.variables, before, values(model), strict=True
    ):
        assert np.isfinite(other).all(), variable.path
        assert np.any(one != other), variable.path


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


def test_training_with_an_unknown_batch_size(model):
    """The SavedModel above does the same at inference."""
    copy = alike(model, branches())
    trace = tf.function(
        lambda x: copy(x, training=True),
        input_signature=[tf.TensorSpec((None, *SHAPE[1:]))],
    )
    for size in (1, 0):
        y = trace(X[:size])
        assert {tuple(v.shape) for v in y.values()} == {(size, 2)}
        expected = model(X[:size], training=True)
        assert_same_outputs(y, expected, rtol=1e-4, atol=1e-5)
    assert_same_variables(model, copy, rtol=1e-5, atol=1e-6)


def test_frozen(model):
    """Batch norm freezes into inference; dropout has nothing to freeze, as in Keras."""
    copy = alike(model, branches())
    for case in CASES:
        layer, other = layer_of(copy, case), layer_of(model, case)
        layer.trainable = False
        assert layer.trainable_variables == []
        is_batch_norm = isinstance(layer, KBatchNorm)
        np.testing.assert_array_equal(
            layer(X, training=True), other(X, training=not is_batch_norm), err_msg=case
        )


def test_fit_changes_no_frozen_batch_norm():
    model = trained(branches(BATCH_NORMS))
    frozen = [layer_of(model, case) for case in BATCH_NORMS]
    for layer in frozen:
        layer.trainable = False
    mse = dict.fromkeys(model.output_names, "mse")
    model.compile(keras.optimizers.SGD(0.01), mse, jit_compile=False)
    kept = [values(layer) for layer in frozen]
    model.fit(X, targets(model), verbose=0)
    for layer, before in zip(frozen, kept, strict=True):
        assert len(before) >= 3
        for value, after in zip(before, values(layer), strict=True):
            np.testing.assert_array_equal(after, value, err_msg=layer.name)
