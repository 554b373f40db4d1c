"""Runs of exported files, each by its own runtime."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SUFFIX = {
    "tf_saved_model": "",
    "onnx": ".onnx",
    "openvino": ".xml",
    "litert": ".tflite",
}

PACKAGES = {
    "tf_saved_model": (),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert.interpreter",),
}

# Warnings of the converters.
QUIET = [
    pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*os.fork:RuntimeWarning"),
]


def need(format: str, backend: str) -> None:
    """Skip the test where a package is missing."""
    converter = {
        ("tensorflow", "onnx"): ("tf2onnx",),
        ("torch", "onnx"): ("onnxscript",),
        ("torch", "litert"): ("litert_torch",),
        ("jax", "tf_saved_model"): ("tensorflow",),
    }
    for package in (*PACKAGES.get(format, ()), *converter.get((backend, format), ())):
        pytest.importorskip(package)


def run(path: Path, inputs: list[Any]) -> list[np.ndarray]:
    """Return the outputs of a file in their order, those of names sorted by name."""
    return {"": _tensorflow, ".onnx": _onnx, ".xml": _openvino, ".tflite": _litert}[
        path.suffix
    ](path, inputs)


def _tensorflow(path: Path, inputs: list[Any]) -> list[np.ndarray]:
    import tensorflow as tf

    model = tf.saved_model.load(str(path))
    answers = model.serve(inputs if len(inputs) > 1 else inputs[0])
    if isinstance(answers, dict):
        return [np.array(answers[name]) for name in sorted(answers)]
    return [np.array(answers)]


def _onnx(path: Path, inputs: list[Any]) -> list[np.ndarray]:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path))
    names = [tensor.name for tensor in session.get_inputs()]
    outputs: list[np.ndarray] = session.run(None, dict(zip(names, inputs, strict=True)))
    return outputs


def _openvino(path: Path, inputs: list[Any]) -> list[np.ndarray]:
    openvino = importlib.import_module("openvino")
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(path), "CPU", precision)
    answers = model(inputs)
    return [answers[output] for output in model.outputs]


def _litert(path: Path, inputs: list[Any]) -> list[np.ndarray]:
    litert = importlib.import_module("ai_edge_litert.interpreter")
    runner = litert.Interpreter(str(path)).get_signature_runner()
    names = list(runner.get_input_details())
    answers = runner(**dict(zip(names, inputs, strict=True)))
    return [answers[name] for name in sorted(answers)]
