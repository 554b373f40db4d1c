"""examples/lecture.ipynb runs, in its quick mode, and is kept without outputs."""

import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "lecture.ipynb"


@pytest.fixture(scope="module")
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_it_runs(
    notebook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("KERASNORM_QUICK", "1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    # This Python, whatever kernels the user has installed.
    kernels = tmp_path / "kernels" / "python3"
    kernels.mkdir(parents=True)
    command = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", '
    command += '"{connection_file}"]'
    (kernels / "kernel.json").write_text(
        f'{{"argv": {command}, "display_name": "Python 3", "language": "python"}}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    client.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(REPOSITORY)}}
    ).execute()
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    assert "the layer gives the same: True" in printed
    assert "recalibrated: 1.00" in printed
    pictures = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2
