"""R7 as the paper had it: dropout must help at each of three sizes."""

from experiments import r7_paper
from tests.experiments.measured import of


def test_criterion():
    def holds(*gains):
        config = r7_paper.Config()
        results = [
            {
                "size": n,
                "without": of(test_error=(5.0,) * 5),
                "with": of(test_error=tuple(5 - g for g in gain)),
            }
            for n, gain in zip(config.headlines, gains, strict=True)
        ]
        return r7_paper.analyse({"results": results}, config).holds

    clear, nothing = (0.5, 0.6, 0.5, 0.6, 0.5), (0.1, -0.1, 0.1, -0.1, 0.0)
    assert holds(clear, clear, clear)
    for gains in ((clear, clear, nothing), (nothing, clear, clear)):
        assert not holds(*gains)
    assert not holds(clear, clear, tuple(-g for g in clear))
