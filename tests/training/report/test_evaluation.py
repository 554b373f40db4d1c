"""The evaluation at the end of a run."""

import numpy as np
import tensorflow as tf

from training.report import evaluation


def test_images_are_picked_by_their_index() -> None:
    images = np.arange(10)[:, None] * np.ones((1, 3), np.uint8)
    batches = tf.data.Dataset.from_tensor_slices((images, np.zeros(10))).batch(4)
    for indices in ([9, 0, 4, 3], []):
        picked = evaluation.pick(batches, np.array(indices, int))
        assert [image.tolist() for image in picked] == [[i] * 3 for i in indices]
