"""The benchmarks run on every backend, and their steps compute the same."""

import json

import keras
import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks import inference, layers, networks
from benchmarks.steps import LAYERS, Case, own
from benchmarks.steps.cases import arrays as draw_arrays

pytestmark = pytest.mark.any_backend
IMAGES = (4, 6, 6, 8)


def arrays(results):
    """Return the tensors of whatever framework as arrays."""
    return [
        result.detach().numpy()
        if hasattr(result, "detach")
        else keras.ops.convert_to_numpy(result)
        for result in results
    ]


@pytest.mark.parametrize("shape", [IMAGES, (40, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_normalization_steps_compute_the_same(shape, training):
    case = Case("batch_norm", shape, training=training)
    ours, keras_own = (
        arrays(own.layer_step(case, library)()) for library in LAYERS["batch_norm"]
    )
    assert ours[0].shape == shape
    for one, other in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    for step in own.native_steps(case).values():
        y = arrays(step()[:1])[0]
        y = np.moveaxis(y, 1, -1) if keras.backend.backend() != "jax" else y
        np.testing.assert_allclose(y.ravel(), ours[0].ravel(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", sorted(LAYERS.keys() - {"batch_norm"}))
def test_the_noise_is_the_same_in_both_directions(layer):
    case = Case(layer, IMAGES)
    x, dy = draw_arrays(case)
    for library in LAYERS[layer]:
        y, dx = arrays(own.layer_step(case, library)()[:2])
        np.testing.assert_allclose(y / x, dx / dy, rtol=1e-3, atol=1e-5)
    for step in own.native_steps(case).values():
        y, dx = arrays(step()[:2])
        np.testing.assert_array_equal(y == 0, dx == 0)


@pytest.mark.parametrize("benchmark", ["layers", "models", "inference"])
def test_the_command_line_runs(benchmark, tmp_path, monkeypatch):
    """In small, so that it is seen that they run, and not how fast."""
    monkeypatch.setattr(layers, "SMALL", [(8, 4)])
    monkeypatch.setattr(layers, "LARGE", [IMAGES])
    monkeypatch.setattr(networks, "BATCH", 4)
    monkeypatch.setattr(inference, "BATCHES", (1,))
    for module in (layers, networks, inference):
        monkeypatch.setattr(module, "measure", once)
    monkeypatch.setattr(networks.memory, "measure_costs", lambda *_, **__: {})
    monkeypatch.setattr("benchmarks.report.make_tables", lambda results: [])
    monkeypatch.setattr("benchmarks.report.PLOTS", {benchmark: lambda *_: None})
    backend = keras.backend.backend()
    words = ["benchmarks", benchmark, "--quick", "--backend", backend]
    monkeypatch.setattr("sys.argv", [*words, "--output", str(tmp_path)])
    command_line.main()
    folder = tmp_path if backend == "tensorflow" else tmp_path / backend
    written = json.loads((folder / f"{benchmark}.json").read_text())
    assert written["environment"]["backend"] == backend
    assert len(written) == (3 if benchmark == "layers" else 2)


def once(candidates, budget, patience):
    """Call each candidate once; a second stands for its time."""
    names = ("kerasnorm", "keras", "neither", "folded", "copy")
    for step in candidates.values():
        step()
    return {"times": {n: {"median": 1.0 + i} for i, n in enumerate(names)}, "others": 0}
