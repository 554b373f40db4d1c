"""Exported networks."""

import numpy as np

from benchmarks import inference, networks


def test_the_exported_model_answers_as_the_model(tmp_path):
    model = networks.build("mlp", "kerasnorm")
    images = np.random.default_rng(0).uniform(0, 255, (3, 28, 28, 1)).astype("float32")
    loaded = inference.exported(model, tmp_path / "model")
    np.testing.assert_allclose(
        loaded.serve(images), model(images, training=False), atol=1e-5
    )
