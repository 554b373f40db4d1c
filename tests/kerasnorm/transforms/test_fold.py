"""`fold`: the same predictions without batch normalization and dropout."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import kerasnorm
from kerasnorm import KBatchNorm, KDropout, KSpatialDropout
from kerasnorm.transforms._multiply_add import MultiplyAdd
from tests.kerasnorm.probes import BACKEND, KERAS

RNG = np.random.default_rng(0)
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


# Keras's own layers compute in float32 on JAX and PyTorch.
POLICY = "float64" if BACKEND == "tensorflow" else "float32"


@pytest.fixture
def policy(request):
    """Set the policy of new layers: the test's parameter, or the widest one."""
    name = getattr(request, "param", POLICY)
    kept = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    yield name
    keras.config.set_dtype_policy(kept)


def randomize(model):
    """Move all weights and statistics away from their initial values."""
    for weight in model.weights:
        value = RNG.normal(0, 0.2, weight.shape)
        if "variance" in weight.path or "gamma" in weight.path:
            value = RNG.uniform(0.5, 2, weight.shape)
        elif "kernel" in weight.path:
            value *= np.sqrt(10 / max(np.prod(weight.shape[:-1]), 1))
        weight.assign(value)
    return model


def folded(model, x, tolerance, jit=False):
    """Fold the model and compare; return the folded model and its report."""
    lines = []
    result = kerasnorm.fold(model, lines.append)

    def predict(model):
        if not jit:
            return model(x, training=False)
        model.compile(jit_compile=True)
        return model.predict_on_batch(x)

    for ours, theirs in zip(
        keras.tree.flatten(predict(result)),
        keras.tree.flatten(predict(model)),
        strict=True,
    ):
        ours, theirs = map(keras.ops.convert_to_numpy, (ours, theirs))
        scale = np.abs(theirs).max()
        assert np.isfinite(scale)
        assert theirs.std() > 1e-3 * scale
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)
    return result, dict(line.split(": ", 1) for line in lines)


def kinds(model):
    return {type(layer) for layer in model._flatten_layers(include_self=False)}


LINEAR = {
    "Dense": ((6,), layers.Dense(5)),
    "Dense, sequences": ((7, 6), layers.Dense(5, use_bias=False)),
    "Conv1D": ((9, 4), layers.Conv1D(5, 3)),
    "Conv2D": ((9, 8, 4), layers.Conv2D(6, 3, padding="same", strides=2, groups=2)),
    "Conv2D, of one pixel": ((9, 8, 4), layers.Conv2D(6, 1, padding="same")),
    "Conv3D": ((5, 6, 7, 2), layers.Conv3D(3, 2, use_bias=False)),
    "Conv1DTranspose": ((9, 4), layers.Conv1DTranspose(5, 3, use_bias=False)),
    "Conv2DTranspose": ((5, 6, 4), layers.Conv2DTranspose(3, 3, strides=2)),
    "Conv3DTranspose": ((3, 4, 5, 2), layers.Conv3DTranspose(3, 2)),
    "DepthwiseConv1D": ((9, 4), layers.DepthwiseConv1D(3, depth_multiplier=2)),
    "DepthwiseConv2D": ((9, 8, 4), layers.DepthwiseConv2D(3, depth_multiplier=3)),
    "SeparableConv1D": ((9, 4), layers.SeparableConv1D(5, 3, use_bias=False)),
    "SeparableConv2D": ((9, 8, 4), layers.SeparableConv2D(5, 3, depth_multiplier=2)),
}


