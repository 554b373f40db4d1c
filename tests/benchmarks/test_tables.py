"""The figures in the tables."""

from benchmarks.tables import TABLES, fastest_native, milliseconds, render
from tests.benchmarks.results import RESULTS, TIMES


def test_the_figures_of_a_row():
    text = render(TABLES["timings"](RESULTS["layers"]["timings"]))
    cells = [cell.strip() for cell in text.splitlines()[4].split("|")[1:-1]]
    assert cells == [
        "batch norm (64, 32, 32, 64)",
        "10.0 (9.00-11.0)",
        "30.0 (27.0-33.0)",
        "20.0 (18.0-22.0)",
        "8.00",
        "3.00",
        "2.00",
        "1.25",
        "0.25",
    ]


def test_the_faster_layout_of_pytorch():
    assert fastest_native(TIMES) == "torch NHWC"
    assert fastest_native({"keras": TIMES["keras"]}) is None


def test_milliseconds_have_three_digits():
    assert [milliseconds(s) for s in (1e-5, 1.234e-3, 0.0456, 1.5)] == [
        "0.0100",
        "1.23",
        "45.6",
        "1500",
    ]
