"""What kerasnorm takes from inside of Keras: one function each.

`tests/kerasnorm/test_keras.py` says what each of them relies on.
"""

import contextlib
import inspect
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
from keras.src import backend
from keras.src.backend.common import global_state
from keras.src.layers.layer import CallContext
from keras.src.models.functional import Functional
from keras.src.saving import saving_lib


def all_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return every layer inside of a model or layer, however deep, each once.

    The public `layers` are those of a model's first level, and a layer has none.
    """
    layers: list[keras.layers.Layer] = layer._flatten_layers(include_self=False)
    return layers


def has_graph(layer: Any) -> bool:
    """Return whether a layer is a Sequential or functional model.

    Its class may be one's own. No public class is that of functional models alone.
    """
    return isinstance(layer, (Functional, keras.Sequential))


def runs_its_graph(layer: Any) -> bool:
    """Return whether calling a model runs its graph, and no `call` of its class."""
    calls = (Functional.call, keras.Sequential.call)
    return has_graph(layer) and type(layer).call in calls


_PLACE = ("_inbound_nodes", "_outbound_nodes", "_path", "_parent_path")
"""What a layer knows of the graph and of the layer that it is in."""


def become(layer: keras.layers.Layer, other: keras.layers.Layer) -> None:
    """Turn a layer into another one, at the place where it is.

    What refers to it then refers to the other: graphs, attributes, lists, dictionaries,
    and what Keras and the backend note of them. No list names all of these.
    """
    vars(other).update({name: vars(layer)[name] for name in _PLACE})
    # Keras would track what is set by `setattr`.
    object.__setattr__(layer, "__dict__", vars(other))
    set_class(layer, type(other))


@contextlib.contextmanager
def without_configs(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Let layers have an empty configuration in the block, such as need none."""
    layers = list(layers)
    try:
        for layer in layers:
            object.__setattr__(layer, "get_config", dict)
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "get_config")


def leave_graphs(layer: keras.layers.Layer) -> None:
    """Let a layer forget where it was called, to stand in a new graph alone."""
    layer._inbound_nodes.clear()
    layer._outbound_nodes.clear()


def set_class(layer: keras.layers.Layer, kind: type) -> None:
    """Give a layer another class, of the same attributes."""
    object.__setattr__(layer, "__class__", kind)


def track_variables(layer: keras.layers.Layer) -> None:
    """Tell PyTorch which parameters a layer has, and those inside of it, by now."""
    if keras.backend.backend() == "torch":
        for each in (layer, *all_layers(layer)):
            each._track_variables()


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Return what a model was compiled with, as it was given.

    The public `get_compile_config` serializes it. A function or class that is not
    registered cannot be made of that again.
    """
    return dict(model._compile_config.config)


def trained_variables(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Return the variables that an optimizer was built for; none before.

    The public `variables` are the optimizer's own. Before Keras 3.9 an optimizer that
    scales the loss leaves them to the one inside of it.
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    own = list(optimizer._trainable_variables)
    return trained_variables(inner) if inner is not None and not own else own


def wrapped_function(
    metric: keras.metrics.MeanMetricWrapper,
) -> tuple[Any, dict[str, Any]]:
    """Return the function of a metric and its arguments, as they were given."""
    return metric._fn, dict(metric._fn_kwargs)


def set_path(thing: keras.Variable | keras.layers.Layer, path: str | None) -> None:
    """Give a variable or a layer a path, by which some optimizers choose variables.

    The public `path` is of the name scopes in which it was made.
    """
    thing._path = path


AVERAGES = "_model_variables_moving_average"
"""Where an optimizer with `use_ema` has the averages of the variables."""


def slots(
    optimizer: keras.Optimizer,
) -> dict[tuple[str, int | None], keras.Variable]:
    """Return an optimizer's own variables by attribute and `id` of what they are of.

    Each is an attribute, with `None` as the `id`, or stands in a list at the place of
    the variable that it belongs to. The public `variables` have neither.
    """
    trained = trained_variables(optimizer)
    own = {id(v) for v in optimizer._variables}
    found: dict[tuple[str, int | None], keras.Variable] = {}
    for attribute, value in vars(optimizer).items():
        if id(value) in own:
            found[attribute, None] = value
        elif (
            isinstance(value, list)
            and value is not optimizer._variables
            and len(value) == len(trained)
        ):
            pairs = zip(trained, value, strict=True)
            found |= {(attribute, id(v)): s for v, s in pairs if id(s) in own}
    return found


def decays(optimizer: keras.Optimizer, variable: keras.Variable) -> bool:
    """Return whether weight decay applies to a variable.

    The public `exclude_from_weight_decay` tells it to the optimizer; nothing public
    asks.
    """
    return bool(optimizer._use_weight_decay(variable))


def without_autocast() -> AbstractContextManager[Any]:
    """Return a context in which variables have their own dtype, whatever the policy.

    In a layer of mixed precision they are read in its compute dtype.
    """
    scope: AbstractContextManager[Any] = backend.AutocastScope(None)
    return scope


def in_stateless_scope() -> bool:
    """Return whether a `keras.StatelessScope` takes in what is assigned."""
    return bool(backend.in_stateless_scope())


@contextlib.contextmanager
def call_in(layer: keras.layers.Layer, training: Any) -> Iterator[None]:
    """Let layers that are given no `training` take this one, as in a call of `layer`.

    Keras before 3.11 does not pass it to a layer whose `call` does not take it. In a
    call of a layer nothing changes.
    """
    name = "current_call_ctx"
    if global_state.get_global_attribute(name) is not None:
        yield
        return
    context = CallContext(entry_layer=layer)
    context.training = training
    global_state.set_global_attribute(name, context)
    try:
        yield
    finally:
        global_state.set_global_attribute(name, None)


def build_at_init(layer: keras.layers.Layer) -> None:
    """Mark a layer as built that has all its variables once it is made.

    A subclass with a `build` of its own is built when it is called. Keras has one
    function for this since 3.11.
    """
    if type(layer).build is keras.layers.Layer.build:
        layer.built = True
        layer._post_build()
        layer._lock_state()


def has_renorm() -> bool:
    """Return whether Keras has batch renormalization: it came with 3.14."""
    return "renorm" in inspect.signature(keras.layers.BatchNormalization).parameters


def producer(tensor: Any) -> tuple[Any, list[Any]]:
    """Return the layer or operation that makes a symbolic tensor, and its inputs."""
    operation, node, _ = tensor._keras_history
    return operation, list(operation._inbound_nodes[node].input_tensors)


_EXPORTERS = {
    ("keras.src.export.saved_model", "export_saved_model"): "tf_saved_model",
    ("keras.src.export.onnx", "export_onnx"): "onnx",
    ("keras.src.export.openvino", "export_openvino"): "openvino",
    ("keras.src.export.litert", "export_litert"): "litert",
    ("keras.src.export.torch", "export_torch"): "torch",
}
"""The functions that `export` calls, by module and name, and its `format` for each."""


def export_in_progress() -> tuple[str, dict[str, Any]] | None:
    """Return the `format` of the `export` that calls this function, if one does.

    With it come the variables of Keras's function for that format. Nothing public tells
    a layer that it is being exported.
    """
    frame = inspect.currentframe()
    while frame is not None:
        function = frame.f_globals.get("__name__"), frame.f_code.co_name
        if function in _EXPORTERS:
            return _EXPORTERS[function], frame.f_locals
        frame = frame.f_back
    return None


def in_one_line(error: Exception) -> Exception:
    """Return an error of a layer's call to which Keras adds no lines of its own."""
    error._keras_call_info_injected = True  # type: ignore[attr-defined]
    return error


