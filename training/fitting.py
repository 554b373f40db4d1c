"""Train one model: its phases, its callbacks, its checkpoints."""

import functools
import sys
from pathlib import Path

import keras

from training.average import WeightAverage
from training.cluster.fit import fit_together
from training.cluster.team import Team
from training.compiling import compile_to_train, make_optimizer, steps_in_epoch
from training.config import TrainConfig
from training.data.pipeline import Data
from training.errors import UserError
from training.pretrained import head_alone
from training.report.monitor import draw, make_monitor
from training.run import files
from training.run.checkpoint import Checkpoint, RunState
from training.run.progress import ReportProgress


def fit(
    model: keras.Model,
    config: TrainConfig,
    team: Team,
    data: Data,
    directory: Path | None,
    done: int = 0,
) -> list[dict[str, float]]:
    """Train to the end, from the last finished epoch on.

    Args:
        model: What `compiled_model` returns, on the devices of the team.
        config: The options of the job.
        team: The replicas that train it.
        data: The dataset.
        directory: The directory of the run. None for a new run on a worker that is
            not the chief.
        done: The number of the checkpoint to go on from, the one of `compiled_model`.

    Returns:
        The metrics of each epoch.

    Raises:
        UserError: If a checkpoint cannot be written, another worker is lost or the
            workers see different checkpoints.
    """
    early_stopping = (
        keras.callbacks.EarlyStopping(
            patience=config.patience,
            restore_best_weights=True,
            start_from_epoch=config.train_head,
        )
        if config.patience
        else None
    )
    steps = steps_in_epoch(config, data)
    monitor = make_monitor(config, data, steps)
    average = None if config.ema is None else WeightAverage(model, config.ema)
    state = RunState(early_stopping, monitor)
    if directory is not None:
        checkpoint = Checkpoint(model, state, directory, average and average.saved)
        checkpoint.restore(done)
    if state.stopped_early:
        done = config.epochs
    if not team.all_equal(done):
        raise UserError(
            "All workers must see the same checkpoints, in a shared file system. "
            f"Received: {directory} with {done} epochs here, others elsewhere."
        )
    callbacks = [
        *(each for each in (average, early_stopping, monitor) if each),
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
    fit_model = (
        functools.partial(model.fit, shuffle=False)  # `data` has shuffled
        if team.is_one_device
        else functools.partial(fit_together, team, model)
    )

    def train(first: int, last: int) -> None:
        fit_model(
            data.epochs(
                first,
                last,
                config.batch_size,
                config.seed,
                config.augment,
                config.mixup,
                config.softens_labels,
            ),
            steps_per_epoch=steps,
            initial_epoch=first,
            epochs=last,
            validation_data=data.batches("validation", config.batch_size),
            callbacks=callbacks,
            verbose=(1 if sys.stdout.isatty() else 2) if team.is_chief else 0,
        )

    def compile_with(optimizer: keras.Optimizer) -> None:
        team.build(lambda: compile_to_train(model, optimizer, config, data))

    if done < config.train_head:
        with head_alone(model):
            compile_with(model.optimizer)
            train(done, config.train_head)
        done = config.train_head
    if 0 < done == config.train_head:
        # It begins anew: Adam's step for weights without moments is too long later on.
        compile_with(team.build(lambda: make_optimizer(config, data, done)))
    train(done, config.epochs)
    if monitor and directory is not None:
        draw(monitor, directory)
    return state.history
