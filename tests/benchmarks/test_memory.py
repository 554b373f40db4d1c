"""What a step costs in memory."""

import functools

import pytest
import tensorflow as tf

from benchmarks import memory
from training.errors import UserError

FLOATS = 2**24


FILL = (functools.partial, (tf.fill, [FLOATS], 1.0))
"""The builder and the arguments of a step that needs 64 MiB while it runs."""


def is_counted():
    try:
        tf.config.experimental.get_memory_info(memory.DEVICE)
    except ValueError:
        return False
    return True


COUNTED = pytest.mark.skipif(
    not is_counted(), reason="TensorFlow counts a CPU's memory only with oneDNN."
)


@COUNTED
def test_the_peak_is_what_a_step_needs():
    held = tf.fill([FLOATS], 1.0)
    make, arguments = FILL
    assert memory.measure_cost(make, *arguments).peak == 4 * FLOATS
    assert held.shape == FLOATS


@COUNTED
def test_costs_come_from_a_process_of_their_own():
    costs = memory.measure_costs({"fill": FILL}, repeats=1)
    assert costs["fill"].peak == 4 * FLOATS
    assert costs["fill"].first_call > 0


def test_where_memory_is_not_counted_one_line_says_what_to_do(monkeypatch):
    def refuse(device):
        raise ValueError(f"Cannot reset memory stats for device '{device}'")

    monkeypatch.setattr(tf.config.experimental, "reset_memory_stats", refuse)
    with pytest.raises(UserError, match="TF_ENABLE_ONEDNN_OPTS=1"):
        memory.counted_peak(lambda: None)
