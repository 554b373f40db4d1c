"""The options of serving that are refused."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--batching-parameters-file", "x"], "needs `--enable-batching`"),
        (["--timeout", "0"], "must be more than 0. Received: 0"),
        (["--timeout", "nan"], "must be more than 0. Received: nan"),
        (["--max-queue", "0"], "must be at least 1. Received: 0"),
        (["--port", "65536"], "must be between 0 and 65535. Received: 65536"),
        (["--grpc-port", "99999"], "must be between 0 and 65535. Received: 99999"),
    ],
)
def test_wrong_options(tmp_path: Path, options: list[str], complaint: str) -> None:
    process = subprocess.run(
        [
            *(sys.executable, "-m", "service", "--serve-only"),
            *("--model-base-path", str(tmp_path), *options),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert complaint in process.stderr.splitlines()[-1]
