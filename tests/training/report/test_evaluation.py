"""The evaluation at the end of a run."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import kerasnorm
import models
from tests.training.data.folders import open_folder
from training.config import TrainConfig
from training.data.pipeline import Data
from training.report import evaluation, pictures
from training.report.monitor import make_monitor


def test_images_are_picked_by_their_index() -> None:
    images = np.arange(10)[:, None] * np.ones((1, 3), np.uint8)
    batches = tf.data.Dataset.from_tensor_slices((images, np.zeros(10))).batch(4)
    for indices in ([9, 0, 4, 3], []):
        picked = evaluation.pick(batches, np.array(indices, int))
        assert [image.tolist() for image in picked] == [[i] * 3 for i in indices]


def test_certainty_is_predicted_and_drawn_with_few_images_in_memory(
    few_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_folder(few_pictures, validation_split=0.4)
    config = TrainConfig(monte_carlo=2, batch_size=8, seed=2**31 - 1)
    model = models.build("mlp", data.shape, len(data.labels), scale=data.scale)
    sizes, drawn = [], {}

    def monte_carlo(
        model: object, images: np.ndarray, **options: object
    ) -> kerasnorm.MonteCarloPrediction:
        sizes.append(len(images))
        brightness = images.mean((1, 2, 3))
        return kerasnorm.MonteCarloPrediction(
            brightness[:, None], brightness[:, None], brightness, brightness, brightness
        )

    def draw_certainty(images: dict, true: np.ndarray, *rest: object) -> None:
        drawn.update(images=images, true=true, rest=rest)

    monkeypatch.setattr(kerasnorm, "monte_carlo", monte_carlo)
    for name in ("curves", "confusion", "mistakes", "reliability"):
        monkeypatch.setattr(pictures, f"draw_{name}", lambda *arguments: None)
    monkeypatch.setattr(pictures, "draw_certainty", draw_certainty)
    monkeypatch.setattr(evaluation, "_BYTES_AT_A_TIME", 16 * 28 * 28)
    predictions = evaluation.predict_test(model, data, config)
    evaluation.draw(model, data, config, [], predictions, tmp_path)
    assert sizes == [16, 16, 8]
    test = list(data.splits["test"].as_numpy_iterator())
    assert drawn["true"].tolist() == [label for _, label in test]
    probabilities, entropy, *_ = drawn["rest"]
    assert entropy.tolist() == [image.mean() for image, _ in test]
    assert probabilities[:, 0].tolist() == entropy.tolist()
    ends = [int(i) for part in pictures.most_and_least_certain(entropy) for i in part]
    assert set(drawn["images"]) == set(ends)
    for index, image in drawn["images"].items():
        np.testing.assert_array_equal(image, test[index][0])


@pytest.mark.parametrize(("side", "number"), [(28, 256), (1024, 32)])
def test_the_monitor_takes_no_more_images_than_a_batch_or_than_fit(
    side: int, number: int
) -> None:
    shape = (side, side, 3)
    taken = []

    class Split:
        def take(self, count: int) -> tf.data.Dataset:
            taken.append(count)
            return tf.data.Dataset.from_tensors((np.zeros(shape, np.uint8), 0))

    splits = {"validation": Split()}
    data = Data("a", "1", {}, ("a", "b"), shape, shape, "uint8", {}, (), splits)
    make_monitor(TrainConfig(monitor=True, batch_size=32), data, 10)
    assert taken == [number]


def test_the_measures_of_the_test_images() -> None:
    """Two of three classes are predicted; the first twice, once rightly."""
    probabilities = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.2, 0.8, 0.0]])
    predictions = evaluation.Predictions(np.array([0, 1, 1]), probabilities)
    measures = evaluation.measure(predictions, ["a", "b", "c"])
    rows = [tuple(each.model_dump().values()) for each in measures.classes]
    assert rows == [("a", 0.5, 1, 2 / 3, 1), ("b", 1, 0.5, 2 / 3, 2), ("c", 0, 0, 0, 0)]
    assert measures.top_5_accuracy == 1
    # |1 - 0.9|, |0 - 0.6|, |1 - 0.8|, each in a bin of its own
    assert measures.calibration_error == pytest.approx((0.1 + 0.6 + 0.2) / 3)
