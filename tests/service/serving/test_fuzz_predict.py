"""The fuzzer of predict bodies, for a short time."""

import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from tests.service.serving.fuzz_predict import fuzz


def test_no_body_breaks_the_server() -> None:
    result = fuzz(1500, seed=1)
    # The bodies are neither all right nor all wrong.
    assert min(result["statuses"].values()) > 150
