"""How a SavedModel runs its signatures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving import session
from service.serving.saved_model import SavedModel
from tests.service.serving.served import save


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


def test_choices_of_outputs_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each callable keeps a part of the graph, and n outputs have 2^n choices."""
    made = []
    make_callable = session.make_callable

    def record(*arguments: Any, **options: Any) -> Any:
        made.append(arguments)
        return make_callable(*arguments, **options)

    monkeypatch.setattr(session, "make_callable", record)
    names = [f"y{number}" for number in range(8)]
    save(
        tmp_path,
        serving_default=(
            lambda x: {name: x + float(name[1:]) for name in names},
            [tf.TensorSpec([None], tf.float32, "x")],
        ),
    )
    model = SavedModel(tmp_path)
    signature = model.signatures["serving_default"]
    for choice in range(1, 2**8):
        wanted = [name for number, name in enumerate(names) if choice >> number & 1]
        inputs = {"x": np.array([1], "float32")}
        results = model.run(signature, inputs, wanted, timeout=30)
        assert {name: y.tolist() for name, y in results.items()} == {
            name: [1.0 + float(name[1:])] for name in wanted
        }
    assert len(made) < 100
    model.close()
