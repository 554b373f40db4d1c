"""Export a trained model as a versioned SavedModel that plain TensorFlow serves."""

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import keras
import tensorflow as tf

import kerasnorm
from kerasnorm.transforms.monte_carlo import batch_seed, draw_masks
from training import formats
from training.config import TrainConfig
from training.data.pipeline import Data, resize
from training.errors import UserError, first_line
from training.run import files
from training.run.atomic import sync, sync_tree

_UNCERTAINTY = f"""
`{files.MONTE_CARLO_SIGNATURE}`: `images` as above, `seed` and `samples`, int32, ():
the prediction averaged over that many random dropout masks. The same seed and images
give the same answer; no variable changes. The N of `--monte-carlo N` is the signature's
default of `samples`, which TensorFlow Serving gives to gRPC requests without it.

| output | type | meaning |
|---|---|---|
| `mean`, `variance` | float32 (batch, classes) | of the probabilities over the masks |
| `predictive_entropy` | float32 (batch,) | the uncertainty, in nats |
| `expected_entropy` | float32 (batch,) | its part that lies in the image |
| `mutual_information` | float32 (batch,) | its part that lies in the model |
"""

_OTHER_FORMATS = """
## Other formats

Each takes `images`, {dtype}, (any batch size, {shape}), and has the outputs above.
Those named `monte_carlo` also take `seed`, int32, (1,), and have the outputs of the
signature of that name: for the same seed the same masks as there. The error is the
largest of the probabilities, averages and entropies to the Keras model's on images of
the test split.

| file | largest error |
|---|---|
{rows}

{examples}"""

_EXAMPLES = {
    ".onnx": """import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
logits, = session.run(["logits"], {"images": images})""",
    ".tflite": """from ai_edge_litert.interpreter import Interpreter

answer = Interpreter("model.tflite").get_signature_runner()(images=images)""",
    ".xml": """import openvino

# With its default precision some processors answer with errors of 1e-2.
precision = {"INFERENCE_PRECISION_HINT": "f32"}
compiled = openvino.Core().compile_model("model.xml", "CPU", precision)
logits = compiled({"images": images})["logits"]""",
}

SOFTWARE = ("tensorflow", "keras", "tensorflow-datasets", "numpy")


def export(
    model: keras.Model,
    data: Data,
    config: TrainConfig,
    metrics: files.Metrics,
    measures: files.Measures,
    run: str,
) -> Path:
    """Write the next version of the model, whole or not at all.

    Args:
        model: The trained model, from images to logits.
        data: The dataset it was trained on.
        config: The options of the run.
        metrics: Loss and accuracy by split, for the model card.
        measures: How good the predictions of the test images are, for it too.
        run: The `run_id`. A half-written version of the same run is removed first.

    Returns:
        The directory of the new version. If the run has exported one before, that.

    Raises:
        UserError: If the version cannot be written.
    """
    directory = config.export_dir / config.export_name
    staging = directory / f".incomplete-{run}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if earlier := _version_of(run, directory):
            return earlier
        shutil.rmtree(staging, ignore_errors=True)
        folding: list[str] = []
        served = kerasnorm.fold(model, folding.append) if config.fold else model
        _write_saved_model(served, model, data, config, staging)
        errors = formats.write(served, model, data, config, staging)
        card = _model_card(data, config, metrics, measures, folding, errors, run)
        (staging / files.CARD).write_text(card, encoding="utf-8")
        files.write_card(staging, _card_data(data, config, metrics, run))
        sync_tree(staging)
        version = _publish(staging, directory)
        sync(directory)
        sync(config.export_dir)
        return version
    except UserError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    except (OSError, tf.errors.OpError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise UserError(
            f"The model could not be exported to {directory}: {first_line(error)}."
        ) from error


def _write_saved_model(
    served: keras.Model,
    model: keras.Model,
    data: Data,
    config: TrainConfig,
    directory: Path,
) -> None:
    """Write `served`, and the signature of `model`'s random masks."""

    def resized(images: tf.Tensor) -> tf.Tensor:
        is_resized = data.served_shape != data.shape
        return resize(images, data.shape[:2]) if is_resized else images

    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = served(resized(images), training=False)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "classes": tf.argmax(logits, axis=-1),
        }

    # A tensor as a Python default becomes the signature's, which servers apply.
    default_samples = tf.constant(config.monte_carlo or 1)

    def monte_carlo(
        images: tf.Tensor, seed: tf.Tensor, samples: tf.Tensor = default_samples
    ) -> dict[str, tf.Tensor]:
        seed = batch_seed(seed)
        return draw_masks(model, resized(images), seed, samples, from_logits=True)

    archive = keras.export.ExportArchive()
    archive.track(served)
    images = tf.TensorSpec((None, *data.served_shape), data.dtype, name="images")
    archive.add_endpoint("serve", serve, input_signature=[images])
    if config.monte_carlo:
        archive.track(model)
        number = tf.TensorSpec((), "int32")
        archive.add_endpoint(
            files.MONTE_CARLO_SIGNATURE,
            monte_carlo,
            input_signature=[images, number, number],
        )
    archive.write_out(str(directory), verbose=False)


