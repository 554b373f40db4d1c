"""What the library relies on inside of Keras. A failure here means Keras changed it."""

import importlib.util
import inspect

import keras
import pytest
from keras import layers

from kerasnorm import _keras
from kerasnorm.transforms._graph import Graph
from tests.kerasnorm.probes import KERAS


def by_name(found):
    return [layer.name for layer in found]


def test_all_layers_are_those_of_every_depth_each_once():
    """`Layer._flatten_layers(include_self=False)`."""
    shared = layers.Dense(3, name="shared")
    inner = keras.Sequential([layers.Input((5, 3)), shared], name="inner")
    x = inputs = keras.Input((5, 3), name="input")
    x = layers.TimeDistributed(layers.Dense(3, name="wrapped"), name="wrapper")(x)
    model = keras.Model(inputs, shared(inner(x)))
    found = by_name(_keras.all_layers(model))
    expected = ["input", "wrapper", "wrapped", "inner", "shared"]
    assert [name for name in found if name in expected] == expected
    assert len(found) == len(set(found)), "Keras lists a shared layer more than once."
    assert by_name(_keras.all_layers(layers.Dense(3))) == []


class Doubled(keras.Model):
    """A functional model that does not call its graph alone."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def test_models_that_have_a_graph_and_run_it():
    """`Functional`, `Functional.call`, `Sequential.call`."""
    inputs = keras.Input((3,))
    outputs = layers.Dense(2)(inputs)
    models = [keras.Model(inputs, outputs), keras.Sequential([layers.Dense(2)])]
    for model in models:
        assert _keras.has_graph(model)
        assert _keras.runs_its_graph(model)
    assert _keras.has_graph(Doubled(inputs, outputs))
    assert not _keras.runs_its_graph(Doubled(inputs, outputs))
    for other in (keras.Model(), layers.Dense(2), None):
        assert not _keras.has_graph(other)
        assert not _keras.runs_its_graph(other)


@pytest.mark.any_backend
def test_a_layer_becomes_another_one_wherever_it_is():
    """`__dict__`, `_inbound_nodes`, `_outbound_nodes`, `_path`, `_parent_path`."""

    class Holder(layers.Layer):
        def __init__(self):
            super().__init__()
            self.one = layers.Dense(2, name="one")
            self.several = [self.one, {"one": self.one}]

        def call(self, x):
            return self.several[0](x)

    holder, alone = Holder(), layers.Dense(2, name="alone")
    inputs = keras.Input((2,))
    model = keras.Model(inputs, alone(holder(inputs)))
    paths = holder.one.path, alone.path
    for old in (holder.one, alone):
        new = layers.EinsumDense("ab,bc->ac", 2, name=f"new_{old.name}")
        new.build((None, 2))
        new.kernel.assign([[0.0, 2.0], [1.0, 0.0]])
        _keras.become(old, new)
    _keras.track_variables(model)
    assert type(holder.one) is layers.EinsumDense
    assert holder.several[1]["one"] is holder.one
    assert (holder.one.path, alone.path) == paths
    assert by_name(_keras.all_layers(model))[1:] == [
        holder.name,
        "new_one",
        "new_alone",
    ]
    x = keras.ops.convert_to_tensor([[1.0, 3.0]])
    # Each swaps the two and doubles what was the first.
    assert keras.ops.convert_to_numpy(model(x)).tolist() == [[2.0, 6.0]]
    assert len(model.weights) == 2
    entries = model.get_config()["layers"]
    assert [entry["class_name"] for entry in entries][-1] == "EinsumDense"
    if keras.backend.backend() == "torch":
        held = {id(p) for p in model.parameters()}
        assert held == {id(w.value) for w in model.weights}


def test_compile_arguments_are_those_that_were_given():
    """`Model._compile_config.config`."""

    def unregistered_loss(y_true, y_pred):
        return keras.ops.mean(y_pred - y_true)

    model = keras.Sequential([layers.Input((3,)), layers.Dense(1)])
    model.compile("sgd", unregistered_loss, metrics=["mae"], run_eagerly=True)
    arguments = _keras.compile_arguments(model)
    assert arguments["loss"] is unregistered_loss, "Keras keeps another loss."
    assert arguments["metrics"] == ["mae"]
    assert arguments["run_eagerly"] is True
    taken = set(inspect.signature(keras.Model.compile).parameters)
    assert set(arguments) <= taken, "`compile` does not take what Keras keeps."


def test_an_optimizer_knows_the_variables_that_it_was_built_for():
    """`Optimizer._trainable_variables`."""
    optimizer = keras.optimizers.Adam()
    assert _keras.trained_variables(optimizer) == []
    variables = [keras.Variable([1.0, 2.0]), keras.Variable([3.0])]
    optimizer.build(variables)
    trained = _keras.trained_variables(optimizer)
    assert list(map(id, trained)) == list(map(id, variables))


def test_an_optimizer_has_its_slots_in_lists_in_the_order_of_the_variables():
    """`Optimizer._variables`, `_model_variables_moving_average`."""
    optimizer = keras.optimizers.Nadam(use_ema=True)
    variables = [keras.Variable([1.0, 2.0], name=name) for name in ("b", "a")]
    optimizer.build(variables)
    slots = _keras.slots(optimizer)
    assert {id(s) for s in slots.values()} == {id(v) for v in optimizer.variables}
    for variable in variables:
        of_it = {
            name: slot for (name, key), slot in slots.items() if key == id(variable)
        }
        assert len(of_it) == 3  # momentum, velocity, average
        assert _keras.AVERAGES in of_it
        assert all(f"/{variable.name}_" in slot.path for slot in of_it.values())


def test_a_metric_keeps_its_function():
    """`MeanMetricWrapper._fn`, `_fn_kwargs`."""
    given = lambda true, predicted, factor: (true - predicted) * factor  # noqa: E731
    metric = keras.metrics.MeanMetricWrapper(given, factor=2)
    assert _keras.wrapped_function(metric) == (given, {"factor": 2})


def test_a_variable_takes_another_path():
    """`Variable._path`."""
    variable = keras.Variable([1.0], name="kernel")
    _keras.set_path(variable, "net/layer/kernel")
    assert variable.path == "net/layer/kernel"


def test_an_optimizer_knows_what_decays():
    """`Optimizer._use_weight_decay`."""
    optimizer = keras.optimizers.AdamW()
    kernel, bias = (keras.Variable([1.0], name=name) for name in ("kernel", "bias"))
    optimizer.exclude_from_weight_decay([bias])
    optimizer.build([kernel, bias])
    assert _keras.decays(optimizer, kernel)
    assert not _keras.decays(optimizer, bias)


def test_a_lambda_layer_keeps_its_functions_and_serializes_their_code():
    """`Lambda.function`, `_output_shape`, `mask`; the `"__lambda__"` entries."""
    given = {
        "function": lambda x: x + 1,
        "output_shape": lambda shape: shape,
        "mask": lambda x, mask: mask,
    }
    layer = layers.Lambda(**given)
    config = layer.get_config()
    for argument, function in given.items():
        assert _keras.lambda_argument(layer, argument) is function, argument
        assert config[argument]["class_name"] == "__lambda__", argument


class Forgetful(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)

    def get_config(self):
        return super().get_config()


def test_an_error_of_deserialization_says_why_in_one_line():
    """`Exception encountered: ...` at the end of the message."""
    config = keras.saving.serialize_keras_object(Forgetful(3))
    with pytest.raises(TypeError) as caught:
        keras.saving.deserialize_keras_object(
            config, custom_objects={"Forgetful": Forgetful}
        )
    reason = _keras.why_not_made(caught.value)
    assert "missing 1 required positional argument: 'units'" in reason
    assert "config" not in reason
    assert "\n" not in reason
    assert _keras.why_not_made(ValueError()) == "ValueError()"


def test_variables_are_not_cast_where_the_policy_is_mixed():
    """`AutocastScope(None)`."""

    class Own(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(1,), initializer="ones")

        def call(self, x):
            self.cast = self.w.value.dtype
            with _keras.without_autocast():
                self.raw = self.w.value.dtype
            return x

    layer = Own(dtype="mixed_bfloat16")
    layer(keras.ops.ones(1))
    dtypes = map(keras.backend.standardize_dtype, (layer.cast, layer.raw))
    assert list(dtypes) == ["bfloat16", "float32"]


def test_training_is_that_of_the_call_around():
    """`CallContext.training`, `"current_call_ctx"`."""

    class Seen(layers.Layer):
        def call(self, x, training=None):
            self.training = training
            return x

    seen, x = Seen(), keras.ops.ones((1, 2))
    with _keras.call_in(layers.Identity(), True):
        seen(x)
        assert seen.training is True
        with _keras.call_in(layers.Identity(), False):
            seen(x)
        assert seen.training is True, "Within a call its own `training` counts."
    seen(x)
    assert not seen.training


def test_a_stateless_scope_is_known():
    """`in_stateless_scope`."""
    assert not _keras.in_stateless_scope()
    with keras.StatelessScope():
        assert _keras.in_stateless_scope()


class Exporting(layers.Layer):
    """Notes what is said of the export that calls it."""

    found = None

    def call(self, x):
        Exporting.found = _keras.export_in_progress()
        return x


def test_an_export_in_progress_is_known(tmp_path):
    """The modules and names of Keras's exporters, and their variables."""
    for module, name in _keras._EXPORTERS:
        if KERAS >= (3, 15) or importlib.util.find_spec(module):
            assert callable(getattr(importlib.import_module(module), name))
    if KERAS >= (3, 12):
        onnx = importlib.import_module("keras.src.export.onnx").export_onnx
        used = {"opset_version"}
        if KERAS >= (3, 14):
            used |= {"dynamic_axes", "flat_specs"}
        assert used <= set(onnx.__code__.co_varnames)
    model = keras.Sequential([keras.Input((3,)), Exporting()])
    assert Exporting.found is None
    model.export(str(tmp_path), verbose=False)
    exported_to, variables = Exporting.found
    assert exported_to == "tf_saved_model"
    assert variables["model"] is model


