"""A clock for the benchmarks' own tests."""

import itertools
from collections.abc import Callable, Sequence


class FakeClock:
    """Time that passes only while a candidate runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def candidate(
        self, calls: list[str], name: str, seconds: Sequence[float]
    ) -> Callable[[], None]:
        """Return a step that notes its name and takes the seconds in turn."""
        durations = itertools.cycle(seconds)

        def step() -> None:
            calls.append(name)
            self.now += next(durations)

        return step
