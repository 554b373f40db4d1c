"""The guide's figures can be drawn, and have the numbers that lie beside them."""

import json

import pytest
from PIL import Image

from experiments.figures import (
    FIGURES,
    OUTPUT,
    dropout,
    ensemble,
    layer,
    main,
    order,
    placement,
    runs,
)

WITHOUT_TRAINING = "input-normalization"
KEPT = json.loads((OUTPUT / "numbers.json").read_text())


def test_every_figure_and_its_numbers_are_kept():
    assert set(KEPT) == set(FIGURES)
    assert {path.stem for path in OUTPUT.glob("*.png")} == set(FIGURES)


def test_every_figure_is_in_the_guide():
    pages = "".join(p.read_text() for p in OUTPUT.parents[1].glob("guide/*.md"))
    assert [name for name in FIGURES if f"/{name}.png)" not in pages] == []


BN_WITH, BN_WITHOUT = "with batch normalization, ", "without batch normalization, "
BEFORE, AFTER = "dropout before a batch normalization, ", "dropout after the last one, "
SAID = [
    ("1-overfitting", "overfitting", "with dropout, unseen loss", "{:.2f}"),
    ("1-overfitting", "overfitting", "without dropout, unseen loss", "{:.2f}"),
    ("1-overfitting", "co-adaptation", "with dropout, 0.5 missing", "{:.0%}"),
    ("1-overfitting", "co-adaptation", "without dropout, 0.8 missing", "{:.0%}"),
    ("2-dropout", "thinned", "thinned by mask 2, weights", "{:.0f}"),
    ("2-dropout", "unit", "mean over masks", "{:.3f}"),
    ("2-dropout", "unit", "inference", "{:.3f}"),
    ("2-dropout", "unit", "unscaled", "{:.2f}"),
    ("3-ensemble", "ensemble", "single, mean", "{:.1%}"),
    ("3-ensemble", "ensemble", "average of 50", "{:.1%}"),
    ("3-ensemble", "monte-carlo", "right in the least certain tenth", "{:.1%}"),
    ("4-inputs", "input-normalization", "raw, loss after 200 steps", "{:.3f}"),
    ("4-inputs", "input-normalization", "normalized, loss after 200 steps", "{:.3f}"),
    ("5-layer", "bn-layer", "gamma, largest", "{:.2f}"),
    ("5-layer", "bn-layer", "moving_variance, largest", "{:.2f}"),
    ("6-training", "bn-moving-average", "mean, exponential, step 50", "{:.2f}"),
    ("6-training", "bn-moving-average", "mean, debiased, step 50", "{:.2f}"),
    (
        "7-inference",
        "bn-inference",
        "standard deviation of feature 0, batches of 8",
        "{:.2f}",
    ),
    ("8-shift", "bn-speed", BN_WITH + "steps to 80 %", "{:,.0f}"),
    ("8-shift", "bn-speed", BN_WITHOUT + "steps to 80 %", "{:,.0f}"),
    ("8-shift", "bn-percentiles", BN_WITH + "median drift of the units", "{:.2f}"),
    ("9-both", "order", BEFORE + "as trained, median ratio", "{:.2f}"),
    ("9-both", "order", BEFORE + "recalibrated, loss", "{:.3f}"),
    ("9-both", "order", AFTER + "recalibrated, accuracy", "{:.1%}"),
]


@pytest.mark.parametrize(("page", "figure", "key", "form"), SAID)
def test_the_guide_says_what_was_measured(page, figure, key, form):
    text = (OUTPUT.parents[1] / "guide" / f"{page}.md").read_text(encoding="utf-8")
    said = (
        form.format(KEPT[figure][key]).replace("%", " %").replace("-", "\N{MINUS SIGN}")
    )
    assert said in text


def draw(name, directory):
    """Draw a figure and return its numbers."""
    main(directory, [name])
    with Image.open(directory / f"{name}.png") as picture:
        assert picture.width > 500
    return json.loads((directory / "numbers.json").read_text())[name]


def test_one_without_a_training_has_the_kept_numbers(tmp_path):
    numbers = draw(WITHOUT_TRAINING, tmp_path)
    assert numbers == pytest.approx(KEPT[WITHOUT_TRAINING], rel=1e-3)


@pytest.fixture
def short_trainings(monkeypatch):
    """A few epochs and images. Only those of shift have to get to 80 %."""
    for module in (dropout, layer, order, placement, runs):
        monkeypatch.setattr(module, "EPOCHS", 1)
    for module in (dropout, ensemble, order, runs):
        monkeypatch.setattr(module, "UNSEEN", 400)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FIGURES if n != WITHOUT_TRAINING])
def test_each_can_be_drawn(name, tmp_path, short_trainings):
    """A short training ends elsewhere, so no number is compared."""
    assert set(draw(name, tmp_path)) == set(KEPT[name])
