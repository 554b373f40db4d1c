"""Close the gap between training and inference that small batches leave.

A network with dropout in front of batch normalization is trained with batches of 4.
At inference dropout is off, so the variances differ from the moving ones. After such
small batches those are noisy, too. `recalibrate` computes them anew and leaves the
weights as they are.

    python examples/3_recalibrate.py [TRAINING IMAGES]
"""

import sys

import keras
from fashion_mnist import read

import kerasnorm

keras.utils.set_random_seed(0)
count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
images, labels = read("train", count)
test = read("t10k", 10_000)
model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255)])
for filters in (16, 32):
    model.add(keras.layers.Conv2D(filters, 3, strides=2, use_bias=False))
    model.add(kerasnorm.KBatchNorm(momentum=0.9))
    model.add(keras.layers.ReLU())
    model.add(kerasnorm.KDropout(0.3))
model.add(keras.layers.Flatten())
model.add(keras.layers.Dense(64, use_bias=False))
model.add(kerasnorm.KBatchNorm(momentum=0.9))
model.add(keras.layers.ReLU())
model.add(keras.layers.Dense(10))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
model.fit(images, labels, batch_size=4, epochs=2, verbose=2)


def show(when: str) -> None:
    """Print loss and accuracy in inference mode."""
    for name, data in (("training", (images, labels)), ("test", test)):
        loss, accuracy = model.evaluate(*data, batch_size=256, verbose=0)
        print(f"{when:6} recalibrating: {name:8} loss {loss:.4f}, {accuracy:.2%} right")


show("before")
kerasnorm.recalibrate(model, images)
show("after")
