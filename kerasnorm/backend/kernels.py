"""The fast functions for Keras's backend, where there are any."""

import importlib

import keras

_BY_BACKEND = {"tensorflow": "kerasnorm.backend.tensorflow"}

kernels = importlib.import_module(
    _BY_BACKEND.get(keras.backend.backend(), "kerasnorm.functional")
)
