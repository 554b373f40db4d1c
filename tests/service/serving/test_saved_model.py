"""How a SavedModel runs its signatures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving import session
from service.serving.saved_model import SavedModel


def test_every_order_of_names_is_run_by_one_callable(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make_callable = session.make_callable

    def record(
        session: Any, fetches: Sequence[str], feeds: Sequence[str], timeout: float
    ) -> Any:
        made.append((fetches, feeds))
        return make_callable(session, fetches, feeds, timeout)

    monkeypatch.setattr(session, "make_callable", record)
    model = SavedModel(models / "pair" / "1")
    inputs = {"a": np.array([1], "float32"), "b": np.array([[1, 2]], "int32")}
    for names in (["a", "b"], ["b", "a"]):
        for outputs in (["sum", "first"], ["first", "sum"]):
            results = model.run(
                model.signatures["serving_default"],
                {name: inputs[name] for name in names},
                outputs,
                timeout=30,
            )
            np.testing.assert_array_equal(results["sum"], [[2, 3]])
            np.testing.assert_array_equal(results["first"], [1])
    assert len(made) == 1
    model.close()
