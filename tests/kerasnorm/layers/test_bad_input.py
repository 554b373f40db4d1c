"""Bad input is refused in one line: argument, domain, what was received, advice."""

import keras
import numpy as np
import pytest

from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout

DROPOUT_LAYERS = [KDropout, KSpatialDropout, KGaussianDropout]


def inputs_of(shape):
    return np.random.default_rng(0).normal(3, 2, shape).astype("float32")


@pytest.mark.parametrize("layer_class", [KDropout, KSpatialDropout])
@pytest.mark.parametrize(
    ("error", "rate", "received"),
    [
        (ValueError, 1.5, r"rate=1\.5"),
        (ValueError, -0.1, r"rate=-0\.1"),
        (ValueError, float("nan"), "rate=nan"),
        (ValueError, float("inf"), "rate=inf"),
        (TypeError, "half", "rate='half'"),
        (TypeError, None, "rate=None"),
        (TypeError, True, "rate=True"),
        (TypeError, [0.5], r"rate=\[0\.5\]"),
        (TypeError, 0.5j, "rate=0.5j"),
    ],
)
def test_bad_rates(layer_class, error, rate, received):
    message = r"`rate` must be a float in \[0, 1\].*Received: " + received + r"\. "
    with pytest.raises(error, match=message):
        layer_class(rate)
    layer = layer_class(0.5)
    with pytest.raises(error, match=message):
        layer.rate = rate
    assert layer.rate == 0.5


@pytest.mark.parametrize("rate", [1, 1.0, 1.5, -0.1, float("nan")])
def test_bad_rates_of_gaussian_dropout(rate):
    received = rf"`rate` must be a float in \[0, 1\).*rate={float(rate)}"
    with pytest.raises(ValueError, match=received):
        KGaussianDropout(rate)


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (ValueError, {"scale_at": "test"}, "`scale_at` must be .*scale_at='test'"),
        (TypeError, {"seed": 1.5}, r"`seed` must be .*Received: seed=1\.5"),
        (TypeError, {"seed": "one"}, r"Received: seed='one'"),
        (TypeError, {"noise_shape": "abc"}, r"Received: noise_shape='abc'"),
        (TypeError, {"noise_shape": 3}, r"Received: noise_shape=3"),
        (ValueError, {"noise_shape": (None, 0)}, r"noise_shape=\(None, 0\)"),
        (ValueError, {"noise_shape": (None, -2)}, r"noise_shape=\(None, -2\)"),
        (ValueError, {"noise_shape": (None, 1.5)}, r"noise_shape=\(None, 1\.5\)"),
    ],
)
def test_bad_arguments_of_dropout(error, arguments, message):
    with pytest.raises(error, match=message):
        KDropout(0.5, **arguments)


@pytest.mark.parametrize(
    "noise_shape",
    [(4, 2, 3), (4, 5, 3, 1), (1, 1, 1, 1), (3, 5, 3), (2,), (None, 5)],
)
def test_noise_shapes_that_do_not_broadcast_to_the_inputs(noise_shape):
    message = r"`noise_shape` must be .*\(4, 5, 3\).*Received: noise_shape=\("
    with pytest.raises(ValueError, match=message):
        KDropout(0.5, noise_shape=noise_shape)(inputs_of((4, 5, 3)), training=True)


@pytest.mark.parametrize("training", [False, True])
def test_a_noise_shape_is_checked_at_every_call(training):
    layer = KDropout(0.5, noise_shape=(4, 1, 1))
    layer(inputs_of((4, 5, 3)), training=training)
    message = r"`noise_shape` must be .*\(6, 5, 3\).*noise_shape=\(4, 1, 1\)"
    with pytest.raises(ValueError, match=message):
        layer(inputs_of((6, 5, 3)), training=training)


