"""Fixtures of the library's tests.

They import Keras only where they run: the process that hands out the tests needs none.
"""

from collections.abc import Iterator

import pytest


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let no run pass that has skipped every test, as one that has found none."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or session.config.option.collectonly:
        return
    if session.exitstatus == 0 and not terminal.stats.get("passed"):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.fixture
def float64() -> Iterator[None]:
    """Let JAX compute in float64, which it does only where it is told."""
    import keras

    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture
def float64_policy(float64: None) -> Iterator[None]:
    """Make float64 the policy of new layers."""
    import keras

    kept = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(kept)
