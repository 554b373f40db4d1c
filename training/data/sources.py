"""Find a dataset and make it ready to read."""

import contextlib
import difflib
import io
import tempfile
import urllib.parse
from pathlib import Path

import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from filelock import FileLock

from training.config import TrainConfig
from training.data import archives
from training.data.folders import open_folder
from training.data.pictures import decode_stored
from training.data.source import Source
from training.errors import UserError, first_line
from training.options.values import is_elsewhere
from training.run.atomic import check_writable

LOCK = ".lock"  # beside a dataset's versions; who holds it may prepare the dataset

_NETWORK_TIMEOUT_SECONDS = 10


def open_source(config: TrainConfig) -> Source:
    """Find the dataset of a job, and prepare it if necessary.

    Raises:
        UserError: If there is no such dataset, if it is no image classification
            set, or if it is not available.
    """
    if config.dataset.startswith("folder:"):
        return open_folder(Path(config.dataset.removeprefix("folder:")))
    return _open_tfds(config)


def _open_tfds(config: TrainConfig) -> Source:
    if is_elsewhere(config.dataset) and not config.download:
        raise UserError(
            "`--dataset` must be on this machine, since `--no-download` asks no other "
            f"host. Received: {config.dataset}."
        )
    builder = _builder(config)
    _check_image_classification(builder, config.dataset)
    checksums = _checksums(builder)
    if not builder.is_prepared():
        _prepare(builder, config, checksums)
        builder = _builder(config)  # reads what this or another process has prepared
    image, label = (builder.info.features[key] for key in builder.info.supervised_keys)
    return Source(
        name=config.dataset,
        version=str(builder.version),
        checksums=checksums,
        labels=tuple(label.names),
        shape=image.shape,
        dtype=tf.as_dtype(image.tf_dtype).name,
        sizes={name: info.num_examples for name, info in builder.info.splits.items()},
        read=lambda split: _read(builder, split),
    )


