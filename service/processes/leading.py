"""The main process: it starts the others, and says which versions all of them serve."""

import contextlib
import itertools
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from service.jobs.trainers import SHARED_METRICS, environment
from service.log import log, log_error
from service.processes.messages import Orders, Report, States, Table, Told
from service.serving.model_config import ModelConfig
from service.serving.versions import State, Version
from training.options.values import REPOSITORY

_COMMAND = (sys.executable, "-m", "service.processes")
_SECONDS_BEFORE_ANOTHER = 1.0
_SECONDS_TO_START = 600  # until the first word: TensorFlow may come from a slow disk
_SECONDS_OF_SILENCE = 30  # of a process that says each second that it runs
_GRACE_SECONDS = 11.0
_LOADED = (State.START, State.LOADING, State.AVAILABLE)


class LedVersion(Version):
    """A version that becomes available once every process has loaded it.

    Each other process that has it is one of its users, so it ends after all of them
    have closed it.

    Args:
        crew: The other processes.
        name: The model's name.
        number: The version's number.
        directory: The version's directory.
    """

    def __init__(self, crew: "Crew", name: str, number: int, directory: Path) -> None:
        self.key = next(crew.keys)
        self._crew = crew
        super().__init__(name, number, directory)

    @property
    def state(self) -> State:
        """The state, as every process sees it."""
        return State(self._crew.states[self.key])

    @state.setter
    def state(self, state: State) -> None:
        self._crew.states[self.key] = state.value

    def hold(self) -> None:
        """Stay until `release`, in whatever state."""
        with self._lock:
            self._users += 1

    def _wait_for_others(self) -> None:
        self._crew.wait_for(self)


