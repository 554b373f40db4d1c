"""Examples of classify and regress, as messages."""

import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")
pytest.importorskip("tensorflow_serving", reason="pip install --group serve")

from tensorflow_serving.apis import input_pb2

from service.serving.examples import serialized


def test_a_context_for_too_many_examples_is_refused() -> None:
    """It would be copied for each of them."""
    message = input_pb2.Input()
    together = message.example_list_with_context
    together.context.features.feature["who"].bytes_list.value.append(b"a" * 10**6)
    together.examples.extend([tf.train.Example()] * 60)
    assert len(serialized(message)) == 60
    together.examples.extend([tf.train.Example()] * 10)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 67108864 bytes"):
        serialized(message)
