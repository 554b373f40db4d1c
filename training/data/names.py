"""Which names of datasets are known, without a network and without their code."""

import difflib
import functools
import os
import re
from pathlib import Path

from training.config import TrainConfig
from training.data.archives import own_directory
from training.options.values import FOLDER

# NAME[/CONFIGURATION][:VERSION]; TFDS would also take arguments for its code there.
_TFDS = re.compile(r"(?P<name>[A-Za-z]\w*)(/[\w+.-]+)?(:(\d+|\*)(\.(\d+|\*)){2})?")
_HUGGINGFACE = re.compile(r"huggingface:[\w-]+(/[\w+.-]+)?")
_TFDS_DIRECTORY = ("TFDS_DATA_DIR", "~/tensorflow_datasets")


def complaint_about_name(config: TrainConfig) -> str | None:
    """Return why the dataset of a config is none that is known, or None if it is."""
    dataset = config.dataset
    if dataset.startswith(FOLDER) or _HUGGINGFACE.fullmatch(dataset):
        return None
    match = _TFDS.fullmatch(dataset)
    name = match["name"] if match else dataset.partition("/")[0]
    if match and (
        own_directory(name).is_dir()
        or _plain(name) in map(_plain, _names())
        or (_prepared(config) / name).is_dir()
    ):
        return None
    near = difflib.get_close_matches(name.lower(), _names(), n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return (
        "`dataset` must be the name of a TFDS dataset, folder:PATH or "
        f"huggingface:NAME. Received: {dataset}.{hint}"
    )


@functools.cache
def _names() -> list[str]:
    """Return the names of TFDS's own datasets; the first call takes a second."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def _plain(name: str) -> str:
    """Return a name without what TFDS does not look at: FashionMNIST, fashion_mnist."""
    return name.replace("_", "").lower()


def _prepared(config: TrainConfig) -> Path:
    """Return where prepared data lies; its code need not be known."""
    variable, default = _TFDS_DIRECTORY
    return config.data_dir or Path(os.environ.get(variable, default)).expanduser()
