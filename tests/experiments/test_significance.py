"""The experiments' statistics, against closed forms, tables and scipy's own tests."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from experiments.significance import holm, log_rank, paired_difference, sign_test

# Of squares of smaller differences than these scipy says nothing.
NUMBERS = st.floats(-10, 10).map(lambda x: round(x, 12))
VALUES = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=8)


def test_the_interval_of_five_pairs_uses_the_tables_value_of_t():
    difference = paired_difference([2, 3, 4, 5, 6], [1, 1, 1, 1, 1])
    margin = 2.776 * math.sqrt(2.5 / 5)  # 2.5: the variance of 1, 2, 3, 4, 5
    assert difference.mean == 3
    assert difference.lower == pytest.approx(3 - margin, abs=1e-3)
    assert difference.upper == pytest.approx(3 + margin, abs=1e-3)


@given(VALUES)
@example([(0.0, 0.0), (0.0, 0.0), (0.0, 5e-324)])
def test_interval_and_p_are_those_of_the_paired_t_test(pairs):
    first, second = zip(*pairs, strict=True)
    if len({a - b for a, b in pairs}) == 1:
        return
    ours = paired_difference(first, second)
    theirs = stats.ttest_rel(first, second)
    if math.isnan(theirs.pvalue):  # mean and variance are too small for a float: 0 / 0
        assert (ours.lower, ours.upper, ours.p) == (0, 0, 1)
        return
    interval = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    greater = stats.ttest_rel(first, second, alternative="greater")
    assert ours.p_greater == pytest.approx(greater.pvalue, rel=1e-6, abs=1e-12)
    assert ours.lower == pytest.approx(interval.low, rel=1e-6, abs=1e-9)
    assert ours.upper == pytest.approx(interval.high, rel=1e-6, abs=1e-9)


def test_equal_differences_have_an_interval_of_no_width():
    assert paired_difference([2, 3], [1, 2]).p == 0
    same = paired_difference([2, 3], [2, 3])
    assert (same.lower, same.upper, same.p) == (0, 0, 1)


def test_one_pair_is_too_few():
    with pytest.raises(ValueError, match="two pairs are needed"):
        paired_difference([1], [2])


@pytest.mark.parametrize(
    ("values", "p"),
    [
        ([1, 1, 1, 1, 1], 1 / 32),
        ([1, 1, 1, 1, -1], 6 / 32),
        ([-1, -1, -1], 1),
        ([1, 1, 0], 1 / 4),
        ([0, 0], 1),
    ],
)
def test_sign_test(values, p):
    assert sign_test(values) == pytest.approx(p)


def test_holm_on_a_worked_example():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1, "b": 1}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferronis(p_values):
    named = {str(i): p for i, p in enumerate(p_values)}
    adjusted = holm(named)
    for name, p in named.items():
        assert p <= adjusted[name] <= min(1, len(named) * p) + 1e-12


def test_log_rank_counts_what_has_not_come_as_censored():
    """By hand: all of the first come before any of the second."""
    early, late = (1.0, 2.0), (3.0, None)
    # At 1: 2 of 4 at risk; at 2: 1 of 3; at 3 none of the first is left.
    expected, variance = 2 / 4 + 1 / 3, 1 / 4 + 2 / 9
    z = (2 - expected) / variance**0.5
    assert log_rank(early, late, 9.0) == pytest.approx(stats.norm.sf(z))
    assert log_rank(late, early, 9.0) == pytest.approx(stats.norm.cdf(z))
    assert log_rank((None, None), (None, None), 9.0) == 1.0