def model_of(shape, *stack):
    """Make a model of new layers, which take the present policy, and its inputs."""
    fresh = [type(la).from_config({**la.get_config(), "dtype": None}) for la in stack]
    model = keras.Sequential([keras.Input(shape), *fresh])
    return randomize(model), RNG.normal(1, 2, (4, *shape)).astype(fresh[0].dtype)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "norm", "policy"),
    [
        *((name, KBatchNorm, POLICY) for name in LINEAR),
        ("Dense", KBatchNorm, "float32"),
        ("Conv2D", KBatchNorm, "float32"),
        ("Dense, sequences", layers.BatchNormalization, POLICY),
        ("Conv2D", layers.BatchNormalization, "float32"),
        ("SeparableConv1D", layers.BatchNormalization, "float32"),
    ],
    indirect=["policy"],
)
def test_into_the_layer_before(name, norm, policy):
    shape, linear = LINEAR[name]
    model, x = model_of(shape, linear, norm(), layers.ReLU())
    result, report = folded(model, x, TOLERANCE[policy])
    assert kinds(result) == {layers.InputLayer, type(linear), layers.ReLU}
    (why,) = report.values()
    assert why == f"folded into {model.layers[0].name} before it"


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("Dense", POLICY),
        ("Dense, sequences", "float32"),
        ("Conv1D", POLICY),
        ("Conv2D, of one pixel", POLICY),
        ("Conv3D", "float32"),
    ],
    indirect=["policy"],
)
def test_into_the_layer_after(name, policy):
    shape, linear = LINEAR[name]
    model, x = model_of(shape, layers.ReLU(), KBatchNorm(), KDropout(0.5), linear)
    result, report = folded(model, x, TOLERANCE[policy])
    assert kinds(result) == {layers.InputLayer, type(linear), layers.ReLU}
    assert f"folded into {model.layers[-1].name} after it" in report.values()
    assert "removed" in report.values()


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "stack", "reason"),
    [
        ({}, [layers.ReLU(), KBatchNorm()], "no linear layer and not one layer alone"),
        ({}, [layers.Conv2D(4, 3, activation="relu"), KBatchNorm()], "an activation"),
        (
            {},
            [layers.ReLU(), KBatchNorm(), layers.Conv2D(4, 3, padding="same")],
            "pads with zeros",
        ),
        (
            {},
            [layers.ReLU(), KBatchNorm(), layers.Conv2D(6, 1, groups=3)],
            "has groups",
        ),
        ({}, [layers.Conv2D(4, 3), KBatchNorm(axis=(2, 3))], "several axes"),
        ({}, [layers.Conv2D(4, 3), KBatchNorm(axis=1)], "not normalize the channels"),
        ({}, [layers.ReLU(), KBatchNorm(scale=False, center=False)], "linear layer"),
    ],
)
def test_what_cannot_be_folded_is_one_multiply_add(arguments, stack, reason, policy):
    model, x = model_of((6, 5, 6), *stack)
    result, report = folded(model, x, TOLERANCE[policy])
    (why,) = report.values()
    assert why.startswith("multiply-add, since ")
    assert reason in why
    assert not kinds(result) & {KBatchNorm, layers.BatchNormalization}


def test_channels_first():
    """Compiled, in float32: without XLA few CPUs have this convolution."""
    convolution = layers.Conv2D(5, 3, data_format="channels_first", dilation_rate=2)
    model, x = model_of(
        (3, 9, 8), layers.ReLU(), KBatchNorm(axis=1), convolution, KBatchNorm(axis=-3)
    )
    result, report = folded(model, x, TOLERANCE["float32"], jit=True)
    assert kinds(result) == {layers.InputLayer, layers.Conv2D, layers.ReLU}
    name = model.layers[2].name
    assert set(report.values()) == {
        f"folded into {name} after it",
        f"folded into {name} before it",
    }


@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16", "float64"])
def test_factor_and_shift_are_float32_or_wider(dtype):
    layer = MultiplyAdd((-1,), dtype=dtype)
    layer.build((None, 6))
    wide = "float64" if dtype == "float64" else "float32"
    assert [weight.dtype for weight in layer.weights] == [wide, wide]


@pytest.mark.any_backend
def test_several_in_a_row(policy):
    model, x = model_of((6,), layers.Dense(5), KBatchNorm(), KBatchNorm(axis=1))
    result, report = folded(model, x, TOLERANCE[policy])
    assert kinds(result) == {layers.InputLayer, layers.Dense}
    assert len(report) == 2


def test_a_layer_that_feeds_others_too_stays(policy):
    inputs = keras.Input((6,))
    x = layers.Dense(5, name="dense")(inputs)
    normalized = KBatchNorm(name="norm")(x)
    model = randomize(keras.Model(inputs, layers.Add()([x, normalized])))
    data = RNG.normal(size=(4, 6))
    _, report = folded(model, data, TOLERANCE[policy])
    assert "dense before it feeds other layers too" in report["norm"]


