"""Pipelines and sources, on real archives and folders of pictures."""

import gzip
import hashlib
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from filelock import FileLock
from PIL import Image

from tests.conftest import ARCHIVES, Run
from training.config import TrainConfig
from training.data import archives
from training.data.pipeline import Data, load, resize
from training.data.sources import LOCK
from training.errors import UserError

Split = Callable[[str], tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def fashion(finished: Run) -> Data:
    return load(TrainConfig(data_dir=finished.data_dir))


def counted(images: Any, labels: Any) -> Counter[tuple[bytes, int]]:
    pairs = zip(images, labels, strict=True)
    return Counter((hashlib.md5(i.tobytes()).digest(), int(k)) for i, k in pairs)


def all_of(dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def fingerprints(dataset: tf.data.Dataset) -> list[bytes]:
    return [hashlib.md5(i.tobytes()).digest() for i in all_of(dataset)[0]]


def test_every_image_of_the_archives_is_in_one_split(
    fashion: Data, fashion_mnist: Split
) -> None:
    train, validation, test = (
        counted(*all_of(fashion.batches(split, 256)))
        for split in ("train", "validation", "test")
    )
    assert train + validation == counted(*fashion_mnist("train"))
    assert test == counted(*fashion_mnist("test"))
    assert fashion.sizes == {"train": 57000, "validation": 3000, "test": 10000}
    assert fashion.notes == ("validation: 3000 images split off from train",)


def test_what_a_model_card_says(fashion: Data) -> None:
    assert fashion.version == "3.0.1"
    assert fashion.labels[0] == "T-shirt/top"
    assert len(fashion.labels) == 10
    assert (fashion.dtype, fashion.shape) == ("uint8", (28, 28, 1))
    assert fashion.scale == 1 / 255
    assert fashion.checksums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in ARCHIVES.glob("*.gz")
    }


@pytest.fixture(scope="module")
def folder(pictures: Path) -> Data:
    return load(TrainConfig(dataset=f"folder:{pictures}", validation_split=0.1))


def test_an_epoch_is_each_training_image_once_and_keeps_the_last_batch(
    folder: Data,
) -> None:
    batches = list(folder.epochs(0, 2, 100, seed=3).as_numpy_iterator())
    assert [len(labels) for _, labels in batches] == 2 * [100, 100, 100, 100, 80]
    one_epoch = counted(*all_of(folder.batches("train", 480)))
    for epoch in (batches[:5], batches[5:]):
        images, labels = zip(*epoch, strict=True)
        assert counted(np.concatenate(images), np.concatenate(labels)) == one_epoch


def test_the_order_follows_from_seed_and_epoch_alone(folder: Data) -> None:
    whole = fingerprints(folder.epochs(0, 3, 100, seed=3))
    keras.utils.set_random_seed(0)
    assert fingerprints(folder.epochs(0, 3, 100, seed=3)) == whole
    keras.utils.set_random_seed(12)
    assert fingerprints(folder.epochs(1, 3, 100, seed=3)) == whole[480:]
    assert fingerprints(folder.epochs(2, 3, 100, seed=3)) == whole[960:]
    assert whole[:480] != whole[480:960]
    assert fingerprints(folder.epochs(0, 1, 100, seed=4)) != whole[:480]


def test_a_corrupt_archive_is_named_and_nothing_is_prepared(tmp_path: Path) -> None:
    given = tmp_path / "archives"
    shutil.copytree(ARCHIVES, given)
    path = given / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    config = TrainConfig(data_dir=tmp_path / "data", archives=given)
    with pytest.raises(
        UserError, match=r"^t10k-labels-idx1-ubyte.gz in .* corrupt"
    ) as e:
        load(config)
    assert "\n" not in str(e.value)
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_who_comes_while_another_process_prepares_waits_and_reads_what_it_made(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tfds.core.DatasetBuilder, "download_and_prepare")
    place = tmp_path / "fashion_mnist"
    place.mkdir()
    with ThreadPoolExecutor() as pool:
        with FileLock(place / LOCK):
            future = pool.submit(load, TrainConfig(data_dir=tmp_path))
            assert not wait([future], timeout=3).done
            prepared = finished.data_dir / "fashion_mnist"
            shutil.copytree(prepared, place, dirs_exist_ok=True)
        assert sum(future.result(timeout=120).sizes.values()) == 70_000


def test_archives_must_be_those_of_the_dataset(tmp_path: Path) -> None:
    config = TrainConfig(data_dir=tmp_path / "data", archives=tmp_path)
    with pytest.raises(UserError, match=r"`--archives` .*t10k-images.* Received: "):
        load(config)


def test_archives_are_looked_for_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    for place in ("given", "own/datasets/some_set", "system/some-set", "workspace"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.zip").write_text(place)
    (workspace / "a.zip").unlink()
    monkeypatch.setattr(archives, "REPOSITORY", tmp_path / "own")
    monkeypatch.setattr(archives, "SYSTEM", tmp_path / "system")

    def found(given: Path | None = None) -> Path | None:
        return archives.find("some_set", ["a.zip", "b.zip"], given, workspace)

    assert found(tmp_path / "given") == tmp_path / "given"
    assert found() == tmp_path / "own/datasets/some_set"
    shutil.rmtree(tmp_path / "own")
    assert found() == tmp_path / "system/some-set"  # as they are
    assert list(workspace.iterdir()) == []
    shutil.rmtree(tmp_path / "system")
    assert found() is None


@pytest.mark.parametrize("with_name", [False, True])
def test_rewritten_gzip_headers_are_restored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, with_name: bool
) -> None:
    monkeypatch.setattr(archives, "REPOSITORY", tmp_path / "own")
    monkeypatch.setattr(archives, "SYSTEM", tmp_path / "system")
    source, destination = tmp_path / "system" / "fashion-mnist", tmp_path / "restored"
    source.mkdir(parents=True)
    destination.mkdir()
    names = sorted(path.name for path in ARCHIVES.glob("*.gz"))
    for name in names:
        original = (ARCHIVES / name).read_bytes()
        deflated = original[original.index(b"\0", 10) + 1 :]
        header = struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, 8 * with_name, 0, 2, 3)
        (source / name).write_bytes(header + b"other\0" * with_name + deflated)
        assert gzip.decompress((source / name).read_bytes())
    assert archives.find("fashion_mnist", names, None, destination) == destination
    for name in names:
        assert (destination / name).read_bytes() == (ARCHIVES / name).read_bytes()


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


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("fashion_mnits", "Received: fashion_mnits. Did you mean fashion_mnist"),
        ("qqqqqqqqqq", "Received: qqqqqqqqqq.$"),
        ("fashion-mnist", "fashion-mnist is not known .*Did you mean fashion_mnist"),
        ("foo bar", "foo bar is not known to TFDS"),
        ("a:b:c", "a:b:c is not known to TFDS"),
        ("emnist/leters", "Did you mean emnist/letters"),
        ("mnist:9.9.9", "mnist:9.9.9 is not known to TFDS"),
        ("mnist/data_dir=/etc", "mnist/data_dir=/etc is not known to TFDS"),
        ("imdb_reviews", "must be an image classification set.*imdb_reviews"),
        ("coco", "must be an image classification set.*coco"),
        ("folder:/no/such", "must name a directory. Received: /no/such"),
    ],
)
def test_an_unusable_dataset_is_named(
    tmp_path: Path, name: str, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        load(TrainConfig(dataset=name, data_dir=tmp_path / "data"))
    assert "\n" not in str(caught.value)
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


def picture(path: Path, size: tuple[int, int] = (10, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = len(list(path.parent.iterdir()))
    shape = (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def open_folder(root: Path, **options: Any) -> Data:
    return load(TrainConfig(dataset=f"folder:{root}", **options))


def test_classes_without_splits(tmp_path: Path) -> None:
    for index in range(10):
        picture(tmp_path / "pets" / "cat" / f"{index}.png")
        picture(tmp_path / "pets" / "dog" / f"{index}.JPG")
    (tmp_path / "pets" / "dog" / "notes.txt").write_text("not a picture")
    data = open_folder(tmp_path / "pets", validation_split=0.2)
    assert data.labels == ("cat", "dog")
    assert data.shape == data.served_shape == (8, 10, 3)
    assert data.sizes == {"validation": 4, "test": 4, "train": 12}
    assert len(data.notes) == 2
    every = [all_of(data.batches(split, 5)) for split in data.sizes]
    assert Counter(np.concatenate([labels for _, labels in every])) == {0: 10, 1: 10}
    assert len(counted(*map(np.concatenate, zip(*every, strict=True)))) == 20


@pytest.mark.parametrize("validation", ["validation", "valid", "val"])
def test_splits_with_classes(tmp_path: Path, validation: str) -> None:
    for split, count in {"train": 10, validation: 3, "test": 2}.items():
        for index in range(count):
            picture(tmp_path / split / "a" / f"{index}.png", mode="L")
    data = open_folder(tmp_path)
    assert data.sizes == {"train": 10, "validation": 3, "test": 2}
    assert data.notes == ()
    assert data.shape == (8, 10, 1)
    for split in data.sizes:
        folder = tmp_path / (validation if split == "validation" else split) / "a"
        pixels = [np.asarray(Image.open(path)) for path in folder.iterdir()]
        images, labels = all_of(data.batches(split, 4))
        assert counted(images[..., 0], labels) == counted(pixels, [0] * len(pixels))


def test_a_single_split_of_any_name_is_trained_on(tmp_path: Path) -> None:
    for index in range(10):
        picture(tmp_path / "images" / "a" / f"{index}.png")
    assert open_folder(tmp_path).sizes == {"validation": 1, "test": 1, "train": 8}


def test_pictures_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    for index in range(6):
        picture(tmp_path / "a" / f"{index}.png", size=(10 + index, 9))
    with pytest.raises(UserError, match=r"differ in size.*--image-size N"):
        open_folder(tmp_path)
    data = open_folder(tmp_path, image_size=16)
    assert data.shape == (16, 16, 3)
    assert data.served_shape == (None, None, 3)
    images, _ = all_of(data.batches("train", 2))
    assert (images.shape, images.dtype) == ((4, 16, 16, 3), np.uint8)


def test_unusable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must hold PATH/CLASS"):
        open_folder(tmp_path)
    picture(tmp_path / "left" / "a" / "0.png")
    picture(tmp_path / "right" / "a" / "0.png")
    with pytest.raises(UserError, match=r"split named train. Received: left, right"):
        open_folder(tmp_path)
    picture(tmp_path / "few" / "a" / "0.png")
    picture(tmp_path / "few" / "a" / "1.png")
    with pytest.raises(UserError, match=r"too few images"):
        open_folder(tmp_path / "few")


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_broken_picture_is_named(tmp_path: Path, content: bytes | None) -> None:
    picture(tmp_path / "a" / "good.png")
    picture(tmp_path / "a" / "bad.png", size=(100, 100))
    path = tmp_path / "a" / "bad.png"
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(UserError, match=rf"{path} is not a readable picture"):
        open_folder(tmp_path)


def test_resizing_averages_and_keeps_the_dtype() -> None:
    images = np.zeros((1, 4, 4, 1), np.uint8)
    images[0, :, 2:] = 255
    small = resize(tf.constant(images), (2, 2)).numpy()
    assert small.dtype == np.uint8
    assert (small[0, :, 0] < 64).all()
    assert (small[0, :, 1] > 191).all()
    constant = resize(tf.fill((1, 7, 5, 3), tf.constant(200, tf.uint8)), (3, 9)).numpy()
    assert constant.shape == (1, 3, 9, 3)
    assert (constant == 200).all()
