"""Watch batch normalization while a model trains, and correct it afterwards.

After so few steps the moving statistics are not yet those of the data. `ShiftMonitor`
sees it and warns. `recalibrate` sets them right, and the validation accuracy rises.

    python examples/4_shift_monitor.py
"""

from pathlib import Path

import keras
from fashion_mnist import read

import kerasnorm

OUTPUT = Path(__file__).resolve().parent.parent / "runs" / "shift_monitor"
TRAINING, VALIDATION = 4096, 1024


keras.utils.set_random_seed(0)
images, labels = read("train", TRAINING + VALIDATION)
model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255)])
model.add(keras.layers.Flatten())
for units in (256, 128):
    model.add(keras.layers.Dense(units, use_bias=False))
    model.add(kerasnorm.KBatchNorm())
    model.add(keras.layers.ReLU())
model.add(keras.layers.Dense(10, activation="softmax"))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

OUTPUT.mkdir(parents=True, exist_ok=True)
validation = images[TRAINING:], labels[TRAINING:]
probe = validation[0][:256]
monitor = kerasnorm.ShiftMonitor(probe, frequency=8, csv_path=OUTPUT / "shift.csv")
model.fit(
    images[:TRAINING],
    labels[:TRAINING],
    batch_size=128,
    epochs=2,
    validation_data=validation,
    callbacks=[monitor],
    verbose=2,
)
monitor.plot(OUTPUT / "shift.png")
for row in monitor.history:
    print("step {step:3}  {layer:14}  mean shift {mean_shift:.2f}".format(**row))

before = model.evaluate(*validation, verbose=0, return_dict=True)["accuracy"]
kerasnorm.recalibrate(model, images[:TRAINING], verbose=0)
after = model.evaluate(*validation, verbose=0, return_dict=True)["accuracy"]
print(f"validation accuracy {before:.3f}, recalibrated {after:.3f}; see {OUTPUT}")
