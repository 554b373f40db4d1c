"""A TensorFlow session whose runs are cancelled when their time is over."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from service.serving.errors import invalid

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
        limit for all runs, and takes and gives each tensor once. It takes any shape:
        `Session.run` refuses one that is not that of the graph, so there a callable
        runs with the usual limit. Nobody may wait for its end then.

        Each set of tensors stays in memory with the part of the graph that it runs, so
        there must not be many.

        Args:
            fetches: The names of the tensors to compute.
            feeds: Arrays by the names of the tensors that they replace.
            timeout: Seconds after which the run is cancelled, or up to a second later.

        Raises:
            tf.errors.OpError: If the run fails or its time is over.
        """
        # A tensor that is fed is known, and one that is asked for twice is run once.
        names = [name for name in dict.fromkeys(fetches) if name not in feeds]
        values: Sequence[Any] = []
        if not names:
            pass
        elif 0 <= self._timeout - timeout <= _SECONDS_TOO_LATE or not self._fits(feeds):
            values = self._callable(names, tuple(feeds))(*feeds.values())
        else:
            values = self._run_once(names, feeds, timeout)
        known = {**feeds} | dict(zip(names, values, strict=True))
        return [known[name] for name in fetches]

    def _run_once(
        self, names: Sequence[str], feeds: Arrays, timeout: float
    ) -> Sequence[Any]:
        try:
            values: Sequence[Any] = self.session.run(
                names, feeds, options=_time_limit(timeout)
            )
        except (TypeError, ValueError) as error:  # an array of another type
            raise invalid(str(error)) from None
        return values

    def _fits(self, feeds: Arrays) -> bool:
        tensor = self.session.graph.get_tensor_by_name
        return all(
            tensor(name).shape.is_compatible_with(array.shape)
            for name, array in feeds.items()
        )

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