def test_an_output_of_the_model_stays(policy):
    inputs = keras.Input((6,))
    x = layers.Dense(5, name="dense")(inputs)
    model = randomize(keras.Model(inputs, {"raw": x, "norm": KBatchNorm(name="n")(x)}))
    _, report = folded(model, RNG.normal(size=(4, 6)), TOLERANCE[policy])
    assert report["n"].startswith("multiply-add")


def test_one_of_three_outputs(policy):
    inputs = keras.Input((6,))
    first, second, third = (layers.Dense(5, name=f"dense{i}")(inputs) for i in range(3))
    outputs = [first, KBatchNorm(name="norm")(second), third]
    model = randomize(keras.Model(inputs, outputs))
    result, report = folded(model, RNG.normal(size=(4, 6)), TOLERANCE[policy])
    assert report == {"norm": "folded into dense1 before it"}
    assert len(result.outputs) == 3


def test_shared_layers_and_several_inputs(policy):
    one, two = keras.Input((6,), name="one"), keras.Input((6,), name="two")
    dense, norm = layers.Dense(5, name="dense"), KBatchNorm(name="norm")
    drop = KDropout(0.5, name="drop")
    ends = [drop(norm(dense(i))) for i in (one, two)]
    tail = KBatchNorm(name="tail")(layers.Dense(3, name="last")(layers.Add()(ends)))
    model = randomize(keras.Model([one, two], tail))
    data = [RNG.normal(size=(4, 6)), RNG.normal(3, 1, size=(4, 6))]
    _, report = folded(model, data, TOLERANCE[policy])
    assert report == {
        "drop": "removed",
        "norm": "multiply-add, since it is used more than once and not one layer "
        "alone follows it",
        "tail": "folded into last before it",
    }


@pytest.mark.any_backend
def test_nested_models(policy):
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, name="d"), KBatchNorm(name="n")],
        name="inner",
    )
    inputs = keras.Input((6,))
    x = layers.Add()([inner(inputs), inner(layers.ReLU()(inputs))])
    model = randomize(keras.Model(inputs, KBatchNorm(name="outer")(x)))
    result, report = folded(model, RNG.normal(size=(4, 6)), TOLERANCE[policy])
    assert report["inner/n"] == "folded into d before it"
    assert isinstance(result.get_layer("inner"), keras.Sequential)
    assert KBatchNorm not in kinds(result)


@pytest.mark.any_backend
def test_dropout_that_works_at_inference(policy):
    scaled = KDropout(0.3, scale_at="inference", name="scaled")
    model, x = model_of((4, 6), layers.Dense(5), scaled, KSpatialDropout(0.5))
    result, report = folded(model, x, TOLERANCE[policy])
    assert report["scaled"] == "multiply-add, since it scales at inference"
    assert not kinds(result) & {KDropout, KSpatialDropout}
    drawn = keras.Sequential(
        [keras.Input((6,)), KDropout(0.5, monte_carlo=True, name="mc")]
    )
    lines = []
    result = kerasnorm.fold(drawn, lines.append)
    assert lines == ["mc: kept, since it draws masks at inference"]
    assert KDropout in kinds(result)


def test_what_is_inside_of_other_layers_is_kept_and_reported(policy):
    wrapped = layers.TimeDistributed(KBatchNorm(name="inside"), name="steps")
    model = randomize(keras.Sequential([keras.Input((3, 6)), wrapped]))
    result, report = folded(model, RNG.normal(size=(4, 3, 6)), TOLERANCE[policy])
    assert "kept, since it is part of steps" in "".join(report.values())
    assert KBatchNorm in kinds(result)


@pytest.mark.any_backend
def test_masks_pass_through():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 6, mask_zero=True)(inputs)
    x = KDropout(0.5)(KBatchNorm()(layers.Dense(6)(x)))
    model = randomize(keras.Model(inputs, layers.GlobalAveragePooling1D()(x)))
    tokens = RNG.integers(0, 3, (4, 5))
    tokens[:, 0] = 1
    folded(model, tokens, TOLERANCE["float32"])


def test_the_original_is_left_as_it_is_and_the_folded_one_can_be_saved(tmp_path):
    stack = [layers.ReLU(), KBatchNorm(), layers.Conv2D(4, 3, padding="same")]
    model, x = model_of((6, 5, 6), *stack, KBatchNorm(), KDropout(0.5))
    before = [keras.ops.convert_to_numpy(w) for w in model.weights]
    result, _ = folded(model, x, TOLERANCE["float32"])
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
    result.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(tmp_path / "folded.keras")
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(model(x)) for model in (loaded, result))
    )


