"""Timing: the order of the calls, the number of rounds, the ratios."""

from benchmarks.timing import MOST_ROUNDS, WARM_UP, Timing, interleave
from tests.benchmarks.clock import FakeClock


def test_every_round_calls_every_candidate_once_and_their_order_changes():
    clock, calls = FakeClock(), []
    candidates = {name: clock.candidate(calls, name, [1]) for name in "abc"}
    timing = interleave(candidates, budget=60, clock=clock)
    rounds = [tuple(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    timed = rounds[WARM_UP + 1 :]
    assert len(timed) == 20
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(timed)) > 1
    assert {len(seconds) for seconds in timing.seconds.values()} == {20}


def test_each_candidate_is_given_its_own_time():
    clock = FakeClock()
    candidates = {
        "fast": clock.candidate([], "fast", [2]),
        "slow": clock.candidate([], "slow", [6]),
    }
    timing = interleave(candidates, budget=0, clock=clock)
    assert set(timing.seconds["fast"]) == {2}
    assert timing.ratio("slow", "fast") == 3


def test_the_number_of_rounds_is_bounded():
    clock = FakeClock()
    step = clock.candidate([], "a", [1])
    assert len(interleave({"a": step}, 1e9, clock).seconds["a"]) == MOST_ROUNDS


def test_the_two_ratios():
    timing = Timing({"ours": [1, 2, 10], "keras": [3, 4, 50]})
    assert timing.ratio("keras", "ours") == 4 / 2
    assert timing.paired_ratio("keras", "ours") == 3
    assert timing.summary("ours")["keras"] == {
        "median": 4,
        "lower_quartile": 3.5,
        "upper_quartile": 27,
        "ratio": 2,
        "paired_ratio": 3,
        "rounds": 3,
    }
