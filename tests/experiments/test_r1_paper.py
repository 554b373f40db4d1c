"""R1 as the paper had it: what just meets its criterion, and what just does not."""

import numpy as np
import pytest

from experiments import r1_paper
from tests.experiments.measured import of


def holds(steps=(4_000,) * 10, without=(None,) * 10, errors=(2.0,) * 10):
    others = (2.4, 2.6) * 5
    measured = {
        "without": of(steps_to_target=without, test_error=others),
        "with": of(steps_to_target=steps, test_error=errors),
        "map": {"without": [[0.1]], "with": [[0.9]]},
    }
    return r1_paper.analyse(measured, r1_paper.FULL).holds


def test_criterion():
    assert holds()
    assert holds(without=(8_000,) * 10)
    assert not holds(without=(7_750,) * 10)
    assert not holds(errors=(2.5,) * 10)
    assert not holds(steps=(None,) * 10)
    # Half the median, but as many that never come there as make up for it.
    assert not holds(steps=(4_000,) * 6 + (None,) * 4, without=(8_250,) * 10)


def test_a_target_that_is_not_reached_has_no_step():
    assert r1_paper.steps_to_target([0.9, 0.95, 0.94], 250) == 500
    assert r1_paper.steps_to_target([0.9, 0.94], 250) is None


def test_wandering_is_in_the_units_of_the_inputs():
    """A wider distribution that moves as far wanders as far."""
    medians = np.array([0.0, 2.0, 4.0])  # of standard deviation sqrt(8 / 3)
    offsets = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    units = [medians[:, None] + width * offsets for width in (1, 10)]
    expected = [np.sqrt(8 / 3)] * 2
    assert r1_paper.wandering(np.stack(units, axis=2)) == pytest.approx(expected)
