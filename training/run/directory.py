"""Make the directory of a new run."""

from pathlib import Path

from training.config import TrainConfig
from training.run import files
from training.run.atomic import check_writable, sync


def create(config: TrainConfig) -> Path:
    """Make a new directory for a run, with its config.json.

    Returns:
        DIR/NAME, or DIR/NAME-2 and so on if that exists.

    Raises:
        UserError: If `run_dir` cannot be written to.
    """
    check_writable(config.run_dir, "--run-dir")
    directory = _new(config)
    files.write_config(directory, config)
    sync(config.run_dir)
    return directory


def _new(config: TrainConfig) -> Path:
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
