"""Inference on LiteRT: as few operations as with the built-in layer, as accurate."""

import keras
import numpy as np
import pytest

from kerasnorm import KBatchNorm
from tests.kerasnorm.inputs import uneven
from tests.kerasnorm.probes import BACKEND, randomised

if BACKEND != "tensorflow":
    pytest.skip("LiteRT takes TensorFlow's models.", allow_module_level=True)

import tensorflow as tf

pytestmark = [
    pytest.mark.slow,
    # TensorFlow 2.21 still has the interpreter, and tells of its successor.
    pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is dep:UserWarning"),
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning"),
]

X = uneven((200, 16), dtype="float32")


def network(layer):
    keras.utils.set_random_seed(0)
    norm = randomised(layer, (None, 8))
    return keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(8),
            keras.layers.ReLU(),
            norm,
            keras.layers.Dense(3),
        ]
    )


def convert(model, int8=False):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in X)
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    return interpreter


def predict(interpreter):
    (inputs,), (outputs,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    predictions = []
    for row in X:
        interpreter.set_tensor(inputs["index"], row[None])
        interpreter.invoke()
        predictions.append(interpreter.get_tensor(outputs["index"])[0])
    return np.array(predictions)


@pytest.mark.parametrize("int8", [False, True])
def test_as_the_built_in_layer(int8):
    operations, errors = {}, {}
    for make in (KBatchNorm, keras.layers.BatchNormalization):
        model = network(make())
        interpreter = convert(model, int8)
        operations[make] = [o["op_name"] for o in interpreter._get_ops_details()]
        expected = model.predict(X, verbose=0)
        error = predict(interpreter) - expected
        errors[make] = np.sqrt(np.mean(error**2) / np.mean(expected**2))
    assert operations[KBatchNorm] == operations[keras.layers.BatchNormalization]
    assert errors[KBatchNorm] <= 1.01 * errors[keras.layers.BatchNormalization] + 1e-6
