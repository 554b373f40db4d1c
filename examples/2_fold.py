"""Fold batch normalization into the layers beside it, for inference.

python examples/2_fold.py [ARCHITECTURE ...]
"""

import sys

import keras
import numpy as np

import kerasnorm

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
for name in sys.argv[1:] or ("MobileNet", "DenseNet121"):
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(96, 96, 3), classifier_activation=None
    )
    for layer in model.layers:  # as after a training
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.1, shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, shape))

    report: list[str] = []
    folded = kerasnorm.fold(model, print_fn=report.append)
    print(f"{name}: {len(model.layers)} layers, folded {len(folded.layers)}; such as")
    print(*(f"  {line}" for line in report[:4]), sep="\n")

    images = rng.uniform(0, 255, (4, 96, 96, 3)).astype("float32")
    expected = model.predict(images, verbose=0)
    error = np.abs(folded.predict(images, verbose=0) - expected).max()
    print(f"  largest error: {error / np.abs(expected).max():.1e} of the outputs")
