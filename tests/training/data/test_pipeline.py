"""Splits, epochs and sizes of the images."""

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
