"""Names of datasets that are known before anything is downloaded."""

from pathlib import Path

import pytest

from training.config import TrainConfig
from training.data.names import complaint_about_name


@pytest.mark.parametrize(
    "name",
    [
        *("fashion_mnist", "mnist", "MNIST", "FashionMNIST", "emnist/letters"),
        *("fashion_mnist:3.0.1", "emnist/letters:3.1.0", "mnist:3.*.*"),
        *("huggingface:mnist", "huggingface:user/name", "folder:/nowhere"),
        *("prepared", "prepared/plain:1.0.0"),
    ],
)
def test_a_known_name_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "prepared").mkdir()
    assert complaint_about_name(TrainConfig(dataset=name, data_dir=tmp_path)) is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fashion_mnits", " Did you mean fashion_mnist"),
        ("mnistt/x:1.0.0", " Did you mean mnist"),
        *((name, "") for name in ("no_such_set_at_all", "prepared2", "mnist:1.0")),
        *((name, "") for name in ("/etc/passwd", "../mnist", "gs://tfds-data/mnist")),
        *((name, "") for name in ("mnist/x=/etc", "kubric:kubric_frame", "a b")),
        *((name, "") for name in ("huggingface:../x", "huggingface:/etc", ".")),
    ],
)
def test_another_name_is_refused_in_one_line(
    tmp_path: Path, name: str, hint: str
) -> None:
    """Also what TFDS would take for code of others, or for arguments of its own."""
    (tmp_path / "prepared").mkdir()
    complaint = complaint_about_name(TrainConfig(dataset=name, data_dir=tmp_path))
    assert complaint is not None
    assert complaint.startswith("`dataset` must be the name of a TFDS dataset, folder:")
    assert f"Received: {name}.{hint}" in complaint
    assert "\n" not in complaint
