"""The inside of a run's model: its normalizations and its masks."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

import kerasnorm
from service.jobs.store import Job, Store
from service.page.layers import normalizations, thinned
from training.config import TrainConfig
from training.data.pipeline import load
from training.errors import UserError


def job(config: TrainConfig, directory: Path) -> Job:
    """A job whose run lies in a directory."""
    config = config.model_copy(update={"run_dir": directory.parent})
    directory.rename(directory.parent / "1")
    store = Store(directory.parent / "jobs.sqlite")
    try:
        return store.add(config, 0)
    finally:
        store.close()


@pytest.fixture
def run(few_pictures: Path, tmp_path: Path) -> Job:
    """A run as its trainer leaves it, but for the training."""
    config = TrainConfig(dataset=f"folder:{few_pictures}", validation_split=0.1)
    x = y = keras.Input((28, 28, 1))
    y = keras.layers.Conv2D(4, 3, name="conv")(y)
    y = kerasnorm.KBatchNorm(
        moving_mean_initializer=keras.initializers.RandomNormal(seed=1),
        moving_variance_initializer=keras.initializers.RandomUniform(1, 2, seed=2),
        gamma_initializer=keras.initializers.RandomUniform(1, 2, seed=3),
        beta_initializer=keras.initializers.RandomNormal(seed=4),
    )(y)
    y = keras.layers.GlobalAveragePooling2D()(y)
    y = keras.layers.Dense(1000, name="dense")(y)
    y = kerasnorm.KDropout(0.3)(y)
    model = keras.Model(x, keras.layers.Dense(10, name="logits")(y))
    directory = tmp_path / "run"
    directory.mkdir()
    model.save(directory / "model.keras")
    return job(config, directory)


def test_what_goes_into_a_normalization_and_comes_out(run: Job) -> None:
    (layer,) = normalizations(run)
    model = keras.models.load_model(run.directory / "model.keras")
    gamma, beta, mean, variance = (
        np.array(keras.ops.copy(w.value)) for w in model.layers[2].weights
    )
    before = layer.before.reshape(-1, 4).astype("float64")
    expected = (before - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(
        layer.after.reshape(-1, 4), expected, rtol=1e-3, atol=1e-3
    )
    images = load(run.config).sizes["test"]
    assert len(before) == images * 26 * 26
    assert before.std() > 1  # pixels, not noise


def test_masks_are_drawn_anew_at_the_rate(run: Job) -> None:
    first, second = thinned(run), thinned(run)
    assert [(c.name, c.number) for c in first] == [
        ("inputs", 28 * 28),
        ("conv: maps", 4),
        ("dense: units", 1000),
        ("logits: units", 10),
    ]
    assert [column.kept is not None for column in first] == [False, False, True, False]
    kept, others = first[2].kept, second[2].kept
    assert kept is not None
    assert others is not None
    assert 600 < kept.sum() < 800  # of 1000 at rate 0.3: 7 standard deviations
    assert (kept != others).any()


def test_masks_are_drawn_while_a_dataset_is_being_prepared(
    run: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ready = threading.Event(), threading.Event()

    def slow(config: TrainConfig) -> object:
        asked.set()
        assert ready.wait(300)
        return load(config)

    monkeypatch.setattr("service.page.layers.load", slow)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(normalizations, run)
        assert asked.wait(300)
        try:
            assert len(pool.submit(thinned, run).result(timeout=60)) == 4
        finally:
            ready.set()
        assert len(waiting.result(300)) == 1


def test_whoever_looks_has_no_dataset_fetched(
    run: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def none(config: TrainConfig) -> object:
        asked.append(config)
        raise UserError("It is not here.")

    monkeypatch.setattr("service.page.layers.load", none)
    allowed = run.config.model_copy(update={"download": True, "seed": 1})
    with pytest.raises(UserError, match="It is not here"):
        normalizations(replace(run, config=allowed))
    assert [config.download for config in asked] == [False]


def test_a_run_that_is_gone(run: Job) -> None:
    (run.directory / "model.keras").unlink()
    with pytest.raises(UserError, match=r"model\.keras has been removed"):
        thinned(run)