def _read(builder: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    key, _ = builder.info.supervised_keys
    image = builder.info.features[key]
    dtype = tf.as_dtype(image.tf_dtype)
    is_decoded = not dtype.is_integer  # TFDS keeps floats in a form of its own
    examples = builder.as_dataset(
        split=split,
        as_supervised=True,
        # The pipeline caches, after it has resized. The order of the files is fixed.
        read_config=tfds.ReadConfig(try_autocache=False),
        decoders=None if is_decoded else {key: tfds.decode.SkipDecoding()},
    )
    if is_decoded:
        return examples

    def decoded(contents: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = decode_stored(contents, image.shape[-1] or 0, dtype)
        return tf.ensure_shape(pixels, image.shape), label

    return examples.map(decoded, num_parallel_calls=tf.data.AUTOTUNE)


def _checksums(builder: tfds.core.DatasetBuilder) -> dict[str, str]:
    """Return the SHA-256 of a dataset's archives by their names, where TFDS has it."""
    # Where `--dataset` names a prepared version, TFDS's builder knows its files alone.
    infos = getattr(builder, "url_infos", None)
    if infos is None:
        with contextlib.suppress(tfds.core.DatasetNotFoundError, ImportError):
            infos = tfds.builder_cls(builder.name).url_infos
    found = (infos or {}).values()
    return {info.filename: info.checksum for info in found if info.filename}


def _builder(config: TrainConfig) -> tfds.core.DatasetBuilder:
    name = config.dataset
    try:
        # TFDS prints a banner for a namespace whose package is missing.
        with contextlib.redirect_stdout(io.StringIO()):
            return tfds.builder(name, data_dir=config.data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(
            "`--dataset` must be the name of a TFDS dataset or folder:PATH. "
            f"Received: {name}.{_near_names(name)}"
        ) from error
    except ImportError as error:
        raise UserError(
            f"`--dataset` {name} needs a package that is not installed: {error}."
        ) from error
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(
            f"`--dataset` {name} is not known to TFDS in this configuration or "
            f"version.{_near_configurations(name)}"
        ) from error
    except Exception as error:  # TFDS may ask any library about the name
        raise UserError(
            f"`--dataset` {name} is not available: {_reason(error)}."
        ) from error


def _near_names(name: str) -> str:
    known = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(name.split("/")[0].lower(), known, n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _near_configurations(name: str) -> str:
    dataset, _, configuration = name.partition("/")
    try:
        known = tfds.builder_cls(dataset.split(":")[0]).builder_configs
    except (ValueError, AssertionError, ImportError):
        return _near_names(name)
    near = difflib.get_close_matches(configuration, known, n=3, cutoff=0.3)
    names = [f"{dataset}/{c}" for c in near or sorted(known)[:3]]
    return f" Did you mean {' or '.join(names)}?" if names else ""


def _check_image_classification(builder: tfds.core.DatasetBuilder, name: str) -> None:
    features, keys = builder.info.features, builder.info.supervised_keys
    is_pair = keys is not None and len(keys) == 2 and all(k in features for k in keys)
    if (
        not is_pair
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
    ):
        raise UserError(
            "`--dataset` must be an image classification set: one image and one "
            f"class label an example. Received: {name}."
        )


def _prepare(
    builder: tfds.core.DatasetBuilder, config: TrainConfig, checksums: dict[str, str]
) -> None:
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory() as workspace:
        directory = archives.find(
            builder.name, checksums, config.archives, Path(workspace)
        )
        if not config.download:
            _check_complete(builder, config, directory)
        elif directory is None:
            _check_network(builder, config)
        origin = directory or "a download"
        print(f"Preparing {config.dataset} from {origin}, once ...", flush=True)
        try:
            _download_and_prepare(builder, directory, config.download)
        except tfds.download.download_manager.NonMatchingChecksumError as error:
            names = archives.corrupt(directory, checksums) if directory else []
            raise UserError(
                f"{', '.join(names) or 'An archive'} in {origin} is corrupt: its "
                "SHA-256 is not the one that TFDS has on record. Replace the file."
            ) from error
        except UserError:
            raise
        except Exception as error:  # the dataset's code may use any library
            raise _unavailable(builder, config, error) from error


def _check_complete(
    builder: tfds.core.DatasetBuilder, config: TrainConfig, directory: Path | None
) -> None:
    """Check that TFDS finds all that it would download in a directory."""
    names = {info.filename for info in builder.url_infos.values()}
    if directory is None or not all(
        name and (directory / name).is_file() for name in names
    ):
        raise UserError(
            f"{config.dataset} is not on this machine, and `--no-download` asks no "
            "other host. Give all its original archives with --archives DIR, or "
            "prepared data with --data-dir DIR."
        )


def _download_and_prepare(
    builder: tfds.core.DatasetBuilder, directory: Path | None, download: bool
) -> None:
    """Let TFDS prepare a dataset from given archives or from a download.

    TFDS names what it extracts after the archive's file name alone, and reuses what it
    finds under that name. MNIST's and Fashion-MNIST's archives have the same file
    names. So every dataset is extracted into a directory of its own.
    """
    place = Path(builder.data_dir).parent
    check_writable(place, "--data-dir")
    with tempfile.TemporaryDirectory(dir=place, prefix=".preparing-") as extracted:
        download_config = tfds.download.DownloadConfig(
            manual_dir=directory,
            extract_dir=extracted,
            # It refuses URLs that TFDS has not on record, before it asks for them.
            force_checksums_validation=not download,
        )
        # TFDS announces a download of unknown size even if there is none.
        with FileLock(place / LOCK), contextlib.redirect_stdout(io.StringIO()):
            # Another process may have prepared it in the meantime.
            if not builder.is_prepared():
                builder.download_and_prepare(download_config=download_config)


def _check_network(builder: tfds.core.DatasetBuilder, config: TrainConfig) -> None:
    """Ask each host once; TFDS itself would ask for more than three minutes."""
    error: requests.RequestException | None = None
    for host in {
        urllib.parse.urljoin(url, "/")
        for url in builder.url_infos or ()
        if url.startswith("http")
    }:
        try:
            requests.head(host, timeout=_NETWORK_TIMEOUT_SECONDS)
        except requests.RequestException as failure:
            error = failure
        else:
            return
    if error is not None:
        raise _unavailable(builder, config, error) from error


def _unavailable(
    builder: tfds.core.DatasetBuilder, config: TrainConfig, error: Exception
) -> UserError:
    tried = [f"prepared data in {builder.data_dir}"]
    if config.archives:
        tried.append(f"archives in {config.archives}")
    tried.append(f"archives in {archives.own_directory(builder.name)}")
    tried.append(f"archives in {archives.system_directory(builder.name)}")
    tried.append("TFDS's download")
    return UserError(
        f"{config.dataset} is not available. Tried: {'; '.join(tried)} "
        f"({_reason(error)}). Give the original archives with --archives DIR."
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)[:200].rstrip('.')}"
