"""Words without bitwise operations: the same bits, for formats that have no others."""

import numpy as np
import pytest
from keras import ops

from kerasnorm import _words, functional
from tests import oracle
from tests.kerasnorm.probes import numpy

pytestmark = pytest.mark.any_backend

RNG = np.random.default_rng(0)
EDGES = [0, 1, -1, 2**31 - 1, -(2**31), 0xFFFF, -0x10000]
WORDS = np.array([*EDGES, *RNG.integers(-(2**31), 2**31, 1000)], "int32")


@pytest.mark.parametrize("arithmetic", [False, True])
def test_shifts_and_low_bits(arithmetic):
    words = ops.convert_to_tensor(WORDS)
    unsigned = WORDS.view("uint32")
    with _words.arithmetic_is(arithmetic):
        for bits in (1, 8, 15, 16, 31):
            shifted = numpy(_words.shift_right(words, bits))
            np.testing.assert_array_equal(shifted, unsigned >> bits)
            lowest = numpy(_words.low_bits(words, bits))
            np.testing.assert_array_equal(lowest, unsigned & (2**bits - 1))


def test_masks_by_arithmetic_alone():
    seed = ops.convert_to_tensor([-5, 7], "int32")
    with _words.arithmetic_is(True):
        mask = numpy(functional.keep_mask((7, 11), 0.3, seed))
    expected = oracle.keep_mask((7, 11), 0.3, (2**32 - 5, 7))
    np.testing.assert_array_equal(mask, expected)
