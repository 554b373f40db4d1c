"""Every backend has the same functions, and one of them is chosen."""

import importlib
import inspect
import subprocess
import sys

import keras
import pytest

import kerasnorm
from kerasnorm import backend, functional

pytestmark = pytest.mark.any_backend

NAMES = ("tensorflow", "jax", "torch", "generic")


def functions_of(name):
    try:
        module = importlib.import_module(f"kerasnorm.backend.{name}")
    except ModuleNotFoundError as error:
        if error.name.startswith("kerasnorm"):
            raise
        pytest.skip(f"{error.name} is not installed.")
    return {function: getattr(module, function) for function in module.__all__}


@pytest.mark.parametrize("name", NAMES)
def test_every_backend_has_the_same_functions(name):
    functions = functions_of(name)
    assert list(functions) == backend.__all__
    for function, own in functions.items():
        reference = getattr(functional, function, getattr(backend, function))
        assert inspect.signature(own) == inspect.signature(reference), function


def test_the_chosen_backend_is_that_of_keras():
    functions = functions_of(keras.backend.backend())
    for name, function in functions.items():
        assert getattr(backend, name) is function


def test_no_other_backend_is_imported(monkeypatch):
    """By kerasnorm.backend; test_surface.py sees that no other room names one."""
    monkeypatch.setattr(kerasnorm, "backend", backend)  # as it is put back
    for name in list(sys.modules):
        if name.startswith("kerasnorm.backend"):
            monkeypatch.delitem(sys.modules, name)
    importlib.import_module("kerasnorm.backend")
    below = [name for name in sys.modules if name.startswith("kerasnorm.backend.")]
    imported = {name.split(".")[2] for name in below} - {"generic"}
    assert imported == {keras.backend.backend()}


def test_the_package_imports_no_framework_that_keras_has_not():
    code = """
import sys, keras
frameworks = {"tensorflow", "jax", "torch"}
before = frameworks & set(sys.modules)
import kerasnorm
assert not (frameworks & set(sys.modules)) - before, before
"""
    subprocess.run([sys.executable, "-c", code], check=True)
