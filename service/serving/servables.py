"""The models under a base directory, as their versions come and go.

The directory is read every second. A version is loaded and warmed up in a thread of
its own. The versions that it replaces stay until it answers, and finish their requests.
A version that cannot be loaded is reported. The policy passes over it, and it is tried
again when its files have changed.
"""

import contextlib
import gc
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, Self

from service.serving import model_config
from service.serving.batching import BatchingParameters
from service.serving.config import ServingConfig
from service.serving.errors import invalid, not_found
from service.serving.model_config import ModelConfig
from service.serving.saved_model import SavedModel
from service.serving.versions import State, Status, Version, fingerprint
from training.errors import UserError

_LOADING_THREADS = 2
_logger = logging.getLogger(__name__)


class Others(Protocol):
    """Other processes that serve the same versions."""

    def version(self, name: str, number: int, directory: Path) -> Version:
        """Return a new version, which they will have too."""

    def tell(
        self, configs: Mapping[str, ModelConfig], versions: Iterable[Version]
    ) -> None:
        """Tell them of all versions there are."""


class Servables:
    """All models, each with its versions.

    Args:
        base: The directory that holds the models.
        config_file: TensorFlow Serving's model config file; without one, every
            sub-directory with a version is a model, served in its latest version.
        poll_interval: Seconds between two looks at the directory.
        batching: How to batch requests, if at all.
        timeout: Seconds that a request usually may take.
        others: The other processes that serve the same versions, if any.

    Raises:
        UserError: If the config file is not usable.
    """

    def __init__(
        self,
        base: Path,
        config_file: Path | None = None,
        poll_interval: float = 1.0,
        batching: BatchingParameters | None = None,
        timeout: float = ServingConfig.timeout,
        others: Others | None = None,
    ) -> None:
        self._base = base
        self._config_file = config_file
        self._poll_interval = poll_interval
        self._batching = batching
        self._timeout = timeout
        self._others = others
        self._version = Version if others is None else others.version
        self._configs: Mapping[str, ModelConfig] = {}
        self._versions: dict[str, dict[int, Version]] = {}
        self._leaving: list[Version] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._settled = threading.Event()
        self._missing: set[str] | None = None
        self._stopping = False
        self._poller = threading.Thread(target=self._watch, name="servables")
        self._loaders = ThreadPoolExecutor(_LOADING_THREADS, "load-model")
        if config_file is None:
            self._read_configs()
        else:
            self._configs = model_config.read_config_file(config_file, base)

    @classmethod
    def of(cls, config: ServingConfig, others: Others | None = None) -> Self:
        """Return the models that are to be served.

        Args:
            config: How models are served.
            others: The other processes that serve the same versions, if any.

        Raises:
            UserError: If the config file is not usable.
        """
        return cls(
            config.model_base_path,
            config.model_config_file,
            config.poll_interval,
            config.batching,
            config.timeout,
            others,
        )

    @property
    def configs(self) -> Mapping[str, ModelConfig]:
        """The models by name, served or not, as of the last look at the directory."""
        return self._configs

    def start(self) -> None:
        """Begin to watch the directory."""
        self._poller.start()

    def stop(self) -> None:
        """Stop watching, and unload every version once its requests are answered."""
        self._stopping = True
        self._wake.set()
        self._poller.join()
        self._loaders.shutdown()
        for versions in self._versions.values():
            for version in versions.values():
                version.unload()

    def wait_until_settled(self, timeout: float) -> bool:
        """Wait until every version of the start is loaded or has failed to load."""
        return self._settled.wait(timeout)

    @property
    def is_settled(self) -> bool:
        """Whether every version of the start is loaded or has failed to load."""
        return self._settled.is_set()

    @property
    def missing(self) -> list[str]:
        """The models of the start that have never had a version that answers."""
        return sorted(self._missing or ())

    def knows(self, name: str) -> bool:
        """Return whether the model has a version, loaded or not."""
        return name in self._versions

    def statuses(self, name: str, number: int | None = None) -> list[Status]:
        """Return the states of a model's versions, the newest first, or of one version.

        Raises:
            tf.errors.NotFoundError: If the model has no such version.
        """
        with self._lock:
            versions = dict(self._versions.get(name, {}))
        if number is not None:
            if number not in versions:
                raise not_found(f"Could not find version {number} of model {name}")
            return [versions[number].status]
        if not versions:
            raise not_found(f"Could not find any versions of model {name}")
        return [versions[n].status for n in sorted(versions, reverse=True)]

    def needed(self, directory: Path) -> set[int] | None:
        """Return the versions in a model's directory that are served or have a label.

        Returns:
            Their numbers; None while versions are being loaded or unloaded.
        """
        needed: set[int] = set()
        for config in self._configs.values():
            if config.directory.resolve() != directory.resolve():
                continue
            with self._lock:
                versions = dict(self._versions.get(config.name, {}))
            failed = {n for n, version in versions.items() if version.has_failed}
            present = model_config.versions(directory).keys()
            wanted = config.policy(present - failed)
            states = {
                number: version.state
                for number, version in versions.items()
                if version.state is not State.END
            }
            if states != dict.fromkeys(wanted, State.AVAILABLE):
                return None
            needed |= wanted | {*config.labels.values()}
        return needed

    @contextlib.contextmanager
    def use(
        self, name: str, number: int | None = None, label: str | None = None
    ) -> Iterator[tuple[int, SavedModel]]:
        """Give a version's number and model, and keep it loaded while it is used.

        Args:
            name: The model's name.
            number: The version; without it, the newest that is available.
            label: The version's label, instead of its number.

        Raises:
            tf.errors.OpError: If there is no such version, or it is not available.
        """
        version, model = self._acquire(name, number, label)
        try:
            yield version.number, model
        finally:
            version.release()

    def _acquire(
        self, name: str, number: int | None, label: str | None
    ) -> tuple[Version, SavedModel]:
        if label is not None:
            config = self._configs.get(name)
            number = config.labels.get(label) if config else None
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        with self._lock:
            versions = self._versions.get(name, {})
            numbers = sorted(versions, reverse=True) if number is None else [number]
            for candidate in numbers:
                if candidate in versions and (model := versions[candidate].acquire()):
                    return versions[candidate], model
        request = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        raise not_found(f"Servable not found for request: {request}")

    def _watch(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                self._poll()
            except Exception:
                _logger.exception("The models could not be looked at.")
            self._wake.wait(self._poll_interval)

    def _poll(self) -> None:
        self._read_configs()
        for name in {*self._configs, *self._versions}:
            self._update(name)
        self._free()
        if self._others is not None:
            self._others.tell(
                self._configs,
                [v for versions in self._versions.values() for v in versions.values()],
            )
        if self._missing is None:
            self._missing = set(self._configs)
        self._missing = {
            name
            for name in self._missing & self._configs.keys()
            if not any(
                version.state is State.AVAILABLE
                for version in self._versions.get(name, {}).values()
            )
        }
        if not any(
            version.state in (State.START, State.LOADING)
            for versions in self._versions.values()
            for version in versions.values()
        ):
            self._settled.set()

    def _read_configs(self) -> None:
        """Read the models' configs; keep the earlier ones if that fails."""
        try:
            self._configs = (
                model_config.discover(self._base)
                if self._config_file is None
                else model_config.read_config_file(self._config_file, self._base)
            )
        except (OSError, UserError) as error:
            _logger.warning("The models stay as they are: %s", error)

    def _update(self, name: str) -> None:
        config = self._configs.get(name)
        present: dict[int, Path] = {}
        if config is not None:
            try:
                present = model_config.versions(config.directory)
            except OSError as error:
                _logger.warning("The versions of %s stay as they are: %s", name, error)
                return
        # No other thread changes the table, so this one reads it without the lock.
        ended = _ended(self._versions.get(name, {}), present)
        with self._lock:
            versions = self._versions.setdefault(name, {})
            for number in ended:
                del versions[number]
            failed = {n for n, version in versions.items() if version.has_failed}
            wanted = config.policy(present.keys() - failed) if config else set()
            for number in wanted:
                if number not in versions or versions[number].state is State.END:
                    versions[number] = self._version(name, number, present[number])
                    self._loaders.submit(self._load, versions[number])
            replaced = [v for n, v in versions.items() if n not in wanted]
            if not versions:
                del self._versions[name]
            answering = any(versions[n].state is State.AVAILABLE for n in wanted)
            loading = any(
                versions[n].state in (State.START, State.LOADING) for n in wanted
            )
        if (answering and not loading) or not (wanted or present):
            for version in replaced:
                if version.state is State.AVAILABLE:
                    version.unload()
                    self._leaving.append(version)

    def _free(self) -> None:
        """Free the graphs of versions that have ended; they refer to themselves."""
        leaving = [v for v in self._leaving if v.state is not State.END]
        if len(leaving) < len(self._leaving):
            self._leaving = leaving
            gc.collect()

    def _load(self, version: Version) -> None:
        if self._stopping:
            return
        version.load(self._base, self._batching, self._timeout)
        if version.error is not None:
            _logger.warning(
                "Version %d of %s cannot be served: %s",
                version.number,
                version.name,
                version.error.message,
            )
        self._wake.set()


def _ended(versions: Mapping[int, Version], present: Mapping[int, Path]) -> list[int]:
    """Return the ended versions that are gone, or have failed and changed since."""
    return [
        number
        for number, version in versions.items()
        if version.state is State.END
        and (
            number not in present
            or (version.has_failed and version.files != fingerprint(present[number]))
        )
    ]