def test_an_error_of_a_layer_stays_as_it_is():
    """`_keras_call_info_injected`."""

    class Failing(layers.Layer):
        def call(self, x):
            raise _keras.in_one_line(ValueError("one line"))

    with pytest.raises(ValueError, match=r"^one line$"):
        Failing()(keras.ops.ones((2, 3)))


def test_a_symbolic_tensor_knows_what_makes_it():
    """`KerasTensor._keras_history`, `Node.input_tensors`."""
    inputs = keras.Input((3,))
    shared = layers.Dense(3)
    first, second = shared(inputs), shared(shared(inputs))
    assert _keras.producer(first) == (shared, [inputs])
    made_by, (made_of,) = _keras.producer(second)
    assert made_by is shared
    assert made_of is not inputs


def test_an_error_of_a_call_says_why_in_one_line():
    """`Exception encountered when calling ...`, and the arguments behind it."""
    model = keras.Sequential([layers.Input((3,)), layers.Dense(1)])
    with pytest.raises(ValueError, match="Exception encountered") as caught:
        model(keras.ops.ones((2, 4)))
    reason = _keras.reason_of(caught.value)
    assert "incompatible" in reason or "Invalid input shape" in reason
    assert "\n" not in reason
    assert "\x1b" not in reason
    assert _keras.reason_of(ValueError()) == "ValueError()"


