"""The oldest versions that the tests run with, and what is said of an older one."""

from importlib import metadata

OLDEST = {"keras": (3, 8), "tensorflow": (2, 18), "jax": (0, 10), "torch": (2, 13)}


def check_version(package: str) -> None:
    """Refuse a package of an older version; it is not imported to be asked.

    What is not installed, or under another name, is not judged here.

    Raises:
        ImportError: If the version is too old.
    """
    oldest = OLDEST.get(package)
    if oldest is None:
        return
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return
    major, minor, *_ = version.split(".")
    if (int(major), int(minor)) < oldest:
        needed = f"{package}>={'.'.join(map(str, oldest))}"
        raise ImportError(
            f"kerasnorm needs {needed}. Received: {package} {version}. "
            f"Upgrade it: pip install --upgrade '{needed}'"
        )
