"""`ShiftMonitor`: what it records, when it warns, and that it changes nothing."""

import csv
import importlib.util
import math
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasnorm
from kerasnorm import KBatchNorm, KDropout, ShiftMonitor
from kerasnorm.layers import _observe
from tests.kerasnorm import inputs
from tests.kerasnorm.probes import KERAS

PERCENTILES = (15, 50, 85)
# So few steps take less time than their compilation, but for JAX.
EAGERLY = keras.backend.backend() == "tensorflow"


def uneven(shape, seed=0, location=0.0):
    return inputs.uneven(shape, seed, location, "float32")


def norm(name="norm", **options):
    """Make a layer whose gamma is not 1 and whose beta is not 0."""
    return KBatchNorm(
        name=name,
        gamma_initializer=keras.initializers.RandomUniform(0.5, 2, seed=1),
        beta_initializer=keras.initializers.RandomNormal(seed=2),
        **options,
    )


def fit(model, x, monitor, *others, **options):
    """Train the model, so that all its weights move."""
    if not model.compiled:
        model.compile(keras.optimizers.SGD(0.001), "mse", run_eagerly=EAGERLY)
    y = np.zeros(np.shape(model(x[:8])))
    y = np.repeat(y[:1], len(x), axis=0)
    return model.fit(
        x, y, batch_size=8, verbose=0, callbacks=[monitor, *others], **options
    )


def summary(layer, x, axes):
    """Compute in float64 what a record of `layer` must be.

    `x` has the samples in `axes`; masked samples are NaN.
    """
    x = np.asarray(x, "float64")
    weights = {w.name: np.asarray(w, "float64") for w in layer.weights}
    gamma, beta, mean, variance = (
        np.expand_dims(weights[name], axes)
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = variance + layer.epsilon
    y = (x - mean) / np.sqrt(scale) * gamma + beta
    own_mean = np.nanmean(x, axes, keepdims=True)
    own_variance = np.nanvar(x, axes, keepdims=True)
    return {
        **{f"input_{p}": np.nanpercentile(x, p) for p in PERCENTILES},
        **{f"output_{p}": np.nanpercentile(y, p) for p in PERCENTILES},
        **{f"moving_mean_{p}": np.percentile(mean, p) for p in PERCENTILES},
        **{f"moving_variance_{p}": np.percentile(variance, p) for p in PERCENTILES},
        "mean_shift": np.sqrt(np.mean((own_mean - mean) ** 2 / scale)),
        "variance_ratio": np.median((own_variance + layer.epsilon) / scale),
    }


def assert_record(row, expected):
    assert row.keys() == {"step", "epoch", "layer", *expected}
    for measure, value in expected.items():
        assert row[measure] == pytest.approx(value, rel=2e-4, abs=1e-5), measure


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("shape", "options", "axes"),
    [
        ((4,), {}, (0,)),
        ((6, 5, 3), {}, (0, 1, 2)),
        ((6, 5, 3), {"axis": 1}, (0, 2, 3)),
        ((6, 3), {"axis": (1, 2)}, (0,)),
        ((4,), {"epsilon": 0.3, "moving_average": "debiased"}, (0,)),
    ],
)
def test_records_are_those_of_numpy(shape, options, axes):
    x, probe = uneven((64, *shape)), uneven((37, *shape), seed=5, location=2.0)
    layer = norm(**options)
    model = keras.Sequential([keras.Input(shape), layer, layers.Flatten()])
    model.add(layers.Dense(2))
    monitor = ShiftMonitor(probe, tolerance=math.inf)
    fit(model, x, monitor, epochs=2)
    assert [(r["step"], r["epoch"]) for r in monitor.history] == [(8, 0), (16, 1)]
    assert_record(monitor.history[-1], summary(layer, probe, axes))


def test_a_deep_layer_sees_what_it_will_see_at_inference():
    """Not what it sees in training: there dropout and the batch change its inputs."""
    x, probe = uneven((64, 4)), uneven((32, 4), seed=1)
    deep = norm("deep")
    model = keras.Sequential(
        [keras.Input((4,)), norm(), KDropout(0.5), layers.Dense(5), deep]
    )
    monitor = ShiftMonitor(probe, tolerance=math.inf)
    fit(model, x, monitor)
    seen = keras.Model(model.inputs[0], deep.input).predict(probe, verbose=0)
    assert [row["layer"] for row in monitor.history] == ["norm", "deep"]
    assert_record(monitor.history[-1], summary(deep, seen, (0,)))