def test_a_functional_model_refuses_a_noise_shape_when_it_is_made():
    inputs = keras.Input((5, 3))
    message = r"`noise_shape` must be .*\(None, 5, 3\).*noise_shape=\(None, 2, 1\)"
    with pytest.raises(ValueError, match=message):
        KDropout(0.5, noise_shape=(None, 2, 1))(inputs)


def test_spatial_dropout_checks_the_rank_at_every_call():
    layer = KSpatialDropout(0.5)
    layer(inputs_of((4, 5, 5, 3)), training=True)
    message = r"of rank 3, 4 or 5.*Received: .*\(4, 3\)"
    for training in (False, True):
        with pytest.raises(ValueError, match=message):
            layer(inputs_of((4, 3)), training=training)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2, 2, 2, 2)])
def test_spatial_dropout_of_another_rank(shape):
    message = r"of rank 3, 4 or 5.*Received: .*\(4, ?"
    with pytest.raises(ValueError, match=message):
        KSpatialDropout(0.5)(inputs_of(shape), training=True)


def test_spatial_dropout_of_another_data_format():
    with pytest.raises(ValueError, match="Received: data_format='NHWC'"):
        KSpatialDropout(0.5, data_format="NHWC")


@pytest.mark.parametrize("layer_class", DROPOUT_LAYERS)
@pytest.mark.parametrize("dtype", ["int32", "bool", "uint8"])
def test_dropout_of_inputs_that_are_no_floats(layer_class, dtype):
    x = np.ones((4, 3, 5), dtype)
    with pytest.raises(TypeError, match=f"`inputs` must be .*float.*'{dtype}'"):
        layer_class(0.5)(x, training=True)


def test_a_schedule_is_given_when_the_layer_is_made():
    layer = KDropout(0.5)
    layer(inputs_of((4, 3)))
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    with pytest.raises(ValueError, match=r"`rate` must be .*ExponentialDecay"):
        layer.rate = schedule


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (TypeError, {"axis": 1.5}, r"`axis` must be an integer.*Received: axis=1\.5"),
        (TypeError, {"axis": "last"}, r"Received: axis='last'"),
        (TypeError, {"axis": ()}, r"Received: axis=\(\)"),
        (TypeError, {"axis": True}, r"Received: axis=True"),
        (ValueError, {"axis": (1, 1)}, r"Received: axis=\(1, 1\)"),
        (ValueError, {"momentum": 1.5}, r"`momentum` must be .*momentum=1\.5"),
        (ValueError, {"momentum": float("nan")}, r"Received: momentum=nan"),
        (TypeError, {"momentum": None}, r"Received: momentum=None"),
        (ValueError, {"renorm_momentum": -0.1}, r"Received: renorm_momentum=-0\.1"),
        (ValueError, {"epsilon": -1e-3}, r"`epsilon` must be .*epsilon=-0\.001"),
        (ValueError, {"epsilon": float("nan")}, r"Received: epsilon=nan"),
        (TypeError, {"epsilon": "tiny"}, r"Received: epsilon='tiny'"),
        (ValueError, {"moving_average": "mean"}, r"Received: moving_average='mean'"),
        (ValueError, {"virtual_batch_size": 0}, r"Received: virtual_batch_size=0"),
        (TypeError, {"virtual_batch_size": 1.5}, r"Received: virtual_batch_size=1\.5"),
    ],
)
def test_bad_arguments_of_batch_norm(error, arguments, message):
    with pytest.raises(error, match=message):
        KBatchNorm(**arguments)


@pytest.mark.parametrize(
    ("error", "clipping", "message"),
    [
        (ValueError, {"max": 3.0}, r"Received: .*\{'max': 3\.0\}"),
        (ValueError, {"rmax": 1.0, "rmin": 2.0}, r"'rmin': 2\.0"),
        (ValueError, {"dmax": -1.0}, r"dmax.*-1\.0"),
        (ValueError, {"rmax": float("nan")}, r"rmax.*nan"),
        (TypeError, {"rmax": "three"}, r"rmax.*'three'"),
        (TypeError, 3.0, r"Received: renorm_clipping=3\.0"),
    ],
)
def test_bad_renorm_clipping(error, clipping, message):
    with pytest.raises(error, match=message):
        KBatchNorm(renorm=True, renorm_clipping=clipping)


