"""R11: its identities hold; what just meets its criterion, and what just does not."""

from experiments import r11_identities as r11
from experiments import results


def test_the_exact_identities_hold(tmp_path):
    line = results.carry_out(r11.R11, False, None, tmp_path / "stores", tmp_path)
    assert line.endswith("| HOLDS"), line


def test_criterion_of_r11():
    def holds(errors=4.0, error=1e-6):
        mean = {"mean": 1, "expected": 1, "standard_errors": errors}
        measured = {name: mean for name in r11.EXPECTATIONS}
        measured |= {name: {"error": error} for name in r11.IDENTITIES}
        return r11.analyse(measured, r11.Config()).holds

    assert holds()
    assert not holds(errors=4.1)
    assert not holds(error=1.1e-6)