@pytest.mark.any_backend
def test_masked_positions_do_not_count():
    x = uneven((64, 6, 3))
    x[np.random.default_rng(0).random((64, 6)) < 0.4] = -1
    probe, monitor_x = x[:24].copy(), x[:24]
    layer = norm()
    model = keras.Sequential([keras.Input((6, 3)), layers.Masking(-1), layer])
    monitor = ShiftMonitor(monitor_x, tolerance=math.inf)
    fit(model, x, monitor)
    probe[(probe == -1).all(-1)] = np.nan
    assert_record(monitor.history[-1], summary(layer, probe, (0, 1)))


def test_a_probe_that_is_masked_altogether_gives_no_record():
    model = keras.Sequential([keras.Input((6, 3)), layers.Masking(-1), norm()])
    monitor = ShiftMonitor(np.full((4, 6, 3), -1.0))
    fit(model, uneven((16, 6, 3)), monitor)
    assert monitor.history == []


def test_the_calls_of_a_shared_layer_count_together():
    shared = norm()
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], layers.Add()([shared(a), shared(b)]))
    model.compile("sgd", "mse", run_eagerly=EAGERLY)
    left, right = uneven((40, 4)), uneven((40, 4), seed=1, location=-4.0)
    monitor = ShiftMonitor([left[:9], right[:9]], tolerance=math.inf)
    model.fit([left, right], left, verbose=0, callbacks=[monitor])
    both = np.concatenate([left[:9], right[:9]])
    (row,) = monitor.history
    assert_record(row, summary(shared, both, (0,)))


@pytest.mark.any_backend
def test_layers_in_wrappers_count_as_one():
    layer = norm()
    model = keras.Sequential([keras.Input((5, 3)), layers.TimeDistributed(layer)])
    x = uneven((48, 5, 3))
    monitor = ShiftMonitor(x[:16], tolerance=math.inf)
    fit(model, x, monitor)
    (row,) = monitor.history
    assert_record(row, summary(layer, x[:16], (0, 1)))


class Block(keras.Model):
    """A subclassed model, and one in it that has a layer of the same name."""

    def __init__(self):
        super().__init__()
        self.first = norm()
        self.dense = layers.Dense(4)
        self.nested = keras.Sequential([keras.Input((4,)), norm(), norm("last")])

    def call(self, x):
        return self.nested(self.dense(self.first(x)))


def test_nested_and_subclassed_models():
    x = uneven((32, 4))
    model = Block()
    monitor = ShiftMonitor(x[:16], tolerance=math.inf)
    fit(model, x, monitor)
    rows = {row["layer"]: row for row in monitor.history}
    assert list(rows) == ["norm", "norm#2", "last"]
    assert_record(rows["norm"], summary(model.first, x[:16], (0,)))
    inner = model.nested.layers[0]
    seen = ops.convert_to_numpy(model.dense(model.first(x[:16])))
    assert_record(rows["norm#2"], summary(inner, seen, (0,)))


@pytest.mark.any_backend
def test_percentiles_of_many_elements_are_those_of_a_sample():
    """Within five standard errors of a quantile's rank; the moments are of all."""
    probe = uneven((3000, 50))
    layer = norm()
    model = keras.Sequential([keras.Input((50,)), layer])
    monitor = ShiftMonitor(probe, tolerance=math.inf)
    fit(model, probe[:32], monitor, epochs=2)
    first, last = monitor.history
    expected = summary(layer, probe, (0,))
    for p in PERCENTILES:
        below = np.mean(probe < last[f"input_{p}"])
        error = math.sqrt(p / 100 * (1 - p / 100) / 2**16)
        assert abs(below - p / 100) < 5 * error
        assert first[f"input_{p}"] == last[f"input_{p}"]
    for measure in ("mean_shift", "variance_ratio"):
        assert last[measure] == pytest.approx(expected[measure], rel=1e-4)


