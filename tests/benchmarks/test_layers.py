"""The cases of the layers' benchmark."""

from benchmarks import layers


def test_the_cases_are_those_of_the_page():
    cases = list(layers.cases(quick=False))
    assert len(set(cases)) == len(cases)
    assert {case.dtype for case in cases} == {"float32", "bfloat16", "float16"}
    assert any(case.axis == 1 for case in cases)
    assert any(not case.known_batch for case in cases)
    assert set(layers.cases(quick=True)) < set(cases)
