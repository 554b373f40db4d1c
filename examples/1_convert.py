"""Give an existing, compiled Keras model the layers of kerasnorm, and train on.

python examples/1_convert.py
"""

import keras
import numpy as np
from fashion_mnist import read

import kerasnorm

keras.utils.set_random_seed(0)
images, labels = read("train", 4096)
model = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(16, 3, strides=2, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(10),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
model.fit(images, labels, batch_size=128, verbose=2)

ours = kerasnorm.convert(model)
print([type(layer).__name__ for layer in ours.layers])
difference = np.abs(ours.predict(images, verbose=0) - model.predict(images, verbose=0))
print(f"largest difference of the logits: {difference.max():.1e}")
print(f"steps of the optimizer so far: {int(ours.optimizer.iterations)}")
ours.fit(images, labels, batch_size=128, epochs=2, verbose=2)

back = kerasnorm.convert(ours, to="keras")
print([type(layer).__name__ for layer in back.layers])
