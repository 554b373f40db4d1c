"""`convert` of compiled models: each weight and slot goes to its own counterpart."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import kerasnorm
from kerasnorm._keras import trained_variables

RNG = np.random.default_rng(0)
X = RNG.normal(1, 2, (32, 8)).astype("float32")
Y = X[:, :2]
OPTIMIZERS = {
    "adam": lambda: keras.optimizers.AdamW(0.01, amsgrad=True),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "factored": lambda: keras.optimizers.Adafactor(0.01),
    "averages": lambda: keras.optimizers.Adam(0.01, use_ema=True),
    "accumulators": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}
if hasattr(keras.optimizers, "MultiOptimizer"):  # an older Keras has none
    OPTIMIZERS["several"] = lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.Adam(0.01),
            {"net/first/.*": keras.optimizers.SGD(0.01, 0.9)},
        )
    )


def fit(model):
    model.fit(X, Y, batch_size=16, verbose=0, shuffle=False)


def trained(optimizer="adam"):
    """Return a model and slots of random values; a slot's path tells whose it is."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.2, name="drop"),
            layers.Dense(2, name="last"),
        ],
        name="net",
    )
    model.compile(OPTIMIZERS[optimizer](), "mse", run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.path and "scale" not in variable.path:
            whole = "int" in keras.backend.standardize_dtype(variable.dtype)
            values = RNG.uniform(0.01, 0.1, variable.shape)
            variable.assign(4 if whole else values)
    return model


def weights(model):
    """Return the values by path."""
    return {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}


def converted(model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = kerasnorm.convert(model)
    remarks = [str(w.message) for w in caught if w.category is UserWarning]
    # Keras says of every lambda that it serializes that this is unsafe.
    remarks = [remark for remark in remarks if "`lambda`" not in remark]
    assert all("\n" not in remark for remark in remarks)
    return ours, remarks


def quantize(model, mode):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Layer .* does not have a `quantize`")
        try:
            model.quantize(mode)
        except ValueError as error:
            if "Invalid quantization mode" not in str(error):
                raise
            pytest.skip(f"Keras {keras.__version__} does not know {mode}")


def assert_weights_are_equal(ours, theirs):
    assert weights(ours).keys() == weights(theirs).keys()
    for path, value in weights(theirs).items():
        np.testing.assert_array_equal(weights(ours)[path], value, err_msg=path)


def slots_of(model, layer):
    """Return the optimizer's variables for a layer by path, without its own name.

    But for those of float8's scales, which Keras before 3.9 makes and does not use.
    """
    slots = {
        v.path.rpartition("/")[2].removeprefix("net_"): keras.ops.convert_to_numpy(v)
        for v in model.optimizer.variables
    }
    return {
        path: value
        for path, value in slots.items()
        if path.startswith(layer) and "_scale_" not in path and "_amax_" not in path
    }


def assert_slots_are_equal(ours, theirs, layer):
    expected = slots_of(theirs, layer)
    assert slots_of(ours, layer).keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(slots_of(ours, layer)[path], value, err_msg=path)


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantized_after_training(mode):
    model = trained("adam")
    quantize(model, mode)
    ours, remarks = converted(model)
    assert_weights_are_equal(ours, model)
    np.testing.assert_allclose(ours(X), model(X), atol=1e-5)
    for bias in ("first_bias", "last_bias", "norm_gamma", "norm_beta"):
        assert np.abs(slots_of(model, bias)[f"{bias}_momentum"]).max() > 0
        assert_slots_are_equal(ours, model, bias)
    if mode == "float8":
        assert not remarks
        assert_slots_are_equal(ours, model, "first_kernel")
    else:
        (remark,) = remarks
        assert "Those of 'net/first/kernel', 'net/last/kernel' are dropped" in remark
        assert not slots_of(ours, "first_kernel")
    steps = int(model.optimizer.iterations)
    ours.run_eagerly = mode != "float8"  # whose gradient Keras has in graphs alone
    fit(ours)
    assert int(ours.optimizer.iterations) == steps + 2


def test_averages_stand_in_the_order_of_the_variables():
    """Keras pairs `trainable_variables` and averages by position; float8 moves them."""
    model = trained("averages")
    quantize(model, "float8")
    ours, _ = converted(model)
    paths, order, trained_before = (
        [v.path for v in variables]
        for variables in (
            ours.trainable_variables,
            trained_variables(ours.optimizer),
            trained_variables(model.optimizer),
        )
    )
    assert order == paths
    assert order[: len(trained_before)] != trained_before
    assert_slots_are_equal(ours, model, "first")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_another_last_layer(optimizer):
    model = trained(optimizer)
    model.pop()
    model.add(layers.Dense(2, name="new"))
    ours, (remark,) = converted(model)
    assert "Those of 'net/last/kernel', 'net/last/bias' are dropped" in remark
    assert "Those of 'net/new/kernel', 'net/new/bias' begin anew" in remark
    assert_weights_are_equal(ours, model)
    if optimizer != "factored":  # which gives its slots the variables' bare names
        assert slots_of(ours, "first_kernel")
        for layer in ("first", "norm"):
            assert_slots_are_equal(ours, model, layer)
    old = weights(ours)["net/new/kernel"]
    fit(ours)
    new = weights(ours)["net/new/kernel"]
    assert 0 < np.abs(new - old).max() < 0.2


def test_factored_slots_go_to_their_own():
    model = trained("factored")
    model.pop()
    model.add(layers.Dense(2, name="new"))
    ours, _ = converted(model)

    def slot(of, weight):
        optimizer = of.optimizer
        index = [v.path for v in trained_variables(optimizer)].index(weight)
        return [
            keras.ops.convert_to_numpy(slots[index])
            for slots in (optimizer._r, optimizer._c, optimizer._v)
        ]

    for one, other in zip(
        slot(ours, "net/first/kernel"), slot(model, "net/first/kernel"), strict=True
    ):
        assert one.std() > 0
        np.testing.assert_array_equal(one, other)


def test_an_optimizer_of_another_model_begins_anew():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(2, name="only")])
    model.compile(trained().optimizer, "mse", run_eagerly=True)
    ours, (remark,) = converted(model)
    assert "begins anew. It was built for other variables, 'net/first/kernel'" in remark
    fit(ours)
    assert int(ours.optimizer.iterations) == 2


