"""A TensorFlow session whose runs are cancelled when their time is over."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

Arrays = Mapping[str, np.ndarray]

_SECONDS_TOO_LATE = 1.0
v1 = tf.compat.v1


class TimedSession:
    """A session with a graph of its own.

    Args:
        timeout: Seconds that a run usually may take.

    Attributes:
        session: The session itself, to load a model into.
    """

    def __init__(self, timeout: float) -> None:
        self.session = v1.Session(graph=tf.Graph())
        self._timeout = timeout
        self._callables: dict[tuple[str, ...], Any] = {}

    def run(self, fetches: Sequence[str], feeds: Arrays, timeout: float) -> list[Any]:
        """Run the graph.

        A callable does it if it can, which takes a third less time. It has one time
        limit for all runs, and takes and gives each tensor once.

        Args:
            fetches: The names of the tensors to compute.
            feeds: Arrays by the names of the tensors that they replace.
            timeout: Seconds after which the run is cancelled, or up to a second later.

        Raises:
            tf.errors.OpError: If the run fails or its time is over.
        """
        is_usual = 0 <= self._timeout - timeout <= _SECONDS_TOO_LATE
        if is_usual and len({*fetches, *feeds}) == len(fetches) + len(feeds):
            run = self._callable(fetches, tuple(feeds))
            return list(run(*feeds.values()))
        options = _time_limit(timeout)
        return list(self.session.run(list(fetches), feeds, options=options))

    def close(self) -> None:
        """Free the variables; nothing may be running."""
        self._callables.clear()
        self.session.close()

    def _callable(self, fetches: Sequence[str], feeds: tuple[str, ...]) -> Any:
        key = (*fetches, "", *feeds)
        if key not in self._callables:
            self._callables[key] = make_callable(
                self.session, fetches, feeds, self._timeout
            )
        return self._callables[key]


def make_callable(
    session: Any, fetches: Sequence[str], feeds: Sequence[str], timeout: float
) -> Any:
    """Return a function of one array for each feed.

    The public `Session.make_callable` would know no time limit.
    """
    return session._make_callable_from_options(
        config_pb2.CallableOptions(
            feed=feeds, fetch=fetches, run_options=_time_limit(timeout)
        )
    )


def _time_limit(seconds: float) -> Any:
    return v1.RunOptions(timeout_in_ms=max(1, round(seconds * 1000)))
