"""The model of a job, before it is trained."""

from pathlib import Path

import numpy as np

from training.compiling import compiled_model
from training.config import TrainConfig
from training.data.pipeline import load


def test_the_weights_follow_from_the_seed(few_pictures: Path) -> None:
    config = TrainConfig(model="mlp", dataset=f"folder:{few_pictures}", seed=3)
    data = load(config)
    first, same = (compiled_model(config, data).get_weights() for _ in range(2))
    other = compiled_model(config.model_copy(update={"seed": 4}), data).get_weights()
    for one, another in zip(first, same, strict=True):
        np.testing.assert_array_equal(one, another)
    assert not np.array_equal(first[0], other[0])
