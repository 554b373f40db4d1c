"""What a step costs in memory."""

import functools

import tensorflow as tf

from benchmarks import memory

FLOATS = 2**24


FILL = (functools.partial, (tf.fill, [FLOATS], 1.0))
"""The builder and the arguments of a step that needs 64 MiB while it runs."""


def test_the_peak_is_what_a_step_needs():
    held = tf.fill([FLOATS], 1.0)
    make, arguments = FILL
    assert memory.measure_cost(make, *arguments).peak == 4 * FLOATS
    assert held.shape == FLOATS


def test_costs_come_from_a_process_of_their_own():
    costs = memory.measure_costs({"fill": FILL}, repeats=1)
    assert costs["fill"].peak == 4 * FLOATS
    assert costs["fill"].first_call > 0
