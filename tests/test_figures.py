"""The guide's figures can be drawn, and have the numbers that lie beside them."""

import json

import pytest
from PIL import Image

from experiments.figures import FIGURES, OUTPUT, main

KEPT = json.loads((OUTPUT / "numbers.json").read_text())


def test_every_figure_and_its_numbers_are_kept():
    assert set(KEPT) == set(FIGURES)
    assert {path.stem for path in OUTPUT.glob("*.png")} == set(FIGURES)


def test_every_figure_is_in_the_guide():
    pages = "".join(p.read_text() for p in OUTPUT.parents[1].glob("guide/*.md"))
    assert [name for name in FIGURES if f"/{name}.png)" not in pages] == []


def test_one_without_a_training_has_the_kept_numbers(tmp_path):
    main(tmp_path, ["input-normalisation"])
    numbers = json.loads((tmp_path / "numbers.json").read_text())["input-normalisation"]
    assert numbers == pytest.approx(KEPT["input-normalisation"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_each_can_be_drawn(name, tmp_path):
    """Other machines' trainings end elsewhere, so no number is compared."""
    main(tmp_path, [name])
    numbers = json.loads((tmp_path / "numbers.json").read_text())[name]
    assert set(numbers) == set(KEPT[name])
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.width > 500
