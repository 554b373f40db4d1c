"""In which formats a file draws masks as the model does; `export` to others fails."""

import keras

from kerasnorm import _validation
from kerasnorm._keras import export_in_progress, in_one_line

_OF_A_SEED = {
    "tensorflow": ("tf_saved_model", "onnx", "openvino", "litert"),
    "jax": ("tf_saved_model",),
    "torch": ("onnx", "litert", "torch"),
}
"""The formats in which masks of a seed that is an input are those of the model."""

_OF_A_STATE = {
    "tensorflow": ("tf_saved_model",),
    "jax": ("tf_saved_model",),
    "torch": (),
}
"""The formats in which a layer's random state moves on. In others it is a constant."""

_FIRST_OPSET = 18
"""The first version of ONNX's operations that has those of bits."""


def check_masks_move_on(name: str) -> None:
    """Refuse an export in which the layer would draw the same mask in each call."""
    export = export_in_progress()
    backend = keras.backend.backend()
    if export is None or export[0] in _OF_A_STATE.get(backend, ()):
        return
    raise in_one_line(
        ValueError(
            f"`monte_carlo` must be False in an export to {export[0]!r} on the "
            f"{backend} backend, where each call would draw the same mask. Received: "
            f"monte_carlo=True in {name!r}. Export `kerasnorm.monte_carlo_model(model)`"
            ", of which the seed is an input."
        )
    )


def check_draws_of_a_seed(exported_to: str) -> None:
    """Refuse a format in which masks would not be those of a seed that is an input."""
    backend = keras.backend.backend()
    formats = _OF_A_SEED.get(backend, ())
    if exported_to not in formats:
        domain = f"one of {formats} on the {backend} backend, for masks of a seed"
        advice = "The others lack an operation that the masks need."
        _refuse("format", domain, exported_to, advice)


def check_seed_is_exported() -> None:
    """Refuse an export that leads to no file, or to one that its runtime refuses."""
    export = export_in_progress()
    if export is None:
        return
    exported_to, variables = export
    check_draws_of_a_seed(exported_to)
    if exported_to == "onnx" and "opset_version" not in variables:
        domain = "at least 3.12, whose `export` takes `opset_version`"
        advice = "Upgrade it: pip install --upgrade 'keras>=3.12'"
        _refuse("keras", domain, keras.__version__, advice)
    if exported_to == "onnx" and keras.backend.backend() == "tensorflow":
        opset = variables["opset_version"]
        if opset is None or opset < _FIRST_OPSET:
            domain = f"at least {_FIRST_OPSET}, which has operations of bits"
            _refuse("opset_version", domain, opset, "Give it to `export`.")
    if exported_to == "onnx" and variables.get("dynamic_axes"):
        domain = "of a known batch size on the torch backend"
        shapes = [tuple(s.shape) for s in keras.tree.flatten(variables["flat_specs"])]
        advice = "Give `export` an `input_signature` of `keras.InputSpec`s with it."
        _refuse("input_signature", domain, shapes, advice)


def _refuse(argument: str, domain: str, received: object, advice: str) -> None:
    message = _validation.message(argument, domain, received, advice)
    raise in_one_line(ValueError(message))
