"""Changes of training images, against the images themselves."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.data.folders import fingerprints, open_folder
from training.data.augment import change, mix
from training.data.pipeline import Data

POLICIES = ("flip", "crop", "standard", "strong")
IMAGES = np.random.default_rng(0).integers(1, 256, (40, 16, 16, 3), np.uint8)
SEED = tf.constant([3, 4], tf.int64)


def changed(policy: str, images: np.ndarray = IMAGES) -> np.ndarray:
    return change(policy)(tf.constant(images), SEED).numpy()


def moves(size: int) -> list[tuple[slice, slice]]:
    """Where an image lies that moves by up to an eighth, and what is seen of it."""
    most = size // 8
    return [
        (slice(max(by, 0), size + min(by, 0)), slice(max(-by, 0), size - max(by, 0)))
        for by in range(-most, most + 1)
    ]


def is_moved(image: np.ndarray, original: np.ndarray) -> bool:
    for rows, rows_seen in moves(16):
        for columns, columns_seen in moves(16):
            expected = np.zeros_like(original)
            expected[rows, columns] = original[rows_seen, columns_seen]
            if np.array_equal(image, expected):
                return True
    return False


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    mirrored = [
        np.array_equal(image, original[:, ::-1])
        for image, original in zip(changed("flip"), IMAGES, strict=True)
    ]
    as_they_were = (changed("flip") == IMAGES).all((1, 2, 3))
    np.testing.assert_array_equal(mirrored, ~as_they_were)
    assert 10 < sum(mirrored) < 30


@pytest.mark.parametrize("policy", ["crop", "standard"])
def test_a_crop_moves_each_image_by_itself(policy: str) -> None:
    images = changed(policy)
    for image, original in zip(images, IMAGES, strict=True):
        mirrored = policy == "standard" and is_moved(image, original[:, ::-1])
        assert mirrored or is_moved(image, original)
    rows_without = {int((image.max((1, 2)) == 0).sum()) for image in images}
    assert rows_without == {0, 1, 2}


def test_a_strong_change_erases_a_rectangle() -> None:
    ones = np.ones((40, 16, 16, 1), np.float32)
    shares = changed("strong", ones).mean((1, 2, 3))
    assert shares.min() > 0.3
    assert shares.mean() < 0.9


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_seed_gives_the_same_images_of_the_same_dtype(
    policy: str, dtype: str
) -> None:
    images = IMAGES.astype(dtype)
    keras.utils.set_random_seed(1)
    first = changed(policy, images)
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(first, changed(policy, images))
    assert first.dtype == dtype
    assert first.max() <= images.max()
    other = change(policy)(tf.constant(images), SEED + 1).numpy()
    assert not np.array_equal(first, other)


@pytest.fixture(scope="module")
def folder(few_pictures: Path) -> Data:
    return open_folder(few_pictures, validation_split=0.1)


@pytest.mark.parametrize("policy", ["standard", "strong"])
def test_a_resumed_run_sees_the_same_images(folder: Data, policy: str) -> None:
    whole = fingerprints(folder.epochs(0, 3, 30, seed=3, augment=policy))
    keras.utils.set_random_seed(12)
    assert fingerprints(folder.epochs(1, 3, 30, seed=3, augment=policy)) == whole[80:]
    assert set(whole[:80]) != set(whole[80:160])
    labels = [y for _, y in folder.epochs(0, 3, 30, seed=3).unbatch()]
    same = [y for _, y in folder.epochs(0, 3, 30, 3, augment=policy).unbatch()]
    assert labels == same


@pytest.mark.parametrize("alpha", [0.01, 1.0])
def test_an_image_and_its_label_are_mixed_by_the_same_shares(alpha: float) -> None:
    """Each image has a class of its own, so its row says what it is made of."""
    images, rows = mix(alpha)(tf.constant(IMAGES), tf.eye(40), SEED)
    np.testing.assert_allclose(
        images.numpy().astype("float64"),
        np.einsum("nm,mhwc->nhwc", rows.numpy().astype("float64"), IMAGES),
        atol=0.51,  # it is rounded
    )
    assert images.dtype == tf.uint8
    np.testing.assert_allclose(rows.numpy().sum(1), 1, rtol=1e-5)
    largest = rows.numpy().max(1)
    # Beta(0.01, 0.01) is near 0 or 1, Beta(1, 1) anywhere.
    assert (largest > 0.99).mean() > 0.9 if alpha < 1 else largest.min() < 0.6


def test_a_resumed_run_sees_the_same_mixed_images(folder: Data) -> None:
    def batches(first: int) -> list[tuple[np.ndarray, np.ndarray]]:
        epochs = folder.epochs(first, 3, 30, seed=3, augment="flip", mixup=0.4)
        return list(epochs.as_numpy_iterator())

    whole = batches(0)
    keras.utils.set_random_seed(12)
    for one, other in zip(batches(1), whole[3:], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert not np.array_equal(whole[0][0], whole[3][0])