def lambda_argument(layer: keras.layers.Lambda, name: str) -> Any:
    """Return an argument of a Lambda layer as it was given.

    Its `get_config` has the bytecode of a function, and `output_shape` is not public.
    """
    return getattr(layer, {"output_shape": "_output_shape"}.get(name, name))


def reason_of(error: Exception) -> str:
    """Return the line in which Keras says why a call of a layer failed.

    Around it are the layer's name, escape sequences, TensorFlow's place in the graph,
    and the arguments.
    """
    text = re.sub(r"\x1b\[[0-9;]*m|{{.*?}} ", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith("Exception encountered when")]
    return (own or lines or [repr(error)])[0]


def why_not_made(error: Exception) -> str:
    """Return the line in which Keras says why an object cannot be deserialized.

    Keras tells it in the message alone, behind the object's whole configuration.
    """
    reason = str(error).rpartition("encountered: ")[2].strip().splitlines()
    return reason[0] if reason else repr(error)


def model_of_file(
    path: Path, custom_objects: dict[str, Any] | None, safe_mode: bool
) -> keras.Model:
    """Return the model that a `.keras` file describes, without what it has learnt.

    The public `load_model` loads that into it at once.
    """
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    return saving_lib._model_from_config(config, custom_objects, True, safe_mode)


def load_state(model: keras.Model, path: Path) -> None:
    """Load what a `.keras` or `.weights.h5` file has, assets such as vocabularies too.

    The public `load_weights` loads no assets.
    """
    failures: dict[int, Any] = {}
    with _opened(path) as (weights, assets):
        saving_lib._load_state(
            model,
            weights,
            assets,
            inner_path="",
            visited_saveables=set(),
            failed_saveables=set(),
            error_msgs=failures,
        )
    if failures:
        layer, error = next(iter(failures.values()))
        raise ValueError(f"{layer.name!r}: {error}")


Shapes = dict[str, tuple[int, ...]]
"""What a file has, or is to have, by its place in it."""


def shapes_in_file(path: Path) -> Shapes:
    """Return the shapes of what a `.keras` or `.weights.h5` file holds."""
    shapes: Shapes = {}

    def note(name: str, entry: Any) -> None:
        if hasattr(entry, "shape"):
            shapes[name] = tuple(entry.shape)

    with _opened(path) as (weights, _):
        weights.h5_file.visititems(note)
    return shapes


def shapes_to_save(model: keras.Model) -> Shapes:
    """Return the shapes of what Keras would save of a model, by the places in a file.

    The places have the names of the layers' classes, or of attributes.
    """
    names = _Names()
    saving_lib._save_state(model, names, None, "", set())
    return names.shapes


class _Names(saving_lib.H5IOStore):
    """Takes in the names of what is saved, and nothing else."""

    def __init__(self) -> None:
        self.shapes: Shapes = {}
        self._group = ""

    def __bool__(self) -> bool:
        return True

    def make(self, path: str, metadata: Any = None) -> "_Names":
        self._group = f"{path}/vars" if path else "vars"
        return self

    def __setitem__(self, key: str, value: Any) -> None:
        self.shapes[f"{self._group}/{key}"] = tuple(value.shape)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open the stores of a file: of weights, and of assets or `None`."""
    with contextlib.ExitStack() as stack:
        assets = None
        if path.suffix == ".keras":
            archive = stack.enter_context(zipfile.ZipFile(path))
            weights = saving_lib.H5IOStore("model.weights.h5", archive, mode="r")
            if any(name.startswith("assets/") for name in archive.namelist()):
                assets = saving_lib.DiskIOStore("assets", archive, mode="r")
                stack.callback(assets.close)
        else:
            weights = saving_lib.H5IOStore(path, mode="r")
        stack.callback(weights.close)
        yield weights, assets
