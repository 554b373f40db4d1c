"""Queues in processes of their own, and the run that none of them disturbs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.services import CONFIG, QueueProcess


@pytest.fixture(scope="session")
def config(few_pictures: Path) -> dict[str, Any]:
    """Options of a run whose epochs are short, and so many that it can be stopped."""
    return {**CONFIG, "epochs": 25, "dataset": f"folder:{few_pictures}"}


@pytest.fixture(scope="session")
def undisturbed(
    config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run of `config` from its beginning to its end, in this process."""
    import keras

    from training import job
    from training.config import TrainConfig

    root = tmp_path_factory.mktemp("undisturbed")
    places = {"run_dir": root / "r", "export_dir": root / "e"}
    keras.utils.clear_session()  # layers are named as in a process of its own
    job.train(TrainConfig.model_validate({**config, **places}))
    return root / "r" / "fashion"


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., QueueProcess]]:
    """Start queues on one directory; what still runs at the end is killed."""
    queues: list[QueueProcess] = []

    def start(**options: Any) -> QueueProcess:
        queues.append(QueueProcess(tmp_path, **options))
        return queues[-1].start()

    yield start
    for queue in queues:
        queue.end()
