"""Splits, epochs and sizes of the images."""

import dataclasses
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.training.data.folders import (
    all_of,
    counted,
    fingerprints,
    open_folder,
    picture,
)
from training.data.pipeline import Data, resize
from training.errors import UserError


@pytest.fixture(scope="module")
def folder(few_pictures: Path) -> Data:
    return open_folder(few_pictures, validation_split=0.1)


def test_an_epoch_is_each_training_image_once_and_keeps_the_last_batch(
    folder: Data,
) -> None:
    batches = list(folder.epochs(0, 2, 30, seed=3).as_numpy_iterator())
    assert [len(labels) for _, labels in batches] == 2 * [30, 30, 20]
    one_epoch = counted(*all_of(folder.batches("train", 80)))
    for epoch in (batches[:3], batches[3:]):
        images, labels = zip(*epoch, strict=True)
        assert counted(np.concatenate(images), np.concatenate(labels)) == one_epoch


def test_the_order_follows_from_seed_and_epoch_alone(folder: Data) -> None:
    whole = fingerprints(folder.epochs(0, 3, 30, seed=3))
    keras.utils.set_random_seed(0)
    assert fingerprints(folder.epochs(0, 3, 30, seed=3)) == whole
    keras.utils.set_random_seed(12)
    assert fingerprints(folder.epochs(1, 3, 30, seed=3)) == whole[80:]
    assert fingerprints(folder.epochs(2, 3, 30, seed=3)) == whole[160:]
    assert whole[:80] != whole[80:160]
    assert fingerprints(folder.epochs(0, 1, 30, seed=4)) != whole[:80]


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
    for split, (_, labels) in zip(data.sizes, every, strict=True):
        assert data.counts[split] == tuple(np.bincount(labels, minlength=2))
    unknown = dataclasses.replace(data, counts={})  # as of a set of TFDS
    assert unknown.train_counts == data.train_counts == data.counts["train"]
    assert Counter(np.concatenate([labels for _, labels in every])) == {0: 10, 1: 10}
    assert len(counted(*map(np.concatenate, zip(*every, strict=True)))) == 20


def test_what_tools_leave_behind_is_neither_a_class_nor_a_picture(
    tmp_path: Path,
) -> None:
    for index in range(6):
        for label in (
            "ant",
            "bee",
            ".git/a",
            ".ipynb_checkpoints",
            "@eaDir/x",
            "bee/.x",
        ):
            picture(tmp_path / label / f"{index}.png")
    for label in ("ant", "bee", "__MACOSX"):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / "._0.png").write_bytes(b"Mac OS X")
    (tmp_path / "ant" / "Thumbs.db").write_bytes(b"Windows")
    data = open_folder(tmp_path)
    assert data.labels == ("ant", "bee")
    assert sum(data.sizes.values()) == 12


@pytest.mark.parametrize("wrong", ["ant/thumbs", "empty", "outside"])
def test_a_folder_that_could_be_misread_is_refused(tmp_path: Path, wrong: str) -> None:
    """Pictures at two depths, a class without any, a link to another place."""
    for index in range(5):
        for place in ("elsewhere", "root/ant", "root/bee"):
            picture(tmp_path / place / f"{index}.png")
    if wrong == "outside":
        (tmp_path / "root" / "cat").symlink_to(tmp_path / "elsewhere")
    elif wrong == "empty":
        (tmp_path / "root" / "empty").mkdir()
    else:
        picture(tmp_path / "root" / wrong / "0.png")
    with pytest.raises(UserError) as caught:
        open_folder(tmp_path / "root")
    assert "\n" not in str(caught.value)


def test_one_class_is_no_classification(tmp_path: Path) -> None:
    for index in range(9):
        picture(tmp_path / "a" / f"{index}.png")
    with pytest.raises(UserError, match="at least two classes"):
        open_folder(tmp_path)


def test_a_jpeg_has_the_pixels_that_other_programs_see(tmp_path: Path) -> None:
    """TensorFlow's own transform differs from these by up to 16 levels."""
    for label in ("a", "b"):
        for index in range(3):
            picture(tmp_path / label / f"{index}.jpg", size=(64, 48))
    data = open_folder(tmp_path)
    expected = []
    for path in tmp_path.glob("*/*"):
        with Image.open(path) as image:
            expected.append(np.asarray(image))
    parts = [all_of(data.batches(split, 9))[0] for split in data.sizes]
    images = np.concatenate(parts)
    assert counted(images, [0] * 6) == counted(expected, [0] * 6)


@pytest.mark.parametrize("validation", ["validation", "valid", "val"])
def test_splits_with_classes(tmp_path: Path, validation: str) -> None:
    for split, count in {"Train": 10, validation: 3, "testing": 2}.items():
        for index in range(count):
            picture(tmp_path / split / "a" / f"{index}.png", mode="L")
            picture(tmp_path / split / "b" / f"{index}.png", mode="L")
    data = open_folder(tmp_path)
    assert data.sizes == {"train": 20, "validation": 6, "test": 4}
    assert data.counts == {"train": (10, 10), "validation": (3, 3), "test": (2, 2)}
    assert data.notes == ()
    assert data.shape == (8, 10, 1)
    names = {"train": "Train", "validation": validation, "test": "testing"}
    for split, name in names.items():
        paths = [*(tmp_path / name).glob("*/*")]
        pixels = [np.asarray(Image.open(path)) for path in paths]
        images, labels = all_of(data.batches(split, 4))
        own = [["a", "b"].index(path.parent.name) for path in paths]
        assert counted(images[..., 0], labels) == counted(pixels, own)


def test_pictures_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    for index in range(6):
        picture(tmp_path / "ab"[index % 2] / f"{index}.png", size=(10 + index, 9))
    with pytest.raises(UserError, match=r"differ in size.*--image-size N"):
        open_folder(tmp_path)
    data = open_folder(tmp_path, image_size=16)
    assert data.shape == (16, 16, 3)
    assert data.served_shape == (None, None, 3)
    images, _ = all_of(data.batches("train", 2))
    assert (images.shape, images.dtype) == ((4, 16, 16, 3), np.uint8)


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
