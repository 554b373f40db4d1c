"""Every example runs, on real data, and shows what it says."""

import json
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
    "2_fold": r"MobileNet.*\n(.*\n)+  largest error: \d\.\de-0[5-9]",
    "3_recalibrate": r"after  recalibrating: test",
    "4_shift_monitor": r"validation accuracy 0\.\d+, recalibrated 0\.\d+",
    "5_monte_carlo": r"mutual_information AUROC 0\.[789]",
}
# What is enough to see: an architecture; training images.
ARGUMENTS = {"2_fold": ["MobileNet"], "3_recalibrate": ["100"]}
ONE_AFTER_THE_OTHER = r"""
import json, os, runpy, sys
for words in json.loads(sys.argv[1]):
    print("\f", flush=True)
    sys.argv, sys.path[0] = words, os.path.dirname(words[0])
    runpy.run_path(words[0], run_name="__main__")
"""


def run(cwd: Path, *words: str) -> str:
    process = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what each example prints.

    The first one runs as a user runs it. The others share a process, since the import
    of TensorFlow takes longer than most of them.
    """
    first, *others = EXAMPLES
    directory = tmp_path_factory.mktemp("examples")
    words = [[str(path), *ARGUMENTS.get(path.stem, [])] for path in others]
    _, *texts = run(directory, "-c", ONE_AFTER_THE_OTHER, json.dumps(words)).split("\f")
    names = [path.stem for path in others]
    return {first.stem: run(directory, str(first))} | dict(
        zip(names, texts, strict=True)
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example(path: Path, printed: dict[str, str]) -> None:
    assert re.search(SHOWN[path.stem], printed[path.stem])
    assert len(path.read_text().splitlines()) <= 60