@pytest.mark.parametrize(
    ("axis", "shape", "message"),
    [
        (3, (None, 4, 5), r"`axis` must be .*\(None, 4, 5\).*Received: axis=3"),
        (-4, (None, 4, 5), r"Received: axis=-4"),
        ((1, -2), (None, 4, 5), r"Received: axis=\(1, -2\)"),
        (-1, (None, 4, None), r"\(None, 4, None\).*Received: axis=-1"),
        ((1, 2), (None, None, 5), r"Received: axis=\(1, 2\)"),
    ],
)
def test_axes_that_do_not_fit_the_inputs(axis, shape, message):
    with pytest.raises(ValueError, match=message):
        KBatchNorm(axis).build(shape)
    with pytest.raises(ValueError, match=message):
        KBatchNorm(axis)(keras.Input(shape[1:]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KDropout("0.5"), r"Received: rate='0\.5'\. Its type is str\. `rate`"),
        (lambda: KDropout(0.5, seed="1"), r"seed='1'\. Its type is str\.$"),
        (lambda: KBatchNorm("1"), r"axis='1'\. Its type is str\.$"),
        (lambda: KBatchNorm(momentum="0.9"), r"Its type is str\."),
        (lambda: KBatchNorm(virtual_batch_size=2.0), r"Its type is float\.$"),
        (lambda: KDropout(np.zeros(99)), r"rate=<ndarray of shape \(99,\)>\. Its type"),
        (
            lambda: KDropout([0] * 999),
            r"rate=\[0, 0, .*\.\.\.\. Its type is list",
        ),
        (
            lambda: KBatchNorm(3).build((4, 5, 3)),
            r"`axis` must be between -3 and 2 for inputs of shape \(4, 5, 3\)\. ",
        ),
        (
            lambda: KBatchNorm((1, -2)).build((4, 5, 3)),
            r"`axis` must be different axes of inputs of shape \(4, 5, 3\)\. ",
        ),
    ],
)
def test_a_message_says_what_is_wrong_in_one_line(make, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        make()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400


@pytest.mark.parametrize("mask_shape", [(5,), (4, 4), (3, 5), (4, 5, 2), (4, 5, 3, 1)])
def test_masks_that_do_not_fit_the_inputs(mask_shape):
    layer = KBatchNorm()
    received = r"Received: mask=.*" + ", ".join(map(str, mask_shape))
    with pytest.raises(ValueError, match=received):
        layer(inputs_of((4, 5, 3)), training=True, mask=np.ones(mask_shape, bool))


def test_batch_norm_of_inputs_that_are_no_numbers():
    with pytest.raises(TypeError, match=r"Received: inputs='?bool"):
        KBatchNorm()(np.ones((4, 3), bool))


def test_inputs_of_another_size_than_built():
    layer = KBatchNorm()
    layer.build((None, 3))
    with pytest.raises(ValueError, match=r"shape \(4, 5\)"):
        layer(inputs_of((4, 5)))


NO_BOOLEANS = ["no", 1, 0.0, None, [True]]


@pytest.mark.parametrize("value", NO_BOOLEANS)
@pytest.mark.parametrize(
    ("layer_class", "argument"),
    [
        *(
            (KBatchNorm, name)
            for name in (
                "center", "scale", "renorm", "synchronized", "bessel_correction",
            )
        ),
        (lambda **options: KDropout(0.5, **options), "monte_carlo"),
    ],
)  # fmt: skip
def test_arguments_that_are_no_booleans(layer_class, argument, value):
    message = f"`{argument}` must be True or False. Received: {argument}="
    with pytest.raises(TypeError, match=message):
        layer_class(**{argument: value})


@pytest.mark.any_backend
@pytest.mark.parametrize("layer_class", [*DROPOUT_LAYERS, KBatchNorm])
@pytest.mark.parametrize(
    ("training", "error", "received"),
    [
        ("no", TypeError, "training='no'"),
        (0.5, TypeError, r"training=0\.5"),
        (2, ValueError, "training=2"),
        (np.array(0.5, "float32"), TypeError, "training='a tensor of float32'"),
        (np.array([True, False]), ValueError, r"training='a tensor of shape \(2,\)'"),
    ],
)
def test_training_that_is_no_boolean(layer_class, training, error, received):
    layer = layer_class() if layer_class is KBatchNorm else layer_class(0.5)
    with pytest.raises(error, match=f"`training` must be .*{received}"):
        layer(inputs_of((4, 3, 5)), training=training)


@pytest.mark.any_backend
@pytest.mark.parametrize("training", [1, 0, np.True_, np.array(True), None])
def test_training_that_counts_as_a_boolean(training):
    x = inputs_of((4, 5))
    y = keras.ops.convert_to_numpy(KDropout(1.0)(x, training=training))
    expected = np.zeros_like(x) if training else x
    np.testing.assert_array_equal(y, expected)


@pytest.mark.any_backend
@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, float("nan")])
@pytest.mark.parametrize("training", [True, False])
def test_masks_of_other_values_than_0_and_1(value, training):
    mask = np.ones((4, 5), "float32")
    mask[1, 2] = value
    with pytest.raises(
        ValueError, match=rf"`mask` must be .*Received: mask={value}\. "
    ):
        KBatchNorm()(inputs_of((4, 5, 3)), training=training, mask=mask)


