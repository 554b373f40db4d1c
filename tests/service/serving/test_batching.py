"""TensorFlow Serving's file of batching parameters."""

from pathlib import Path

import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.batching import BatchingParameters, read_batching_parameters
from training.errors import UserError


def test_the_batching_parameters_of_a_file(tmp_path: Path) -> None:
    """As in TensorFlow Serving's documentation of batching."""
    path = tmp_path / "batching.config"
    path.write_text(
        "max_batch_size { value: 128 }\n"
        "batch_timeout_micros { value: 0 }\n"
        "max_enqueued_batches { value: 1000000 }\n"
        "num_batch_threads { value: 8 }\n"
        "allowed_batch_sizes: 8 allowed_batch_sizes: 128"
    )
    expected = BatchingParameters(128, 0, 1000000, 8, (8, 128))
    assert read_batching_parameters(path) == expected
    path.write_text("")
    assert read_batching_parameters(path) == BatchingParameters()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max_batch_size: 128", "must name a readable BatchingParameters"),
        ("max_size { value: 1 }", 'no field named "max_size"'),
        ("max_batch_size { value: 0 }", "`max_batch_size` must be .*Received: 0"),
        ("batch_timeout_micros { value: -1 }", "at least 0. Received: -1"),
        ("allowed_batch_sizes: [8, 16]", r"1000. Received: \[8, 16\]"),
        ("allowed_batch_sizes: [0, 1000]", r"Received: \[0, 1000\]"),
        ("allowed_batch_sizes: [9, 8, 1000]", r"Received: \[9, 8, 1000\]"),
    ],
)
def test_a_wrong_batching_parameters_file_is_one_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "batching.config"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        read_batching_parameters(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"missing\.config"):
        read_batching_parameters(tmp_path / "missing.config")
