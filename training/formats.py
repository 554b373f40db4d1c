"""The exported model in other formats, each checked against Keras's answers."""

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

import kerasnorm
from training.config import TrainConfig
from training.data.pipeline import Data
from training.errors import UserError, first_line
from training.run import files

Answers = Mapping[str, np.ndarray]

TOLERANCE = 1e-5
"""The largest error of a probability, an average or an entropy."""

_CHECKED_IMAGES = 8
_CHECKED_SEEDS = (1, -2)


class Format(NamedTuple):
    """A format beside the SavedModel."""

    keras_name: str
    suffix: str
    packages: tuple[str, ...]
    run: Callable[[Path, Answers], Answers]


def check_packages(config: TrainConfig) -> None:
    """Refuse formats for which this environment lacks a package.

    Raises:
        UserError: If a package is missing.
    """
    for name in config.export_formats:
        missing = [p for p in FORMATS[name].packages if not importlib.util.find_spec(p)]
        if missing:
            raise UserError(
                f"`--export-format` {name} needs the package {missing[0]}. Install "
                "what all formats need with: pip install --group exports."
            )


def write(
    served: keras.Model,
    model: keras.Model,
    data: Data,
    config: TrainConfig,
    directory: Path,
) -> dict[str, float]:
    """Write the formats of `config` and check each against the Keras model.

    Args:
        served: The model to export, from images to logits.
        model: The model that was trained, with its dropout.
        data: The dataset.
        config: The options of the run.
        directory: Where the files are written.

    Returns:
        The largest error of each file, by name.

    Raises:
        UserError: If a file cannot be written or answers otherwise than Keras.
    """
    if not config.export_formats:
        return {}
    images = next(data.splits["test"].batch(_CHECKED_IMAGES).as_numpy_iterator())[0]
    exported: list[tuple[str, keras.Model, list[dict[str, np.ndarray]]]] = [
        (files.MODEL_STEM, _classifier(served, data), [{"images": images}])
    ]
    if config.monte_carlo:
        averaged = kerasnorm.monte_carlo_model(
            _with_named_input(model, data), config.monte_carlo, from_logits=True
        )
        calls = [
            {"images": images, "seed": np.array([seed], "int32")}
            for seed in _CHECKED_SEEDS
        ]
        exported.append((files.MONTE_CARLO_STEM, averaged, calls))
    errors = {}
    for name in config.export_formats:
        kind = FORMATS[name]
        for stem, keras_model, calls in exported:
            path = directory / f"{stem}{kind.suffix}"
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the converters' own
                    keras_model.export(str(path), format=kind.keras_name, verbose=False)
                # Of NumPy, for which NaN is the largest.
                worst = np.max(_error(kind, path, keras_model, calls))
                errors[path.name] = float(worst)
            except Exception as error:  # each converter and runtime has its own
                raise UserError(
                    f"The model could not be exported as {name}: {first_line(error)}."
                ) from error
            if not errors[path.name] <= TOLERANCE:
                raise UserError(
                    f"The model was not exported: {path.name} answers otherwise than "
                    f"the Keras model, by {errors[path.name]:.1e}."
                )
    return errors


def _with_named_input(model: keras.Model, data: Data) -> keras.Model:
    images = keras.Input(data.shape, dtype=data.dtype, name="images")
    return keras.Model(images, model(images), name=model.name)


def _classifier(model: keras.Model, data: Data) -> keras.Model:
    """Return the model with the outputs of the SavedModel."""
    images = keras.Input(data.shape, dtype=data.dtype, name="images")
    logits = model(images)
    classes = keras.ops.top_k(logits, 1)[1][:, 0]  # ONNX lacks a part of argmax
    probabilities = keras.ops.softmax(logits)
    outputs = {"logits": logits, "probabilities": probabilities, "classes": classes}
    classifier = keras.Model(images, outputs)
    classifier(images)  # to ONNX Keras exports only what was called
    return classifier


def _error(
    kind: Format, path: Path, model: keras.Model, calls: list[dict[str, np.ndarray]]
) -> list[float]:
    """Return the largest error of each call; infinity where an output is missing."""
    errors = []
    for call in calls:
        answers = kind.run(path, call)
        values = list(call.values())
        expected = model(values if len(values) > 1 else values[0], training=False)
        for name in set(expected) - {"logits", "classes"}:
            ours = keras.ops.convert_to_numpy(expected[name])
            theirs = answers.get(name)
            matches = theirs is not None and theirs.shape == ours.shape
            errors.append(float(abs(theirs - ours).max()) if matches else float("inf"))
        if "classes" in expected:
            is_likeliest = answers["classes"] == answers["probabilities"].argmax(-1)
            errors.append(0.0 if is_likeliest.all() else float("inf"))
    return errors


def _run_onnx(path: Path, inputs: Answers) -> Answers:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _run_openvino(path: Path, inputs: Answers) -> Answers:
    openvino = importlib.import_module("openvino")
    # Its default on some processors is bfloat16, with errors of 1e-2.
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(path), "CPU", precision)
    answers = model(dict(inputs))
    return {name: answers[o] for o in model.outputs for name in o.get_names()}


def _run_litert(path: Path, inputs: Answers) -> Answers:
    litert = importlib.import_module("ai_edge_litert.interpreter")
    runner = litert.Interpreter(str(path)).get_signature_runner()
    return dict(runner(**inputs))


FORMATS = {
    "onnx": Format("onnx", ".onnx", ("tf2onnx", "onnxruntime"), _run_onnx),
    "litert": Format("litert", ".tflite", ("ai_edge_litert",), _run_litert),
    "openvino": Format("openvino", ".xml", ("openvino",), _run_openvino),
}