class _Member:
    """Another process, and what is known of it."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", control: "Connection[Any, Any]"
    ) -> None:
        self.process, self.control = process, control
        self.is_answering = False
        self.held: dict[int, LedVersion] = {}
        self._untold: SimpleQueue[Orders | Table | None] = SimpleQueue()
        self._teller = threading.Thread(target=self._tell)
        self._teller.start()

    def tell(self, message: Orders | Table) -> None:
        """Send a message when the process reads; do not wait for that."""
        self._untold.put(message)

    def kill(self) -> int:
        """End the process; return its status."""
        self.process.kill()
        status = self.process.wait()
        self._untold.put(None)
        self._teller.join()  # without which it would write to what is closed
        self.control.close()
        return status

    def _tell(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            while (message := self._untold.get()) is not None:
                self.control.send(message)


class Crew:
    """The other processes. One that ends or hangs is replaced by another.

    Args:
        directory: What the processes share.
        number: How many there are.

    Attributes:
        directory: What the processes share.
        states: The states of all versions.
        keys: The keys of further versions.
        taking: Where connections arrive that another process has handed on.
    """

    def __init__(self, directory: Path, number: int) -> None:
        self.directory = directory
        self.states = States(directory, make=True)
        self.keys = itertools.count()
        self.taking, self._handing = socket.socketpair()
        self._number = number
        self._orders: Orders
        self._grace = self._deadline = 0.0
        self._table = Table()
        self._versions: dict[int, LedVersion] = {}
        self._failures: dict[int, Exception] = {}
        self._members: list[_Member] = []
        self._keepers: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()

    def start(self, orders: Orders) -> None:
        """Start all of them."""
        self._orders = orders
        self._grace = orders.options.timeout + _GRACE_SECONDS
        for _ in range(self._number):
            keeper = threading.Thread(target=self._keep, args=[self._start_one()])
            keeper.start()
            self._keepers.append(keeper)

    @property
    def is_answering(self) -> bool:
        """Whether all of them answer."""
        with self._changed:
            answering = [member for member in self._members if member.is_answering]
        return len(answering) == self._number

    @property
    def has_ended(self) -> bool:
        """Whether none of them runs, or one has had all the time it may have."""
        return not self._members or time.monotonic() > self._deadline

    def stop(self) -> None:
        """Ask them to finish what has begun, and to end."""
        if not self._stopping.is_set():
            # First gRPC's requests have so long, then those of HTTP.
            self._deadline = time.monotonic() + 2 * self._grace
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
            for member in self._members:
                member.process.terminate()

    def end(self) -> None:
        """Kill those that still run."""
        self.stop()
        with self._changed:
            for member in self._members:
                member.process.kill()
        for keeper in self._keepers:
            keeper.join()
        self.taking.close()
        self._handing.close()

    def version(self, name: str, number: int, directory: Path) -> LedVersion:
        """Return a new version."""
        return LedVersion(self, name, number, directory)

    def tell(
        self, configs: Mapping[str, ModelConfig], versions: Iterable[Version]
    ) -> None:
        """Tell them of all versions there are, if something is new."""
        led = {v.key: v for v in versions if isinstance(v, LedVersion)}
        told = tuple(
            Told(v.key, v.name, v.number, v.directory, v.state in _LOADED, v.error)
            for v in led.values()
        )
        table = Table(told, {name: dict(c.labels) for name, c in configs.items()})
        with self._changed:
            self._versions = led
            self._failures = {k: e for k, e in self._failures.items() if k in led}
            if table != self._table:
                self._table = table
                for member in self._members:
                    member.tell(table)

    def wait_for(self, version: LedVersion) -> None:
        """Wait until all of them have loaded a version.

        Raises:
            tf.errors.OpError: If one of them cannot load it.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._stopping.is_set()
                    or version.key in self._failures
                    or all(version.key in member.held for member in self._members)
                )
            )
            if version.key in self._failures:
                raise self._failures[version.key]

    def _keep(self, member: _Member) -> None:
        while True:
            silence = self._follow(member)
            status = self._remove(member)
            if self._stopping.is_set():
                return
            how = "ended" if silence is None else f"said nothing for {silence} s"
            log(f"A serving process has {how} (status {status}). Another starts.")
            another = self._start_another()
            if another is None:
                return
            member = another

    def _follow(self, member: _Member) -> int | None:
        """Heed what a process tells; return its seconds of silence if it hangs."""
        patience = _SECONDS_TO_START
        with contextlib.suppress(EOFError, OSError):  # it has ended
            # Looks of a second are counted, since a machine may sleep for hours.
            while any(member.control.poll(1) for _ in range(patience)):
                self._heed(member, member.control.recv())
                patience = _SECONDS_OF_SILENCE
            return patience
        return None

    def _start_another(self) -> _Member | None:
        """Start another one as soon as the machine lets it; None: all are to end."""
        while not self._stopping.wait(_SECONDS_BEFORE_ANOTHER):
            try:
                return self._start_one()
            except OSError as error:  # there is no memory or no file left
                log_error("A serving process cannot be started now.", error)
        return None

    def _start_one(self) -> _Member:
        here, there = multiprocessing.Pipe()
        inherited = [there.fileno(), self._handing.fileno()]
        with there:
            process = subprocess.Popen(
                [*_COMMAND, *map(str, inherited)],
                cwd=REPOSITORY,
                env=environment(os.environ) | {SHARED_METRICS: str(self.directory)},
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
                process_group=0,  # Ctrl-C is for the main process
            )
        member = _Member(process, here)
        with self._changed:
            self._members.append(member)
            if self._stopping.is_set():
                process.terminate()
            member.tell(self._orders)
            member.tell(self._table)
        return member

    def _heed(self, member: _Member, report: Report) -> None:
        with self._changed:
            version = self._versions.get(report.key)
            if report.what == "answering":
                member.is_answering = True
            elif report.what == "failed" and report.error is not None:
                self._failures[report.key] = report.error
            elif report.what == "loaded" and version is not None:
                version.hold()
                member.held[report.key] = version
            self._changed.notify_all()
        if report.what == "closed" and report.key in member.held:
            member.held.pop(report.key).release()

    def _remove(self, member: _Member) -> int:
        """Return the status of a process that has ended, or does not speak any more."""
        status = member.kill()
        with self._changed:
            self._members.remove(member)
            self._changed.notify_all()
        for version in member.held.values():
            version.release()
        return status
