"""Train one model: its optimizer, its callbacks, its checkpoints."""

import functools
import math
import sys
from pathlib import Path

import keras

from training.cluster.fit import fit_together
from training.cluster.team import Team
from training.config import TrainConfig
from training.data.pipeline import Data
from training.errors import UserError
from training.model import made_model
from training.report.monitor import draw, make_monitor
from training.run import files
from training.run.checkpoint import Checkpoint, RunState
from training.run.progress import ReportProgress

WARM_UP = 0.2  # of all steps


def compiled_model(config: TrainConfig, data: Data, begins: bool = True) -> keras.Model:
    """Make the model of a job, compiled; the same variables at every call.

    Without `begins` it has not taken `--weights`: a checkpoint is restored into it.
    """
    keras.utils.set_random_seed(config.seed)
    steps = _steps(config, data)
    model = made_model(config, data, begins)
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
        # One that has its variables: Keras makes those of a name in the first step,
        # which TensorFlow then traces twice.
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile={"auto": "auto", "on": True, "off": False}[config.jit],
    )
    # A checkpoint can only be restored into variables that exist. Keras wraps the
    # optimizer where a loss of half precision must be scaled.
    model.optimizer.build(model.trainable_variables)
    return model


def fit(
    model: keras.Model,
    config: TrainConfig,
    team: Team,
    data: Data,
    directory: Path | None,
) -> list[dict[str, float]]:
    """Train to the end, from the last finished epoch on.

    Args:
        model: What `compiled_model` returns, on the devices of the team.
        config: The options of the job.
        team: The replicas that train it.
        data: The dataset.
        directory: The directory of the run. None for a new run on a worker that is
            not the chief.

    Returns:
        The metrics of each epoch.

    Raises:
        UserError: If a checkpoint cannot be written, another worker is lost or the
            workers see different checkpoints.
    """
    early_stopping = (
        keras.callbacks.EarlyStopping(
            patience=config.patience, restore_best_weights=True
        )
        if config.patience
        else None
    )
    steps = _steps(config, data)
    monitor = make_monitor(config, data, steps)
    state = RunState(early_stopping, monitor)
    if directory is not None:
        checkpoint = Checkpoint(model, state, directory)
        checkpoint.restore()
    done = config.epochs if state.stopped_early else len(state.history)
    if not team.all_equal(done):
        raise UserError(
            "All workers must see the same checkpoints, in a shared file system. "
            f"Received: {directory} with {done} epochs here, others elsewhere."
        )
    callbacks = [
        *([early_stopping] if early_stopping else []),
        *([monitor] if monitor else []),
        keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: state.give_to_callbacks()
        ),
    ]
    if directory is not None and team.is_chief:
        callbacks = [
            keras.callbacks.TensorBoard(str(directory / files.TENSORBOARD)),
            ReportProgress(directory, config.epochs, steps),
            *callbacks,
            checkpoint,
        ]
    train = (
        functools.partial(model.fit, shuffle=False)  # `data` has shuffled
        if team.is_one_device
        else functools.partial(fit_together, team, model)
    )
    train(
        data.epochs(
            done, config.epochs, config.batch_size, config.seed, config.augment
        ),
        steps_per_epoch=steps,
        initial_epoch=done,
        epochs=config.epochs,
        validation_data=data.batches("validation", config.batch_size),
        callbacks=callbacks,
        verbose=(1 if sys.stdout.isatty() else 2) if team.is_chief else 0,
    )
    if monitor and directory is not None:
        draw(monitor, directory)
    return state.history


def _steps(config: TrainConfig, data: Data) -> int:
    """Return the number of steps in an epoch."""
    return math.ceil(data.sizes["train"] / config.batch_size)