@pytest.mark.parametrize(
    ("frequency", "steps_per_execution", "records"),
    [
        ("epoch", 1, [(10, 0), (20, 1), (30, 2)]),
        (4, 1, [(4, 0), (8, 0), (12, 1), (16, 1), (20, 1), (24, 2), (28, 2)]),
        (25, 1, [(25, 2)]),
        # At the first return from the training function.
        (4, 5, [(5, 0), (10, 0), (15, 1), (20, 1), (25, 2), (30, 2)]),
    ],
)
def test_frequency(frequency, steps_per_execution, records):
    if steps_per_execution > 1 and keras.backend.backend() == "torch":
        pytest.skip("Keras runs no several steps at a time on PyTorch.")
    if steps_per_execution > 1 and KERAS < (3, 12):
        pytest.skip("Keras told callbacks the first of several steps, not the last.")
    model = keras.Sequential([keras.Input((4,)), norm()])
    model.compile(
        "sgd",
        "mse",
        steps_per_execution=steps_per_execution,
        run_eagerly=EAGERLY and steps_per_execution == 1,
    )
    x = uneven((80, 4))
    monitor = ShiftMonitor(x, frequency=frequency, tolerance=math.inf)
    fit(model, x, monitor, epochs=3)
    assert [(row["step"], row["epoch"]) for row in monitor.history] == records


def read_csv(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {key: text if key == "layer" else float(text) for key, text in row.items()}
        for row in rows
    ]