def test_models_inside_with_layers_of_the_same_names():
    def block(scale):
        norm = layers.BatchNormalization(name="norm")
        model = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="d"), norm])
        norm.gamma.assign(norm.gamma * scale)
        return model

    inputs = keras.Input((8,))
    shared = layers.Dense(8, name="d")
    x = shared(block(3.0)(shared(block(2.0)(inputs))))
    model = keras.Model(inputs, layers.Dense(2, name="end")(x))
    model.compile("adam", "mse", run_eagerly=True)
    fit(model)
    shared.name = "renamed"
    ours, remarks = converted(model)
    assert not remarks
    assert [la.name for la in ours.layers] == [la.name for la in model.layers]
    np.testing.assert_allclose(ours(X), model(X), atol=1e-5)
    for one, other in zip(
        ours.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (one, other)))


def test_the_weights_of_lora_stay_apart():
    model = trained()
    first = model.get_layer("first")
    first.enable_lora(2)
    first.lora_kernel_b.assign(RNG.normal(size=(2, 16)))
    ours, (remark,) = converted(model)
    assert "'net/first/lora_kernel_a', 'net/first/lora_kernel_b' begin anew" in remark
    assert_weights_are_equal(ours, model)
    lora = [w.name for w in ours.trainable_weights if "lora" in w.name]
    assert lora == ["lora_kernel_a", "lora_kernel_b"]
    assert not ours.get_layer("first")._kernel.trainable


class Own(keras.Model):
    """A model with a `compile` of its own."""

    def compile(self, first, second):
        super().compile("adam", "mse")
        self.both = first, second


class Unconfigured(keras.optimizers.SGD):
    """An optimizer whose configuration lacks an argument."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)


@pytest.mark.parametrize("model_class", [Own, keras.Model])
def test_what_cannot_be_compiled_again_is_said(model_class):
    inputs = keras.Input((8,))
    model = model_class(inputs, layers.BatchNormalization(name="norm")(inputs))
    model.compile(*((1, 2) if model_class is Own else (Unconfigured(3), "mse")))
    ours, (remark,) = converted(model)
    assert "is not compiled" in remark
    assert not ours.compiled
    assert type(ours.layers[-1]) is kerasnorm.KBatchNorm


def test_metrics_of_functions_without_a_name():
    model = trained()
    metric = keras.metrics.MeanMetricWrapper(lambda true, predicted: predicted - true)
    model.compile("adam", "mse", metrics=[metric], run_eagerly=True)
    model.evaluate(X, Y, verbose=0)
    ours, remarks = converted(model)
    assert not remarks
    assert ours.evaluate(X, Y, verbose=0) == pytest.approx(
        model.evaluate(X, Y, verbose=0), rel=1e-4
    )


def test_without_an_optimizer():
    model = trained()
    model.compile(None, "mse", run_eagerly=True)
    ours, remarks = converted(model)
    assert not remarks
    assert ours.optimizer is None
    assert ours.evaluate(X, Y, verbose=0) == pytest.approx(
        model.evaluate(X, Y, verbose=0), rel=1e-4
    )