def test_renorm_clipping_without_renorm():
    message = r"`renorm_clipping` must be None without `renorm=True`.*\{'rmax': 3\.0\}"
    with pytest.raises(ValueError, match=message):
        KBatchNorm(renorm_clipping={"rmax": 3.0})
    old = {**KBatchNorm().get_config(), "renorm_clipping": {"rmax": 3.0}}
    assert KBatchNorm.from_config(old).renorm_clipping == {}


@pytest.mark.any_backend
@pytest.mark.parametrize("bound", ["rmin", "rmax", "dmax"])
def test_a_clipping_schedule_below_0_counts_as_0(bound):
    below = keras.optimizers.schedules.PolynomialDecay(-1.0, 10, -1.0)
    x = inputs_of((8, 3))
    ys = [
        KBatchNorm(renorm=True, renorm_clipping={bound: value})(x, training=True)
        for value in (below, 0.0)
    ]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, ys))


@pytest.mark.any_backend
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.numpy_function is TensorFlow's."
)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("layer", "needs"),
    [
        (KDropout(0.5, noise_shape=(None, 1)), "with a `noise_shape`"),
        (KSpatialDropout(0.5), "in KSpatialDropout"),
    ],
)
def test_layers_that_need_a_rank(layer, needs, training):
    import tensorflow as tf

    layer.build((None, 3, 5))

    @tf.function
    def call(x):
        x = tf.numpy_function(lambda x: x, [x], tf.float32)
        return layer(x, training=training)

    with pytest.raises(ValueError, match=f"`inputs` must be of known rank {needs}"):
        call(inputs_of((4, 3, 5)))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.numpy_function is TensorFlow's."
)
@pytest.mark.parametrize("layer_class", [KBatchNorm, keras.layers.BatchNormalization])
def test_batch_norm_of_unknown_rank_is_refused_by_keras(layer_class):
    import tensorflow as tf

    layer = layer_class()
    layer.build((None, 5))
    call = tf.function(lambda x: layer(tf.numpy_function(lambda x: x, [x], x.dtype)))
    with pytest.raises(ValueError, match="not defined on an unknown TensorShape"):
        call(inputs_of((4, 5)))
