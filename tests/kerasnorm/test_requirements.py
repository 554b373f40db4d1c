"""What is said where a package is too old, before anything imports it."""

import importlib.metadata
import re
import subprocess
import sys

import keras
import pytest

from kerasnorm import _requirements

pytestmark = pytest.mark.any_backend

START = """
import importlib.metadata, sys

installed = importlib.metadata.version
importlib.metadata.version = lambda name: "{version}" if name == "{package}" else (
    installed(name)
)
try:
    import kerasnorm
except ImportError as error:
    print(error)
    print(*sorted({{"keras", "tensorflow", "jax", "torch"}} & set(sys.modules)))
"""


def lines_of(package, version):
    """Import kerasnorm in a process where a package says that it has the version."""
    code = START.format(package=package, version=version)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_an_old_keras_is_one_line_and_nothing_is_imported():
    message, imported = lines_of("keras", "2.15.0")
    assert message == (
        "kerasnorm needs keras>=3.8. Received: keras 2.15.0. "
        "Upgrade it: pip install --upgrade 'keras>=3.8'"
    )
    assert imported == ""


def test_an_old_backend_is_one_line():
    backend = keras.backend.backend()
    message, _ = lines_of(backend, "0.1")
    assert re.match(f"kerasnorm needs {backend}>=.* Received: {backend} 0.1. ", message)


@pytest.mark.parametrize(
    ("version", "is_too_old"),
    [
        ("3.8.0", False),
        ("3.8.0.dev2025010103", False),
        ("3.10.0", False),
        ("4.0", False),
        ("3.7.0", True),
        ("2.15.0", True),
    ],
)
def test_versions_are_compared_as_numbers(version, is_too_old, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    if is_too_old:
        with pytest.raises(ImportError, match=f"Received: keras {version}"):
            _requirements.check_version("keras")
    else:
        _requirements.check_version("keras")


def test_what_has_another_name_is_not_judged(monkeypatch):
    """As `keras-nightly` and `tensorflow-cpu`."""

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    _requirements.check_version("tensorflow")
    _requirements.check_version("openvino")
