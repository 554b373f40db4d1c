"""Know what a model does not know: Monte Carlo dropout.

The model is trained on five of Fashion-MNIST's classes and then sees the five others.
With a directory of MNIST's archives it is trained on MNIST and then sees Fashion-MNIST.
AUROC is how often an unknown image is more uncertain than a known one; 0.5 is chance.

    python examples/5_monte_carlo.py [DIRECTORY OF MNIST] [TRAINING IMAGES]
"""

import sys
from pathlib import Path

import keras
import numpy as np
from fashion_mnist import read

import kerasnorm


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Return the probability that an unknown score is greater than a known one."""
    order = np.searchsorted(np.sort(known), unknown, side="left")
    ties = np.searchsorted(np.sort(known), unknown, side="right")
    return float((order + ties).mean() / 2 / len(known))


keras.utils.set_random_seed(0)
count = int(sys.argv[2]) if len(sys.argv) > 2 else 6000
if len(sys.argv) > 1:
    images, labels = read("train", count, Path(sys.argv[1]))
    known, _ = read("t10k", 2000, Path(sys.argv[1]))
    unknown, _ = read("t10k", 2000)
else:
    images, labels = read("train", count)
    images, labels = images[labels < 5], labels[labels < 5]
    test, classes = read("t10k", 2000)
    known, unknown = test[classes < 5], test[classes >= 5]

model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255)])
for filters in (16, 32):
    model.add(keras.layers.Conv2D(filters, 3, strides=2, use_bias=False))
    model.add(kerasnorm.KBatchNorm(momentum=0.9))
    model.add(keras.layers.ReLU())
model.add(keras.layers.Flatten())
model.add(kerasnorm.KDropout(0.5))
model.add(keras.layers.Dense(10, activation="softmax"))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images, labels, batch_size=64, epochs=3, verbose=2)

of_known, of_unknown = (
    kerasnorm.monte_carlo(model, x, samples=50, seed=0, batch_size=500)
    for x in (known, unknown)
)
for name in ("predictive_entropy", "expected_entropy", "mutual_information"):
    scores = getattr(of_known, name), getattr(of_unknown, name)
    means = "{:.3f} for known, {:.3f} for unknown".format(*(s.mean() for s in scores))
    print(f"{name:18} AUROC {auroc(*scores):.3f}; {means} images")
