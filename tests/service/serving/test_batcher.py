"""What the batched loading reads from the serialized graph."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="the extra `serve` is not installed")

from service.serving.batcher import signature_definitions
from tests.service.serving.served import save_half_plus_three, save_half_plus_two


@pytest.mark.parametrize("save", [save_half_plus_two, save_half_plus_three])
def test_the_definitions_are_those_that_tensorflow_loads(
    tmp_path: Path, save: Callable[[Path], None]
) -> None:
    save(tmp_path / "1")
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.loader.load(
            session, [tf.saved_model.SERVING], str(tmp_path / "1")
        )
    assert signature_definitions(tmp_path / "1") == dict(loaded.signature_def)


def test_a_model_without_a_graph_for_serving_is_refused(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="has no graph tagged 'serve'"):
        signature_definitions(tmp_path)
