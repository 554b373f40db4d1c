"""The other processes: they serve the versions that the main process tells of."""

import contextlib
import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from service.app import Settings, create_app
from service.listening import Server, listen, listen_to_grpc, run, server_config
from service.processes.connections import HandingOn, OnlyModels
from service.processes.messages import Orders, Report, States, Table, Told
from service.processes.sharing import share_the_machine
from service.serving.batching import BatchingParameters
from service.serving.config import ServingConfig
from service.serving.errors import as_op_error
from service.serving.model_config import ModelConfig
from service.serving.routes import Serving
from service.serving.servables import Servables
from service.serving.versions import State, Version

_SECONDS_BETWEEN_SIGNS = 1.0
_logger = logging.getLogger(__name__)
Tell = Callable[[Report], None]


class FollowedVersion(Version):
    """A version whose state the main process alone changes.

    Args:
        told: What the main process tells of it.
        states: The states of all versions.
        tell: Report to the main process.
    """

    def __init__(self, told: Told, states: States, tell: Tell) -> None:
        self.key = told.key
        self._states = states
        self._tell = tell
        self._has_reported = False
        super().__init__(told.name, told.number, told.directory)

    @property
    def state(self) -> State:
        """The state, as every process sees it."""
        return State(self._states[self.key])

    @state.setter
    def state(self, state: State) -> None:
        """Leave it to the main process."""

    def load(
        self,
        base: Path,
        batching: BatchingParameters | None = None,
        timeout: float = ServingConfig.timeout,
    ) -> None:
        """Load the version, and say so.

        One that others have loaded must not be missing here: the process ends.
        """
        super().load(base, batching, timeout)
        if self.error is None:
            self._tell(Report("loaded", self.key))
        elif self.state is State.AVAILABLE:
            _logger.error("%s cannot be loaded again: %s", self.directory, self.error)
            os._exit(1)
        else:
            self._tell(Report("failed", self.key, self.error))
        self._has_reported = True
        self.close_if_unused()

    def close_if_unused(self) -> bool:
        """Close the model if nobody may use it any more, and say so."""
        is_closed = self._has_reported and super().close_if_unused()
        if is_closed:
            self._tell(Report("closed", self.key))
        return is_closed


class Follower(Servables):
    """The versions that the main process tells of.

    Args:
        orders: What the process is told at its start.
        control: The connection to the main process.
    """

    def __init__(self, orders: Orders, control: "Connection[Any, Any]") -> None:
        config = orders.serving
        super().__init__(
            config.model_base_path, batching=config.batching, timeout=config.timeout
        )
        self._states = States(orders.directory)
        self._control = control
        self._sending = threading.Lock()

    def start(self) -> None:
        """Load the versions that there are, then follow those that come and go."""
        wait(self._heed(self._control.recv()))
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Leave the versions loaded: the process ends."""

    def tell(self, report: Report) -> None:
        """Report to the main process."""
        with self._sending, contextlib.suppress(OSError):  # it has ended
            self._control.send(report)

    def give_signs(self) -> None:
        """Tell the main process again and again that this process runs."""
        with contextlib.suppress(OSError):  # it has ended
            while True:
                with self._sending:
                    self._control.send(Report("running"))
                time.sleep(_SECONDS_BETWEEN_SIGNS)

    def _watch(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._heed(self._control.recv())

    def _heed(self, table: Table) -> list[Future[None]]:
        """Have the versions of a table; return the loading of those that are new."""
        known: dict[int, FollowedVersion] = {
            version.key: version
            for versions in self._versions.values()
            for version in versions.values()
            if isinstance(version, FollowedVersion)
        }
        versions: dict[str, dict[int, Version]] = {}
        new = []
        for told in table.versions:
            version = known.get(told.key)
            if version is None:
                version = FollowedVersion(told, self._states, self.tell)
                new += [version] if told.is_wanted else []
            if told.error is not None:
                version.error = as_op_error(told.error)
            versions.setdefault(told.name, {})[told.number] = version
        with self._lock:
            self._versions = versions
            self._configs = {
                name: ModelConfig(name, self._base / name, labels=labels)
                for name, labels in table.labels.items()
            }
        for version in known.values():
            version.close_if_unused()
        if known.keys() - {told.key for told in table.versions}:
            gc.collect()  # graphs refer to themselves
        return [self._loaders.submit(self._load, version) for version in new]

    def _load(self, version: Version) -> None:
        version.load(self._base, self._batching, self._timeout)


class _Server(Server):
    """Tell the main process when requests are answered."""

    tell: Tell

    async def say_ready(self) -> None:
        """Say that requests are answered."""
        self.tell(Report("answering"))


def serve(
    orders: Orders, control: "Connection[Any, Any]", handing: socket.socket
) -> None:
    """Serve until told to stop, then finish what has begun.

    Args:
        orders: What to do.
        control: The connection to the main process.
        handing: Where connections go that ask for more than models.
    """
    options = orders.options
    share_the_machine(options.serving_processes)
    follower = Follower(orders, control)
    serving = Serving(orders.serving, follower, orders.directory)
    threading.Thread(target=follower.give_signs, daemon=True).start()
    follower.start()
    app = create_app(Settings(orders.serving, host=options.host), serving)
    HandingOn.handing = handing
    only_models = OnlyModels(app)
    server = _Server(
        server_config(
            only_models, options, HandingOn, lifespan="off", log_level="warning"
        )
    )
    server.tell = follower.tell
    with (
        listen(options.host, options.port, is_shared=True) as listener,
        listen_to_grpc(
            serving, options.host, options.grpc_port, is_shared=True
        ) as server.end_grpc,
    ):
        run(server, listener)
    serving.stop()
