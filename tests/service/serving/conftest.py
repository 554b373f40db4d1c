"""SavedModels that the tests of serving share. They are made once, and only read."""

from pathlib import Path

import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from tests.service.serving.served import save_all, save_scale


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save all models of `served.py`, each as version 1."""
    directory = tmp_path_factory.mktemp("models")
    save_all(directory)
    return directory


@pytest.fixture(scope="session")
def scales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save models that multiply by 1, 2, 3 and 4, named by their factor."""
    directory = tmp_path_factory.mktemp("scales")
    for factor in range(1, 5):
        save_scale(directory / str(factor), factor)
    return directory
