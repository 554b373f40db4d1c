"""Figures are put into their place of a page."""

import pytest

from benchmarks import pages


def test_figures_are_put_into_their_place_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- end of a -->\nafter\n")
    pages.put(page, "a", "| new |")
    expected = "before\n<!-- a -->\n| new |\n<!-- end of a -->\nafter\n"
    assert page.read_text() == expected
    with pytest.raises(ValueError, match="must have one place between <!-- b -->"):
        pages.put(page, "b", "")
    assert page.read_text() == expected