def test_the_csv_file_is_whole_after_each_record_and_begins_anew(tmp_path):
    path = tmp_path / "shift.csv"
    model = keras.Sequential([keras.Input((4,)), norm("a"), norm("b")])
    x = uneven((80, 4))
    monitor = ShiftMonitor(x, frequency=4, csv_path=path, tolerance=math.inf)
    lengths = []

    def compare(batch, logs):
        assert read_csv(path) == monitor.history
        lengths.append(len(monitor.history))

    compare = keras.callbacks.LambdaCallback(on_train_batch_end=compare)
    for _ in range(2):
        lengths.clear()
        fit(model, x, monitor, compare)
        assert lengths == [0, 0, 0, 2, 2, 2, 2, 4, 4, 4]
        assert [row["layer"] for row in monitor.history] == ["a", "b"] * 2


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    model = keras.Sequential([keras.Input((4,)), norm("a"), norm("b")])
    x = uneven((80, 4))
    monitor = ShiftMonitor(x, frequency=5, log_dir=tmp_path, tolerance=math.inf)
    fit(model, x, monitor)
    events = EventAccumulator(str(tmp_path)).Reload()
    measures = monitor.history[0].keys() - {"step", "epoch", "layer"}
    tags = {f"{measure}/{layer}" for measure in measures for layer in "ab"}
    assert set(events.Tags()["tensors"]) == tags
    for tag in tags:
        measure, layer = tag.split("/")
        written = [(e.step, make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
        rows = [row for row in monitor.history if row["layer"] == layer]
        expected = [(row["step"], np.float32(row[measure])) for row in rows]
        assert len(expected) == 2
        assert written == expected


def test_tensorboard_is_asked_for_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model = keras.Sequential([keras.Input((4,)), norm()])
    with pytest.raises(ImportError, match="pip install tensorflow tensorboard"):
        fit(model, uneven((16, 4)), ShiftMonitor(uneven((8, 4)), log_dir=tmp_path))


def ours(caught):
    """Leave out NumPy's warnings of how Keras converts variables."""
    return [warning for warning in caught if warning.category is UserWarning]


def test_one_warning_where_the_moving_statistics_lag():
    """Ten steps at momentum 0.99: nine tenths of the initial 0 and 1 are left."""
    x = uneven((80, 4), location=2.0)
    model = keras.Sequential(
        [keras.Input((4,)), norm("good", momentum=0.5), norm("bad", momentum=0.99)]
    )
    model.layers[0].beta.assign([5.0, -5.0, 5.0, 5.0])
    monitor = ShiftMonitor(x)
    with pytest.warns(UserWarning, match="Training and inference") as caught:
        fit(model, x, monitor, epochs=4)
    (warning,) = ours(caught)
    text = str(warning.message)
    assert "\n" not in text
    assert "1 of 2 KBatchNorm layers at step 10, most in 'bad'" in text
    assert f"mean shift {monitor.history[1]['mean_shift']:.2f}" in text
    assert f"variance ratio {monitor.history[1]['variance_ratio']:.2f}" in text
    assert "`tolerance` is 0.5" in text
    # 0.99 ** 10 = 0.904
    assert "At momentum 0.99 the moving statistics still consist to 90% of" in text
    for advice in ("kerasnorm.recalibrate", 'moving_average="debiased"'):
        assert advice in text


@pytest.mark.parametrize(
    ("momentum", "cause"), [(0.99, "At momentum"), (0.3, "The batches are small")]
)
def test_the_warning_names_the_cause(momentum, cause):
    """0.3 ** 10 is nothing: there the probe is of other data."""
    x = uneven((80, 4))
    model = keras.Sequential([keras.Input((4,)), norm(momentum=momentum)])
    with pytest.warns(UserWarning, match=cause):
        fit(model, x, ShiftMonitor(x + 9.0))


def test_no_warning_after_what_the_warning_asks_for():
    x = uneven((80, 4))
    model = keras.Sequential([keras.Input((4,)), norm()])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=EAGERLY)
    with pytest.warns(UserWarning, match="kerasnorm.recalibrate"):
        fit(model, x, ShiftMonitor(x))
    kerasnorm.recalibrate(model, x, verbose=0)
    monitor = ShiftMonitor(x)
    fit(model, x, monitor)
    assert monitor.history[0]["mean_shift"] < 0.1
    assert monitor.history[0]["variance_ratio"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("rate", [0.2, 0.8])
def test_dropout_before_normalization(rate):
    """The variance shift of Li et al. 2018: ratio 1 - rate for centred inputs."""
    x = uneven((2048, 8))
    x -= x.mean(0)
    model = keras.Sequential(
        [keras.Input((8,)), KDropout(rate, seed=1), norm(momentum=0.9)]
    )
    model.compile("sgd", "mse", run_eagerly=EAGERLY)
    monitor = ShiftMonitor(x[:1024])
    options = {"batch_size": 128, "epochs": 3, "verbose": 0, "callbacks": [monitor]}
    if rate < 0.5:
        model.fit(x, x, **options)
    else:
        with pytest.warns(UserWarning, match="Training and inference disagree"):
            model.fit(x, x, **options)
    ratio = monitor.history[-1]["variance_ratio"]
    assert ratio == pytest.approx(1 - rate, rel=0.15)


def test_frozen_layers_are_recorded_and_not_warned_of():
    x = uneven((80, 4), location=10.0)
    frozen = norm(trainable=False)
    model = keras.Sequential([keras.Input((4,)), frozen, layers.Dense(2)])
    monitor = ShiftMonitor(x)
    fit(model, x, monitor)
    assert monitor.history[0]["mean_shift"] > monitor.tolerance


def test_a_model_that_diverges_is_recorded_and_warned_of():
    x = np.array([[-np.inf, 1.0], [2.0, np.inf], [np.nan, 3.0]], "float32")
    model = keras.Sequential([keras.Input((2,)), norm()])
    monitor = ShiftMonitor(x)
    with pytest.warns(UserWarning, match="mean shift nan") as caught:
        fit(model, uneven((80, 2)), monitor)
    assert len(ours(caught)) == 1
    (row,) = monitor.history
    assert math.isnan(row["mean_shift"])
    assert math.isnan(row["input_50"])


def test_statistics_that_are_no_numbers_are_warned_of():
    x = uneven((80, 4))
    model = keras.Sequential([keras.Input((4,)), norm(momentum=0.5)])
    model.layers[0].moving_variance.assign([1.0, np.nan, 1.0, 1.0])
    with pytest.warns(UserWarning, match="mean shift nan standard deviations"):
        fit(model, x, ShiftMonitor(x))


@keras.saving.register_keras_serializable(package="tests")
class FailsOnDemand(layers.Layer):
    fails = False

    def call(self, x):
        if self.fails:
            raise RuntimeError("on demand")
        return x


def test_layers_are_not_observed_after_a_record_nor_after_a_failure():
    x = uneven((80, 4))
    failing = FailsOnDemand()
    model = keras.Sequential([keras.Input((4,)), norm("a"), failing, norm("b")])
    monitor = ShiftMonitor(x, tolerance=math.inf)
    fit(model, x, monitor)
    assert not _observe._OBSERVERS.get()
    failing.fails = True  # training runs what was traced before
    with pytest.raises(RuntimeError, match="on demand"):
        monitor.on_epoch_end(1)
    assert not _observe._OBSERVERS.get()
    assert len(monitor.history) == 2


def trained_variables(*callbacks):
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            norm(),
            layers.Dense(6, "relu", activity_regularizer="l2"),
            layers.Dropout(0.3),
            # Draws at inference too, from state that training goes on with.
            KDropout(0.3, seed=1, monte_carlo=True),
            norm("second", renorm=True),
            layers.Dense(1),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    x = uneven((80, 4))
    history = model.fit(
        x, x[:, :1], batch_size=8, epochs=2, verbose=0, callbacks=list(callbacks)
    )
    variables = [*model.variables, *model.optimizer.variables]
    return history.history, [ops.convert_to_numpy(v) for v in variables]


@pytest.mark.any_backend
def test_training_is_the_same_bit_for_bit():
    monitor = ShiftMonitor(uneven((32, 4)), frequency=3, tolerance=math.inf)
    history, with_monitor = trained_variables(monitor)
    expected_history, without = trained_variables()
    assert monitor.history
    assert history == expected_history
    for one, other in zip(with_monitor, without, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("records", [1, 3])
def test_plot(tmp_path, records):
    pytest.importorskip("matplotlib")
    model = keras.Sequential([keras.Input((4,)), norm("good"), norm("a" * 40)])
    x = uneven((80, 4))
    monitor = ShiftMonitor(x, tolerance=math.inf)
    fit(model, x, monitor, epochs=records)
    for suffix in ("png", "svg"):
        monitor.plot(tmp_path / f"shift.{suffix}")
    assert (tmp_path / "shift.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    # Matplotlib writes each text of an SVG in a comment too.
    text = (tmp_path / "shift.svg").read_text("utf-8")
    assert "good" in text
    assert f"…{'a' * 29}" in text
    assert "a" * 30 not in text
    for row in monitor.history[-2:]:
        assert f"mean shift {row['mean_shift']:.2g}" in text


def test_plot_before_training():
    with pytest.raises(ValueError, match=r"history=\[\].*Give the monitor to `fit`"):
        ShiftMonitor(uneven((8, 4))).plot("nowhere.png")


def test_plot_without_matplotlib(monkeypatch):
    model = keras.Sequential([keras.Input((4,)), norm()])
    x = uneven((80, 4))
    monitor = ShiftMonitor(x, tolerance=math.inf)
    fit(model, x, monitor)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        monitor.plot("nowhere.png")


def test_a_model_without_batch_normalization_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization()])
    with pytest.raises(ValueError, match=r"with a KBatchNorm.*kerasnorm\.convert"):
        fit(model, uneven((16, 4)), ShiftMonitor(uneven((8, 4))))


@pytest.mark.parametrize(
    ("options", "error", "received"),
    [
        ({"x": None}, TypeError, "x=None"),
        ({"x": []}, TypeError, r"x=\[\]"),
        ({"x": iter(())}, TypeError, "one batch, without the targets"),
        ({"x": np.zeros((0, 4))}, ValueError, r"x=\[\(0, 4\)\]"),
        ({"x": np.float32(1)}, ValueError, r"x=\[\(\)\]"),
        ({"frequency": 0}, ValueError, "frequency=0"),
        ({"frequency": -3}, ValueError, "frequency=-3"),
        ({"frequency": "batch"}, ValueError, "frequency='batch'"),
        ({"frequency": 2.5}, TypeError, "frequency=2.5"),
        ({"frequency": True}, TypeError, "frequency=True"),
        ({"tolerance": -0.1}, ValueError, "tolerance=-0.1"),
        ({"tolerance": "0.5"}, TypeError, "tolerance='0.5'"),
    ],
)
def test_bad_arguments(options, error, received):
    with pytest.raises(error, match=received):
        ShiftMonitor(**{"x": np.zeros((4, 4)), **options})


@pytest.mark.any_backend
def test_a_probe_that_does_not_fit_the_model():
    model = keras.Sequential([keras.Input((4,)), norm()], name="net")
    message = r"`x` .* that 'net' takes, \(None, 4\)\. Received: x=\(8, 5\)"
    with pytest.raises(ValueError, match=message):
        fit(model, uneven((16, 4)), ShiftMonitor(uneven((8, 5))))
    with pytest.raises(ValueError, match=r"same number of samples.*\(8, 5\), \(4,"):
        ShiftMonitor([uneven((8, 5)), uneven((4, 5))])
