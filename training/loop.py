"""One training job: `train` starts it, `resume` goes on with it."""

import json
import math
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import tensorflow as tf

import kerasnorm
import models
from training import report
from training.checkpoint import Checkpoint, RunState
from training.claim import claim
from training.config import REPOSITORY, TrainConfig
from training.data import SPLITS, Data, load
from training.errors import UserError, first_line
from training.evaluation import finish
from training.export import export
from training.files import check_writable, write_atomically
from training.monitor import draw, make_monitor
from training.progress import Progress

WARM_UP = 0.2  # of all steps


@dataclass(frozen=True)
class Result:
    """What a finished run has reached, as in its result.json."""

    directory: Path
    export: Path
    epochs: int
    training_seconds: float
    metrics: dict[str, dict[str, float]]


def train(config: TrainConfig) -> Result:
    """Trains a model, reports on it and exports it.

    Args:
        config: The options of the job.

    Returns:
        Metrics of every split and where everything lies.

    Raises:
        UserError: If an option does not fit the others or the machine.
    """
    data = load(config)
    check_writable(config.run_dir, "--run-dir")
    check_writable(config.export_dir / config.export_name, "--export-dir")
    directory = _new_directory(config)
    write_atomically(directory / "config.json", config.model_dump_json(indent=2) + "\n")
    with claim(directory):
        return _run(config, data, directory)


def resume(directory: Path, config: TrainConfig) -> Result:
    """Goes on with a run after its last finished epoch.

    The weights and the history end up as if the run had not been interrupted.

    Args:
        directory: The directory of the run.
        config: The options of the run, from its config.json; those that say where
            things lie may differ.

    Returns:
        As `train`; at once if the run has finished and its export is there.

    Raises:
        UserError: If another process trains there, the data cannot be had or a
            directory cannot be written to.
    """
    finished = _finished(directory, config)
    if finished is None:
        check_writable(directory, "--resume")
        with claim(directory):
            # Again: the process that trained here until now may have finished.
            finished = _finished(directory, config)
            if finished is None:
                data = load(config)
                check_writable(config.export_dir / config.export_name, "--export-dir")
                return _run(config, data, directory)
    print(f"The run in {directory} has finished; nothing is left to do.")
    _show(finished)
    return finished


def _run(config: TrainConfig, data: Data, directory: Path) -> Result:
    keras.utils.set_random_seed(config.seed)
    steps = math.ceil(data.sizes["train"] / config.batch_size)
    model = _compiled_model(config, data, steps)
    hint = _resume_command(directory)
    print(f"{_description(config, data, model)}\nIf interrupted, go on with: {hint}")
    try:
        history = _fit(model, config, data, steps, directory)
        if config.recalibrate:
            print(f"Recalibrating with {config.recalibrate:,} training images")
            images = data.splits["train"].take(config.recalibrate)
            kerasnorm.recalibrate(
                model,
                images.batch(config.batch_size),
                verbose=int(sys.stdout.isatty()),
            )
        metrics = finish(model, data, config, history, directory)
        path = export(model, data, config, metrics, f"incomplete-{directory.name}")
        result = Result(
            directory=directory,
            export=path,
            epochs=len(history),
            training_seconds=round(sum(row["seconds"] for row in history), 1),
            metrics=metrics,
        )
        write_atomically(
            directory / "result.json", json.dumps(asdict(result), indent=2, default=str)
        )
    except KeyboardInterrupt:
        print(f"\nInterrupted. Go on with: {hint}", flush=True)
        raise
    except (UserError, OSError, tf.errors.OpError) as error:
        reason = first_line(error)
        raise UserError(f"{reason} The run is kept; go on with: {hint}") from error
    _show(result)
    return result


def _compiled_model(config: TrainConfig, data: Data, steps: int) -> keras.Model:
    options = {"preset": config.preset} if config.model == "mlp" else {}
    model = models.build(
        config.model,
        data.shape,
        len(data.labels),
        norm=config.norm,
        dropout_rate=config.dropout_rate,
        max_norm=config.max_norm,
        scale=data.scale,
        **options,
    )
    warm_up_steps = round(WARM_UP * steps * config.epochs)
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            warmup_target=config.learning_rate,
            warmup_steps=warm_up_steps,
            decay_steps=steps * config.epochs - warm_up_steps,
        ),
        weight_decay=config.weight_decay,
    )
    # Decaying gamma and beta pulls every normalized unit towards 0.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # A checkpoint can only be restored into variables that exist.
    optimizer.build(model.trainable_variables)
    return model


def _fit(
    model: keras.Model, config: TrainConfig, data: Data, steps: int, directory: Path
) -> list[dict[str, float]]:
    early_stopping = (
        keras.callbacks.EarlyStopping(
            patience=config.patience, restore_best_weights=True
        )
        if config.patience
        else None
    )
    monitor = make_monitor(config, data, steps)
    state = RunState(early_stopping, monitor)
    checkpoint = Checkpoint(model, state, directory)
    checkpoint.restore()
    done = config.epochs if state.stopped_early else len(state.history)
    model.fit(
        data.epochs(done, config.epochs, config.batch_size, config.seed),
        steps_per_epoch=steps,
        initial_epoch=done,
        epochs=config.epochs,
        validation_data=data.batches("validation", config.batch_size),
        callbacks=[
            keras.callbacks.TensorBoard(str(directory / "logs")),
            Progress(directory, config.epochs, steps),
            *([early_stopping] if early_stopping else []),
            *([monitor] if monitor else []),
            checkpoint,
        ],
        shuffle=False,  # `data` has shuffled
        verbose=1 if sys.stdout.isatty() else 2,
    )
    if monitor:
        draw(monitor, directory)
    return state.history


def _new_directory(config: TrainConfig) -> Path:
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        directory = config.run_dir / f"{config.export_name}{suffix}"
        try:
            directory.mkdir()
        except FileExistsError:
            number += 1
            continue
        return directory


def _finished(directory: Path, config: TrainConfig) -> Result | None:
    """What a run has reached if it has finished and its export is where it belongs."""
    path = directory / "result.json"
    if not path.exists():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    export = Path(values["export"])
    if export.parent != config.export_dir / config.export_name or not export.is_dir():
        return None
    return Result(**{**values, "directory": directory, "export": export})


def _description(config: TrainConfig, data: Data, model: keras.Model) -> str:
    sizes = ", ".join(f"{data.sizes[split]:,} {split}" for split in SPLITS)
    shape = "x".join(map(str, data.shape))
    notes = "".join(f"\n{data.name} {note}" for note in data.notes)
    return (
        f"{config.model} with {model.count_params():,} parameters on {data.name}: "
        f"{sizes} images of {shape}.{notes}"
    )


def _show(result: Result) -> None:
    report.print_metrics(result.metrics)
    print(
        f"{result.epochs} epochs in {result.training_seconds:.0f} s\n"
        f"run:    {_short(result.directory)}\n"
        f"export: {_short(result.export)}"
    )


def _resume_command(directory: Path) -> str:
    words = (Path(sys.executable), REPOSITORY / "train.py", "--resume", directory)
    return shlex.join(str(_short(w) if isinstance(w, Path) else w) for w in words)


def _short(path: Path) -> Path:
    """Relative to the working directory where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