def test_the_configuration_of_a_functional_model_is_its_graph():
    """`layers`, `inbound_nodes`, `keras_history`, `output_layers`."""
    first, second = (keras.Input((3,), name=name) for name in ("first", "second"))
    shared = layers.Dense(3, name="shared")
    total = layers.Add(name="total")([shared(first), shared(second)])
    model = keras.Model([first, second], {"sum": total, "raw": first})
    graph = Graph(model.get_config())
    assert list(graph.entries) == by_name(model.layers)
    assert len(graph.calls("shared")) == 2
    (call,) = graph.calls("total")
    tensor = call["args"][0][1]
    assert tensor["class_name"] == "__keras_tensor__"
    assert tensor["config"]["keras_history"] == ["shared", 1, 0]
    assert graph.inputs(call) == [("shared", 0, 0), ("shared", 1, 0)]
    assert graph.consumers("total") == [None]
    assert graph.config["output_layers"]["raw"] == ["first", 0, 0]


def test_the_entry_of_a_layer_has_what_makes_it_again():
    """`module`, `class_name`, `registered_name`, `config`, `build_config`."""
    layer = layers.Dense(3, name="dense")
    layer.build((None, 5))
    entry = keras.saving.serialize_keras_object(layer)
    assert (entry["module"], entry["class_name"]) == ("keras.layers", "Dense")
    assert entry["config"]["name"] == "dense"
    assert tuple(entry["build_config"]["input_shape"]) == (None, 5)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's checkpoints"
)
def test_a_checkpoint_asks_a_layer_for_its_children(tmp_path):
    """`Layer._trackable_children(save_type="checkpoint")`."""
    import tensorflow as tf

    child = tf.Variable(7.0)

    class WithChild(layers.Layer):
        def _trackable_children(self, save_type="checkpoint", **kwargs):
            children = super()._trackable_children(save_type, **kwargs)
            return {**children, "child": child}

    path = tf.train.Checkpoint(layer=WithChild()).save(tmp_path / "checkpoint")
    saved = [name for name, _ in tf.train.list_variables(path)]
    name = "layer/child/.ATTRIBUTES/VARIABLE_VALUE"
    assert name in saved, "tf.train.Checkpoint does not ask for `_trackable_children`."
