"""Where datasets come from: TFDS, archives, folders; and what is refused."""

import hashlib
import shutil
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from filelock import FileLock

from tests.conftest import ARCHIVES
from tests.training.data.folders import fingerprints, open_folder, picture
from training.config import TrainConfig
from training.data.pipeline import load
from training.data.sources import LOCK
from training.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fashion-MNIST as TFDS prepares it, with 70 images in place of 70,000."""
    place = tmp_path_factory.mktemp("prepared")
    builder = tfds.builder("fashion_mnist", data_dir=place)

    def split_generators(self: object, manager: object) -> dict[str, Any]:
        return {"train": examples(60), "test": examples(10)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(builder), "_split_generators", split_generators)
        builder.download_and_prepare()
    return place


def examples(number: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for index in range(number):
        image = np.full((28, 28, 1), index, np.uint8)
        yield index, {"image": image, "label": index % 10}


def test_what_a_model_card_says(prepared: Path) -> None:
    fashion = load(TrainConfig(data_dir=prepared))
    assert fashion.version == "3.0.1"
    assert fashion.labels[0] == "T-shirt/top"
    assert len(fashion.labels) == 10
    assert (fashion.dtype, fashion.shape) == ("uint8", (28, 28, 1))
    assert fashion.scale == 1 / 255
    assert fashion.checksums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in ARCHIVES.glob("*.gz")
    }


def test_a_corrupt_archive_is_named_and_nothing_is_prepared(tmp_path: Path) -> None:
    given = tmp_path / "archives"
    given.mkdir()
    for archive in ARCHIVES.glob("*.gz"):
        (given / archive.name).symlink_to(archive)
    path = given / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.unlink()
    path.write_bytes(content)
    config = TrainConfig(data_dir=tmp_path / "data", archives=given)
    with pytest.raises(
        UserError, match=r"^t10k-labels-idx1-ubyte.gz in .* corrupt"
    ) as e:
        load(config)
    assert "\n" not in str(e.value)
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_who_comes_while_another_process_prepares_waits_and_reads_what_it_made(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tfds.core.DatasetBuilder, "download_and_prepare")
    place = tmp_path / "fashion_mnist"
    place.mkdir()
    with ThreadPoolExecutor() as pool:
        with FileLock(place / LOCK):
            future = pool.submit(load, TrainConfig(data_dir=tmp_path))
            assert not wait([future], timeout=2).done
            shutil.copytree(prepared / "fashion_mnist", place, dirs_exist_ok=True)
        assert sum(future.result(timeout=120).sizes.values()) == 70


def test_archives_must_be_those_of_the_dataset(tmp_path: Path) -> None:
    config = TrainConfig(data_dir=tmp_path / "data", archives=tmp_path)
    with pytest.raises(UserError, match=r"`--archives` .*t10k-images.* Received: "):
        load(config)


def test_what_was_tried_is_said_where_there_is_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "head", unreachable)
    with pytest.raises(UserError) as caught:
        load(TrainConfig(dataset="kmnist", data_dir=tmp_path / "data"))
    message = str(caught.value)
    assert "\n" not in message
    for part in ("kmnist", str(tmp_path / "data"), "datasets/kmnist", "no route"):
        assert part in message
    assert message.endswith("--archives DIR.")
    assert not (tmp_path / "data").exists()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every attempt to ask a host fail in a way that no code expects."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a host was asked: {args}")

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "name", ["kmnist", "huggingface:ylecun/mnist", "kaggle:a/b", "beans", "a:b:c"]
)
def test_without_download_no_host_is_asked(name: str, tmp_path: Path) -> None:
    config = TrainConfig(dataset=name, data_dir=tmp_path / "data", download=False)
    with pytest.raises(UserError) as caught:
        load(config)
    message = str(caught.value)
    assert "\n" not in message
    assert name in message
    assert "`--no-download` asks no other host" in message


@pytest.mark.usefixtures("no_network")
def test_without_download_all_archives_must_be_there(tmp_path: Path) -> None:
    given = tmp_path / "archives"
    given.mkdir()
    for archive in ARCHIVES.glob("t10k*.gz"):
        (given / archive.name).symlink_to(archive)
    config = TrainConfig(data_dir=tmp_path / "data", archives=given, download=False)
    with pytest.raises(UserError, match="Give all its original archives"):
        load(config)


@pytest.mark.usefixtures("no_network")
def test_without_download_what_is_prepared_is_read(prepared: Path) -> None:
    fashion = load(TrainConfig(data_dir=prepared, download=False))
    assert sum(fashion.sizes.values()) == 70


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client of Hugging Face ask nobody: it asks six times, for 23 seconds."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # read when it is imported
    if constants := sys.modules.get("huggingface_hub.constants"):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("fashion_mnits", "Received: fashion_mnits. Did you mean fashion_mnist"),
        ("qqqqqqqqqq", "Received: qqqqqqqqqq.$"),
        ("fashion-mnist", "fashion-mnist is not known .*Did you mean fashion_mnist"),
        ("foo bar", "foo bar is not known to TFDS"),
        ("a:b:c", "a:b:c is not known to TFDS"),
        ("emnist/leters", "Did you mean emnist/letters"),
        ("huggingface:mnist", "`--dataset` huggingface:mnist "),
        ("mnist:9.9.9", "mnist:9.9.9 is not known to TFDS"),
        ("mnist/data_dir=/etc", "mnist/data_dir=/etc is not known to TFDS"),
        ("imdb_reviews", "must be an image classification set.*imdb_reviews"),
        ("coco", "must be an image classification set.*coco"),
        ("folder:/no/such", "must name a directory. Received: /no/such"),
    ],
)
def test_an_unusable_dataset_is_named(
    tmp_path: Path, name: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        load(TrainConfig(dataset=name, data_dir=tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""  # TFDS prints banners
    assert not (tmp_path / "data").exists()


class UnheardOfError(Exception):
    """Of a class that training/ does not know."""


@pytest.mark.parametrize(
    ("said", "reason"), [("no route\nto host", "no route"), ("", "UnheardOfError")]
)
def test_whatever_a_library_of_the_dataset_raises_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, reason: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise UnheardOfError(said)

    config = TrainConfig(data_dir=tmp_path / "data")
    for owner, name in (
        (tfds.core.DatasetBuilder, "download_and_prepare"),
        (tfds, "builder"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(
                UserError, match="fashion_mnist is not available"
            ) as caught:
                load(config)
        assert f"UnheardOfError: {reason}" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_folder_with_too_few_pictures_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "0.png")
    picture(tmp_path / "b" / "0.png")
    with pytest.raises(UserError, match=r"too few images"):
        open_folder(tmp_path)


def test_a_version_that_is_prepared_is_read_from_its_files(prepared: Path) -> None:
    named = load(TrainConfig(dataset="fashion_mnist:3.0.1", data_dir=prepared))
    newest = load(TrainConfig(data_dir=prepared))
    assert named.name == "fashion_mnist:3.0.1"
    assert (named.version, named.labels) == (newest.version, newest.labels)
    assert named.checksums == newest.checksums
    assert named.sizes == newest.sizes
    assert fingerprints(named.batches("test", 4)) == fingerprints(
        newest.batches("test", 4)
    )


def test_a_version_whose_code_tfds_has_not_is_read_from_its_files(
    prepared: Path, tmp_path: Path
) -> None:
    place = tmp_path / "own_set"
    shutil.copytree(prepared / "fashion_mnist", place)
    for path in place.rglob("*"):
        if path.is_file():
            text = path.read_bytes().replace(b'"fashion_mnist"', b'"own_set"')
            path.write_bytes(text)
            path.rename(path.with_name(path.name.replace("fashion_mnist", "own_set")))
    data = load(TrainConfig(dataset="own_set:3.0.1", data_dir=tmp_path))
    assert sum(data.sizes.values()) == 70
    assert data.checksums == {}
