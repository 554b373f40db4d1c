"""The life of a training job: `train` starts it, `resume` goes on with it."""

import contextlib
import shlex
import sys
from pathlib import Path

import keras
import tensorflow as tf

import kerasnorm
from training.cli.interruption import say_when_interrupted
from training.cluster.team import Team, copy_variables
from training.compiling import compile_plainly, compiled_model
from training.config import TrainConfig
from training.data.pipeline import SPLITS, Data, load
from training.errors import UserError, first_line
from training.export import export
from training.fitting import fit
from training.formats import check_packages
from training.model import check_source
from training.options.values import REPOSITORY
from training.report.evaluation import (
    Predictions,
    draw,
    finish,
    measure,
    predict_test,
)
from training.report.tables import print_classes, print_metrics
from training.run import files
from training.run.atomic import check_writable
from training.run.checkpoint import newest
from training.run.claim import check_claim, claim, run_id
from training.run.directory import create
from training.run.files import Result


def train(config: TrainConfig) -> Result | None:
    """Train a model, report on it and export it.

    Args:
        config: The options of the job.

    Returns:
        The metrics of every split and where everything lies. None on a worker that
        is not the chief.

    Raises:
        UserError: If an option does not fit the other options or the machine.
    """
    check_packages(config)
    team = Team(config)
    if not team.is_chief:
        _assist(config, team, None)
        return None
    data = team.chief_first(lambda: load(config))
    model = team.build(lambda: compiled_model(config, data))
    check_writable(config.export_dir / config.export_name, "--export-dir")
    directory = create(config)
    with claim(directory):
        config = check_source(config, directory)
        return _run(config, team, data, model, directory)


def resume(directory: Path, config: TrainConfig) -> Result | None:
    """Go on with a run after its last finished epoch.

    The weights and the history become those of a run without an interruption.

    Args:
        directory: The directory of the run.
        config: The options of the run, from its config.json. Those that name a
            directory or devices may differ.

    Returns:
        As `train`; at once if the run has finished and its export is there.

    Raises:
        UserError: If another process trains there, the data is not available or a
            directory cannot be written to.
    """
    finished = _finished(directory, config)
    if finished is None:
        check_packages(config)
        team = Team(config)
        if not team.is_chief:
            _assist(config, team, directory)
            return None
        check_writable(directory, "--resume")
        with claim(directory):
            # Look again: the process that trained here until now may have finished.
            finished = _finished(directory, config)
            if finished is None:
                config = check_source(config, directory)
                data = team.chief_first(lambda: load(config))
                check_writable(config.export_dir / config.export_name, "--export-dir")
                done = newest(directory)
                model = team.build(lambda: compiled_model(config, data, done))
                return _run(config, team, data, model, directory, done)
    print(f"The run in {directory} has finished; nothing is left to do.")
    _show(finished)
    return finished


def _assist(config: TrainConfig, team: Team, directory: Path | None) -> None:
    """Train as a worker that is not the chief; end when the chief ends."""
    print("This worker trains along; the chief reports and exports.", flush=True)
    data = team.chief_first(lambda: load(config))
    done = newest(directory) if directory else 0
    model = team.build(lambda: compiled_model(config, data, done))
    fit(model, config, team, data, directory, done)
    team.barrier()


def _run(
    config: TrainConfig,
    team: Team,
    data: Data,
    model: keras.Model,
    directory: Path,
    done: int = 0,
) -> Result:
    hint = _resume_command(directory)
    print(_description(config, data, model))
    print_classes(data)
    print(f"If interrupted, go on with: {hint}", flush=True)
    say_when_interrupted(f"Interrupted. Go on with: {hint}")
    try:
        history = fit(model, config, team, data, directory, done)
        if not team.is_one_device:
            copy = compiled_model(config, data, config.epochs)
            model = copy_variables(model, copy)
        compile_plainly(model, config)
        if config.recalibrate:
            print(f"Recalibrating with {config.recalibrate:,} training images")
            images = data.splits["train"].take(config.recalibrate)
            kerasnorm.recalibrate(
                model,
                images.batch(config.batch_size),
                verbose=int(sys.stdout.isatty()),
            )
        metrics = finish(model, data, config, directory)
        check_claim(directory)
        predictions = predict_test(model, data, config)
        measures = measure(predictions, data.labels)
        path = export(model, data, config, metrics, measures, run_id(directory))
        _draw(model, data, config, history, predictions, directory)
        result = Result(
            directory=directory,
            export=path,
            epochs=len(history),
            training_seconds=round(sum(row["seconds"] for row in history), 1),
            metrics=metrics,
            test=measures,
        )
        files.write_result(result)
    except (UserError, OSError, tf.errors.OpError) as error:
        reason = first_line(error)
        raise UserError(f"{reason} The run is kept; go on with: {hint}") from error
    _show(result)
    # The result is written, so it does not matter if another worker is lost now.
    with contextlib.suppress(UserError):
        team.barrier()
    return result


def _draw(
    model: keras.Model,
    data: Data,
    config: TrainConfig,
    history: list[dict[str, float]],
    predictions: Predictions,
    directory: Path,
) -> None:
    """Draw the pictures. The model is exported, so the run does not fail with them."""
    try:
        draw(model, data, config, history, predictions, directory)
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        print(f"The pictures could not be drawn: {reason}", flush=True)


def _finished(directory: Path, config: TrainConfig) -> Result | None:
    """Return the result of a run that has finished and whose export is in place."""
    result = files.result(directory)
    belongs = config.export_dir / config.export_name
    if result is None or result.export.parent != belongs:
        return None
    return result.model_copy(update={"directory": directory})


def _description(config: TrainConfig, data: Data, model: keras.Model) -> str:
    sizes = ", ".join(f"{data.sizes[split]:,} {split}" for split in SPLITS)
    shape = "x".join(map(str, data.shape))
    notes = "".join(f"\n{data.name} {note}" for note in data.notes)
    return (
        f"{config.model} with {model.count_params():,} parameters on {data.name}: "
        f"{sizes} images of {shape}.{notes}"
    )


def _show(result: Result) -> None:
    print_metrics(result.metrics)
    print(
        f"{result.epochs} epochs in {result.training_seconds:.0f} s\n"
        f"run:    {_short(result.directory)}\n"
        f"export: {_short(result.export)}"
    )


def _resume_command(directory: Path) -> str:
    words = (Path(sys.executable), REPOSITORY / "train.py", "--resume", directory)
    return shlex.join(str(_short(w) if isinstance(w, Path) else w) for w in words)


def _short(path: Path) -> Path:
    """Return a path relative to the working directory if it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