def _version_of(run: str, directory: Path) -> Path | None:
    """Return the version that a run exported before it was killed, if there is one."""
    for path in directory.glob("[0-9]*"):
        card = files.model_card(path)
        if card is not None and card.run == run:
            return path
    return None


def _publish(staging: Path, directory: Path) -> Path:
    """Give a complete version the next free number."""
    while True:
        taken = [int(p.name) for p in directory.iterdir() if p.name.isdecimal()]
        target = directory / str(max(taken, default=0) + 1)
        try:
            return staging.rename(target)
        except OSError:
            if not target.exists():
                raise


def _card_data(
    data: Data, config: TrainConfig, metrics: files.Metrics, run: str
) -> files.ModelCard:
    return files.ModelCard(
        run=run,
        classes=list(data.labels),
        dataset=data.name,
        dataset_version=data.version,
        metrics=metrics,
        options=config.model_dump(mode="json"),
    )


def _other_formats(errors: dict[str, float], data: Data) -> str:
    """Return the part of the model card on the files of other formats."""
    if not errors:
        return ""
    rows = "\n".join(f"| `{name}` | {error:.1e} |" for name, error in errors.items())
    examples = "\n".join(
        f"```python\n{example}\n```\n"
        for suffix, example in _EXAMPLES.items()
        if f"{files.MODEL_STEM}{suffix}" in errors
    )
    shape = ", ".join(map(str, data.shape))
    return _OTHER_FORMATS.format(
        rows=rows, examples=examples, shape=shape, dtype=data.dtype
    )


def _model_card(
    data: Data,
    config: TrainConfig,
    metrics: files.Metrics,
    measures: files.Measures,
    folding: list[str],
    errors: dict[str, float],
    run: str,
) -> str:
    labels = "\n".join(f"| {i} | {name} |" for i, name in enumerate(data.labels))
    classes = "\n".join(
        f"| {each.name} | {each.precision:.4f} | {each.recall:.4f} | {each.f1:.4f} | "
        f"{each.images} |"
        for each in measures.classes
    )
    scores = "\n".join(
        f"| {split} | {data.sizes[split]} | {s.loss:.4f} | {s.accuracy:.4f} |"
        for split, s in metrics
    )
    checksums = "\n".join(f"| {n} | `{c}` |" for n, c in data.checksums.items())
    notes = "".join(f"\n- {note}" for note in data.notes)
    software = "\n".join(f"- {name} {version(name)}" for name in SOFTWARE)
    inside = "Scaling and resizing happen" if config.image_size else "Scaling happens"
    shape = ", ".join("any" if n is None else str(n) for n in data.served_shape)
    lines = "".join(f"\n- {line}" for line in folding)
    model = (
        f"Batch normalization is folded into the layers beside it, and dropout is left "
        f"out; what became of each layer:\n{lines}"
        if config.fold
        else "The model is exported as it was trained, not folded."
    )
    uncertainty = _UNCERTAINTY if config.monte_carlo else ""
    example = json.dumps({"instances": ["<image>"]})
    return f"""# {config.export_name}

{config.model} for {data.name}: {len(data.labels)} classes.

## Signature

`{files.DEFAULT_SIGNATURE}`: `images`, {data.dtype}, (any batch size, {shape}), as the
dataset has them. {inside} inside.

| output | type | meaning |
|---|---|---|
| `logits` | float32 (batch, {len(data.labels)}) | before the softmax |
| `probabilities` | float32 (batch, {len(data.labels)}) | sum to 1 |
| `classes` | int64 (batch,) | the index of the likeliest class |
{uncertainty}
## Model

{model}

## Serve

The directory above this one is a model base path of TensorFlow Serving. Send
`POST /v1/models/{config.export_name}:predict` with `{example}`; or in Python

```python
model = tf.saved_model.load("<this directory>")
answer = model.signatures["{files.DEFAULT_SIGNATURE}"](images=images)
```
{_other_formats(errors, data)}
## Metrics

In inference mode.

| split | images | loss | accuracy |
|---|---|---|---|
{scores}

Of the test images, the true class is among the five likeliest for
{measures.top_5_accuracy:.2%}. The expected calibration error, the mean difference of
confidence and accuracy in 15 bins, is {measures.calibration_error:.2%}. By class:

| name | precision | recall | F1 | images |
|---|---|---|---|---|
{classes}

## Classes

| index | name |
|---|---|
{labels}

## Data

{data.name}, version {data.version}.
{notes}

| archive | SHA-256 |
|---|---|
{checksums}

## Training

Run `{run}`, with these options:

```json
{config.model_dump_json(indent=2)}
```

## Software

- Python {platform.python_version()}
{software}
"""
