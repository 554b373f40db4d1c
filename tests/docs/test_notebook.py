"""examples/lecture.ipynb runs, in its quick mode, and has the outputs of a full run.

`python -m tests.docs.test_notebook` makes these anew.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "lecture.ipynb"
OF_ANY_SIZE = ("scale_at=where", "loss_at_best_rate", "F.moments", "recalibrate(")
"""In the code of the cells that print the same in the quick mode."""


def execute(notebook: Any, directory: Path, environment: Any) -> None:
    """Run the cells with this Python, whatever kernels the user has installed."""
    import nbclient

    kernels = directory / "kernels" / "python3"
    kernels.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    specification = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(specification))
    environment.setenv("JUPYTER_PATH", str(directory))
    environment.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    nbclient.NotebookClient(
        notebook,
        timeout=3000,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(REPOSITORY)}},
    ).execute()
    for cell in code_cells(notebook):  # without TensorFlow's messages at its start
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def pictures(notebook: Any) -> int:
    outputs = (output for cell in code_cells(notebook) for output in cell.outputs)
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.fixture(scope="module")
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_with_the_outputs_of_a_whole_run(notebook: Any) -> None:
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert not any(o.get("name") == "stderr" for c in cells for o in c.outputs)
    assert pictures(notebook) == 2
    assert NOTEBOOK.stat().st_size < 150_000


def test_it_runs(
    notebook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("nbclient")
    monkeypatch.setenv("KERASNORM_QUICK", "1")
    kept = [printed(cell) for cell in code_cells(notebook)]
    execute(notebook, tmp_path, monkeypatch)
    cells = code_cells(notebook)
    assert "the layer gives the same: True" in "".join(map(printed, cells))
    assert "recalibrated: 1.00" in "".join(map(printed, cells))
    assert pictures(notebook) == 2
    same = [c for c in cells if any(code in c.source for code in OF_ANY_SIZE)]
    assert len(same) == len(OF_ANY_SIZE)
    for cell in same:
        assert printed(cell) == kept[cells.index(cell)]


def store() -> None:
    """Run the whole notebook and keep it with its outputs."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as path:
        patch.delenv("KERASNORM_QUICK", raising=False)
        execute(notebook, Path(path), patch)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    store()
