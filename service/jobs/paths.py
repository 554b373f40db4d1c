"""Where the jobs of a service may read and write."""

from dataclasses import dataclass
from pathlib import Path

from training.config import TrainConfig, is_elsewhere


class OutsideError(Exception):
    """A path that leads out of the roots.

    Args:
        field: The field of the config.
        message: What is wrong, in one line.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Roots:
    """The directories that the paths in configs are confined to.

    Args:
        runs: Where runs are kept: the field `run_dir`.
        exports: Where models are exported to: the field `export_dir`.
        data: Where datasets may lie: `data_dir`, `archives`, and `folder:PATH` as
            `dataset`.
        downloads: Whether trainers may fetch datasets from other hosts.
    """

    runs: Path
    exports: Path
    data: tuple[Path, ...]
    downloads: bool = False

    def confine(self, config: TrainConfig) -> TrainConfig:
        """Return a config with this service's directories for runs and exports.

        Raises:
            OutsideError: If the config names a path that is not allowed.
        """
        own = {"run_dir": self.runs, "export_dir": self.exports}
        # A directory below them is refused, too: no run may lie in another run, and no
        # model in another model.
        for field in own.keys() & config.model_fields_set:
            if getattr(config, field) != own[field]:
                raise OutsideError(
                    field, f"`{field}` must be {own[field]}, or left out."
                )
        _check("data_dir", config.data_dir, self.data)
        _check("archives", config.archives, self.data)
        if config.dataset.startswith("folder:"):
            _check("dataset", Path(config.dataset.removeprefix("folder:")), self.data)
        if self.downloads:
            return config.model_copy(update=own)
        asked = "download" in config.model_fields_set and config.download
        if asked or is_elsewhere(config.dataset):
            raise OutsideError(
                "download" if asked else "dataset",
                "This service fetches no datasets from other hosts. "
                "Its operator can allow it with --allow-downloads.",
            )
        return config.model_copy(update={**own, "download": False})


def _check(field: str, path: Path | None, roots: tuple[Path, ...]) -> None:
    if path is None:
        return
    if not any(_is_below(path, root) for root in roots):
        places = " or ".join(str(root) for root in roots) or "nowhere"
        raise OutsideError(
            field, f"`{field}` must lie in {places}. Received: {str(path)!r}."
        )


def _is_below(path: Path, root: Path) -> bool:
    """Return whether a path lies below a root, after following links."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, or no path at all
        return False
