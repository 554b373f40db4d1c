"""Every example runs, on real data, and shows what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

EXAMPLES = sorted((REPOSITORY / "examples").glob("[0-9]*.py"))
SHOWN = {
    "1_convert": r"difference of the logits: \d\.\de-0[5-9]",
    "2_fold": r"DenseNet121.*\n(.*\n)+  largest error: \d\.\de-0[5-9]",
    "3_recalibrate": r"after  recalibrating: test",
    "4_shift_monitor": r"validation accuracy 0\.\d+, recalibrated 0\.\d+",
    "5_monte_carlo": r"mutual_information AUROC 0\.[789]",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example(path: Path, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert re.search(SHOWN[path.stem], process.stdout)
    assert len(path.read_text().splitlines()) <= 60