def test_operations_beside_a_normalization(policy):
    inputs = keras.Input((6,))
    first = KBatchNorm(name="first")(inputs * 2.0)
    second = KBatchNorm(name="second")(layers.ReLU()(first))
    model = randomize(keras.Model(inputs, keras.ops.tanh(second) + first))
    _, report = folded(model, RNG.normal(size=(4, 6)), TOLERANCE[policy])
    assert re.search(r"multiply.* before it is no linear layer", report["first"])
    assert re.search(r"tanh.* after it is no dense layer", report["second"])


class Own(keras.Model):
    """A subclassed model, which has no graph."""

    def __init__(self, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        self.norm = KBatchNorm(name="inside")

    def call(self, x):
        return self.norm(x)


def test_a_subclassed_part_is_kept_and_reported():
    inputs = keras.Input((6,))
    model = randomize(keras.Model(inputs, Own(name="own")(layers.Dense(4)(inputs))))
    result, report = folded(model, RNG.normal(size=(4, 6)), TOLERANCE["float32"])
    assert "kept, since it is part of own" in "".join(report.values())
    assert KBatchNorm in kinds(result)


class Always(layers.Dropout):
    """Dropout at inference too, by the usual idiom."""

    def call(self, x, training=False):
        return super().call(x, training=True)


def test_subclasses_of_dropout_are_kept():
    model = keras.Sequential([keras.Input((500,)), Always(0.5, name="always")])
    lines = []
    result = kerasnorm.fold(model, lines.append)
    (line,) = lines
    assert line.endswith("always: kept, since it is a subclass")
    x = np.ones((1, 500), "float32")
    assert not np.array_equal(result(x), result(x))


@pytest.mark.skipif(KERAS < (3, 14), reason="Keras made no model without a layer.")
def test_only_dropout():
    model = keras.Sequential([keras.Input((6,)), KDropout(0.5)])
    x = RNG.normal(size=(4, 6)).astype("float32")
    np.testing.assert_array_equal(kerasnorm.fold(model)(x), x)


def test_layers_that_compute_in_other_dtypes_are_not_folded():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4, dtype="mixed_float16", name="half"),
            KBatchNorm(dtype="float32", name="norm"),
        ]
    )
    model.layers[1].moving_variance.assign([1e-9] * 4)
    model.layers[1].gamma.assign([1e4] * 4)
    model.layers[1].moving_mean.assign([0.1] * 4)
    _, report = folded(model, RNG.normal(size=(4, 6)), TOLERANCE["float32"])
    why = "half computes in float16"
    if KERAS < (3, 12):  # its Sequential model has a layer that casts
        why = "since cast"
    assert why in report["norm"]


def test_models_that_cannot_be_folded():
    with pytest.raises(ValueError, match=r"functional model\. Received: Own"):
        kerasnorm.fold(Own())
    with pytest.raises(TypeError, match=r"must be a function.*print_fn=5\."):
        kerasnorm.fold(keras.Sequential([keras.Input((6,))]), print_fn=5)
    with pytest.raises(ValueError, match="must be built"):
        kerasnorm.fold(keras.Sequential([KBatchNorm()]))


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("MobileNet", POLICY),
        pytest.param("MobileNet", "float32", marks=pytest.mark.slow),
        *(
            pytest.param(name, POLICY, marks=pytest.mark.slow)
            for name in ("ResNet50V2", "EfficientNetB0", "DenseNet121")
        ),
    ],
    indirect=["policy"],
)
def test_keras_applications(name, policy):
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(32, 32, 3), classes=7, classifier_activation=None
    )
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(RNG.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(
                RNG.uniform(0.5, 2, layer.moving_variance.shape)
            )
            layer.beta.assign(RNG.normal(0, 0.1, layer.beta.shape))
    x = RNG.uniform(0, 255, (2, 32, 32, 3))
    tolerance = {"float32": 1e-4, "float64": 1e-10}[policy]
    result, report = folded(model, x, tolerance)
    norms = [la for la in model.layers if isinstance(la, layers.BatchNormalization)]
    assert len(norms) <= len(report)
    assert not kinds(result) & {layers.BatchNormalization, layers.Dropout}
    if name == "MobileNet":
        assert all("folded into" in report[norm.name] for norm in norms)
