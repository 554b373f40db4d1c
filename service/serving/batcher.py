"""Requests that come together, run as one batch by TensorFlow Serving's parameters."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from service.serving.batching import BatchingParameters
from service.serving.errors import invalid, late, of_runtime
from service.serving.session import Arrays

Run = Callable[[Sequence[str], Arrays, float], list[Any]]
"""Runs tensors by their names, feeds and a number of seconds."""


@dataclass
class _Task:
    feeds: Arrays
    rows: int
    deadline: float
    answer: Future[list[Any]] = field(default_factory=Future)


@dataclass
class _Batch:
    fetches: Sequence[str]
    tasks: list[_Task] = field(default_factory=list)
    rows: int = 0
    is_full: threading.Event = field(default_factory=threading.Event)


class Batcher:
    """Joins the rows of requests for the same tensors, in threads of its own.

    A batch takes requests until it has its largest size or a thread is free for it and
    its time is over.

    Args:
        parameters: TensorFlow Serving's parameters.
        run: What runs a batch.
    """

    def __init__(self, parameters: BatchingParameters, run: Run) -> None:
        self._parameters = parameters
        self._run = run
        self._threads = ThreadPoolExecutor(parameters.num_batch_threads, "batch")
        self._open: dict[Any, _Batch] = {}
        self._waiting = 0
        self._lock = threading.Lock()

    def run(
        self, fetches: Sequence[str], feeds: Arrays, rows: int, timeout: float
    ) -> list[Any]:
        """Run a request in a batch with others.

        Args:
            fetches: The names of the tensors to compute, each with a row for a row.
            feeds: Arrays by the names of the tensors that they replace.
            rows: The number of rows of each of them.
            timeout: Seconds after which nobody waits for the answer.

        Raises:
            tf.errors.OpError: If too many batches wait, the run fails or time is over.
        """
        task = _Task(feeds, rows, time.monotonic() + timeout)
        self._add(fetches, task)
        try:
            return task.answer.result(timeout)
        except TimeoutError:
            raise late("Timed out while waiting for a batch.") from None

    def close(self) -> None:
        """End the threads; nothing may be running."""
        self._threads.shutdown()

    def _add(self, fetches: Sequence[str], task: _Task) -> None:
        most = self._parameters.max_batch_size
        if task.rows > most:
            raise invalid(
                f"Task size {task.rows} is larger than maximum input batch size {most}"
            )
        shapes = ((name, array.shape[1:]) for name, array in task.feeds.items())
        key = (tuple(fetches), *shapes)
        with self._lock:
            batch = self._open.get(key)
            if batch is None or batch.rows + task.rows > most:
                if self._waiting >= self._parameters.max_enqueued_batches:
                    raise tf.errors.UnavailableError(
                        None,
                        None,
                        "The batch scheduling queue to which this task was submitted "
                        f"is full; {self._waiting} batches wait.",
                    )
                if batch is not None:
                    batch.is_full.set()
                batch = self._open[key] = _Batch(fetches)
                self._waiting += 1
                self._threads.submit(self._work, key, batch)
            batch.tasks.append(task)
            batch.rows += task.rows
            if batch.rows == most:
                batch.is_full.set()

    def _work(self, key: Any, batch: _Batch) -> None:
        batch.is_full.wait(self._parameters.batch_timeout_micros / 1e6)
        with self._lock:  # from here on it takes no more
            if self._open.get(key) is batch:
                del self._open[key]
            self._waiting -= 1
        self._answer(batch.fetches, batch.tasks)

    def _answer(self, fetches: Sequence[str], tasks: list[_Task]) -> None:
        try:
            answers = self._run_together(fetches, tasks)
        except tf.errors.InvalidArgumentError as error:
            if len(tasks) > 1:  # one of them may be wrong, but not all
                for task in tasks:
                    self._answer(fetches, [task])
            else:
                tasks[0].answer.set_exception(error)
        except tf.errors.OpError as error:
            told = of_runtime(error)
            for task in tasks:
                task.answer.set_exception(type(told)(None, None, told.message))
        except BaseException as error:
            for task in tasks:
                task.answer.set_exception(error)
        else:
            for task, answer in zip(tasks, answers, strict=True):
                task.answer.set_result(answer)

    def _run_together(
        self, fetches: Sequence[str], tasks: list[_Task]
    ) -> list[list[Any]]:
        rows = sum(task.rows for task in tasks)
        sizes = self._parameters.allowed_batch_sizes
        size = next((size for size in sizes if size >= rows), rows)
        feeds = {
            name: _joined([task.feeds[name] for task in tasks], size - rows)
            for name in tasks[0].feeds
        }
        timeout = max(task.deadline for task in tasks) - time.monotonic()
        if timeout <= 0:
            raise late("Timed out while waiting for others.")
        values = self._run(fetches, feeds, timeout)
        for value in values:
            if np.ndim(value) == 0:
                raise invalid("Batched output tensor has 0 dimensions")
            if len(value) != size:
                raise invalid(
                    "Batched output tensor's 0th dimension does not equal the sum of "
                    "the 0th dimension sizes of the input tensors"
                )
        ends = np.cumsum([task.rows for task in tasks])
        return [
            [value[end - task.rows : end] for value in values]
            for task, end in zip(tasks, ends, strict=True)
        ]


def row_count(feeds: Mapping[str, np.ndarray]) -> int | None:
    """Return the number of rows if all arrays have the same, and at least one."""
    counts = {len(array) if array.ndim else 0 for array in feeds.values()}
    return counts.pop() or None if len(counts) == 1 else None


def _joined(arrays: list[np.ndarray], padding: int) -> np.ndarray:
    """Return the rows of all arrays, and the last one some times more."""
    if len(arrays) == 1 and not padding:
        return arrays[0]
    return np.concatenate([*arrays, np.repeat(arrays[-1][-1:], padding, axis=0)])
