"""`train.py --ray ADDRESS --workers N`: Ray places the workers and restarts them.

Ray Train sets TF_CONFIG on each worker; the rest is `--distribute multiworker`. The
nodes share a file system. The repository, its Python and the directories of the run
have the same paths on all of them.
"""

import logging
import os
from pathlib import Path

import absl.logging

from training.cluster.roll_call import answers
from training.config import TrainConfig
from training.errors import UserError, first_line
from training.options.values import REPOSITORY
from training.run.directory import create

MOST_RESTARTS = 3
_ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "PYTHONPATH": str(REPOSITORY),
    "PYTHONUNBUFFERED": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # the patch prints every line twice
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def train(
    config: TrainConfig, directory: Path | None, address: str, workers: int
) -> None:
    """Run a job on a Ray cluster and print its output here.

    If a worker or a node dies, Ray starts all workers again on the nodes that are left.
    They go on from the last checkpoint.

    Args:
        config: The options of the job.
        directory: The directory of the run to go on with; None for a new run.
        address: HOST:PORT of the cluster, or auto for the cluster of this machine.
        workers: The number of workers.

    Raises:
        UserError: If the cluster cannot be reached or the job has failed for good.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Ray Train imports TensorFlow
    try:
        import ray
        from ray.train import (
            FailureConfig,
            RunConfig,
            ScalingConfig,
            TrainingFailedError,
        )
        from ray.train.tensorflow import TensorflowTrainer
    except ImportError as error:
        raise UserError(
            f"`--ray` needs Ray: pip install --group ray. Received: {error}."
        ) from error
    config = config.model_copy(update={"distribute": "multiworker"})
    connect(address, "--ray")
    directory = directory or create(config)
    trainer = TensorflowTrainer(
        _work,
        train_loop_config={
            "config": config.model_dump_json(),
            "directory": str(directory),
        },
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=ray.cluster_resources().get("GPU", 0) >= workers,
            placement_strategy="SPREAD",
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(directory),
            failure_config=FailureConfig(max_failures=MOST_RESTARTS),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise UserError(_reason(error)) from error


def connect(address: str, option: str) -> None:
    """Connect to a Ray cluster.

    Args:
        address: HOST:PORT; auto for the cluster of this machine; local for a new one.
        option: The option that named the address, for the error.

    Raises:
        UserError: If no cluster answers there.
    """
    import ray

    wanted = f"`{option}` must be the address of a Ray cluster. Received: {address}: "
    # Ray itself would try for minutes.
    if address not in ("auto", "local") and not answers(address):
        raise UserError(f"{wanted}no answer.")
    try:
        ray.init(address, runtime_env={"env_vars": _ENVIRONMENT})
    except Exception as error:  # of this class itself, where Ray starts too slowly
        raise UserError(wanted + first_line(error)) from error


def _work(settings: dict[str, str]) -> None:
    """Start or go on with the run; each worker calls this, again at a restart."""
    from training import job

    absl.logging.set_verbosity(absl.logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    config = TrainConfig.model_validate_json(settings["config"])
    job.resume(Path(settings["directory"]), config)


def _reason(error: Exception) -> str:
    """Return the last line of the first worker that failed, the chief if it did."""
    failures = getattr(error, "worker_failures", {})
    first = failures[min(failures)] if failures else error
    return str(first).strip().splitlines()[-1]
