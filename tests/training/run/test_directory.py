"""The directory of a new run."""

from pathlib import Path

from training.cli.command_line import load
from training.config import TrainConfig
from training.run.directory import create


def test_each_run_gets_a_directory_of_its_own(tmp_path: Path) -> None:
    config = TrainConfig(name="m", run_dir=tmp_path / "runs", seed=5)
    made = [create(config) for _ in range(3)]
    assert made == [tmp_path / "runs" / name for name in ("m", "m-2", "m-3")]
    for directory in made:
        assert load(directory / "config.json") == config
