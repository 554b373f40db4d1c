"""How exact exported files are, by model and format: `python -m benchmarks.exports`.

It prints the rows of one backend, that of KERAS_BACKEND, for docs/exports.md.
"""

import contextlib
import functools
import importlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kerasnorm
import models

BATCH = 4
SAMPLES = {"torch": 2}  # PyTorch writes a copy of the model for each
SUFFIX = {
    "tf_saved_model": "",
    "onnx": ".onnx",
    "openvino": ".xml",
    "litert": ".tflite",
    "torch": ".pt2",
}
FORMATS = {
    "tensorflow": ("tf_saved_model", "onnx", "openvino", "litert"),
    "jax": ("tf_saved_model", "onnx", "openvino"),
    "torch": ("tf_saved_model", "onnx", "openvino", "litert", "torch"),
}


def trained_like(name: str) -> keras.Model:
    """Return a model with statistics and weights as training may leave them."""
    keras.utils.set_random_seed(0)
    model = models.build(name, (16, 16, 1), 10)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 2, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


def variants(name: str) -> dict[str, keras.Model]:
    """Return what is exported, Keras's own layers first."""
    ours = trained_like(name)
    samples = SAMPLES.get(keras.backend.backend(), 10)
    return {
        "Keras's layers": kerasnorm.convert(ours, to="keras"),
        "ours": ours,
        "folded": kerasnorm.fold(ours),
        "`monte_carlo_model`": kerasnorm.monte_carlo_model(ours, samples, True),
    }


def answers(format: str, path: Path, inputs: list[np.ndarray]) -> list[Any]:
    """Return the outputs of a file, run by its runtime."""
    if format == "tf_saved_model":
        import tensorflow as tf

        model = tf.saved_model.load(str(path))
        outputs = model.serve(inputs if len(inputs) > 1 else inputs[0])
        return list(keras.tree.flatten(outputs))
    if format == "onnx":
        session = importlib.import_module("onnxruntime").InferenceSession(str(path))
        names = [tensor.name for tensor in session.get_inputs()]
        return list(session.run(None, dict(zip(names, inputs, strict=True))))
    if format == "openvino":
        core = importlib.import_module("openvino").Core()
        model = core.compile_model(
            str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        outputs = model(inputs)
        return [outputs[output] for output in model.outputs]
    if format == "litert":
        litert = importlib.import_module("ai_edge_litert.interpreter")
        runner = litert.Interpreter(str(path)).get_signature_runner()
        names = list(runner.get_input_details())
        outputs = runner(**dict(zip(names, inputs, strict=True)))
        return [outputs[name] for name in sorted(outputs)]
    torch = importlib.import_module("torch")
    tensors = [torch.from_numpy(array) for array in inputs]
    program = torch.export.load(str(path)).module()
    outputs = program(tensors if len(tensors) > 1 else tensors[0])
    return list(keras.tree.flatten(outputs))


def error(format: str, model: keras.Model, x: np.ndarray, **options: Any) -> float:
    """Return the root of the mean square error, in that of the outputs, or raise."""
    inputs = [x] if len(model.inputs) == 1 else [x, np.array([3], "int32")]
    expected = model(inputs if len(inputs) > 1 else x, training=False)
    signature = None
    if keras.backend.backend() == "torch":
        specs = [keras.InputSpec(array.dtype.name, array.shape) for array in inputs]
        signature = [specs] if len(inputs) > 1 else specs
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"model{SUFFIX[format]}"
        with quiet():
            model.export(
                str(path),
                format=format,
                verbose=False,
                input_signature=signature,
                **options,
            )
            found = answers(format, path, inputs)
    pairs = zip(found, keras.tree.flatten(expected), strict=True)
    exact = [(np.array(a), keras.ops.convert_to_numpy(b)) for a, b in pairs]
    return max(float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))) for a, b in exact)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what the converters say."""
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nothing:
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            yield


def shown(measure: Callable[[], float], digits: int = 1) -> str:
    """Return the error as a cell, or why there is none."""
    try:
        return f"{measure():.{digits}e}"
    except Exception as failure:  # each converter has its own
        is_ours = isinstance(failure, ValueError) and "Received:" in str(failure)
        return "refused in one line" if is_ours else f"fails: {type(failure).__name__}"


def main() -> None:
    """Print a row for each model and what is exported of it."""
    backend = keras.backend.backend()
    formats = FORMATS[backend]
    x = np.random.default_rng(1).uniform(0, 255, (BATCH, 16, 16, 1)).astype("float32")
    print(f"| {backend} | {' | '.join(formats)} |")
    print("|---|" + "---|" * len(formats))
    for name in ("mlp", "cnn"):
        for what, model in variants(name).items():
            model(x if len(model.inputs) == 1 else [x, np.array([3], "int32")])
            cells = [shown(functools.partial(error, f, model, x)) for f in formats]
            print(f"| {name}, {what} | {' | '.join(cells)} |", flush=True)
    if backend == "tensorflow":
        print_int8()


def print_int8() -> None:
    """Print LiteRT's error with int8 weights and activations."""
    import tensorflow as tf

    rng = np.random.default_rng(2)
    calibration = rng.uniform(0, 255, (100, 1, 16, 16, 1)).astype("float32")
    x = rng.uniform(0, 255, (100, 16, 16, 1)).astype("float32")
    options = {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "representative_dataset": lambda: ([image] for image in calibration),
    }
    print("\n| LiteRT int8 | mlp | cnn |\n|---|---|---|")
    rows: dict[str, list[str]] = {}
    for name in ("mlp", "cnn"):
        for what, model in list(variants(name).items())[:3]:
            measure = functools.partial(error, "litert", model, x, **options)
            rows.setdefault(what, []).append(shown(measure, digits=4))
    for what, cells in rows.items():
        print(f"| {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
