"""Results of every benchmark, made up."""

from typing import Any

from benchmarks import networks

TIMES = {
    name: {
        "median": milli / 1e3,
        "lower_quartile": 0.9 * milli / 1e3,
        "upper_quartile": 1.1 * milli / 1e3,
        "ratio": milli / 10,
        "paired_ratio": milli / 10,
        "rounds": 9,
    }
    for name, milli in {
        "kerasnorm": 10,
        "keras": 30,
        "torch NCHW": 25,
        "torch NHWC": 20,
        "folded": 6,
        "neither": 5,
        "copy": 2,
    }.items()
}

CASE: dict[str, Any] = {"layer": "batch_norm", "shape": [64, 32, 32, 64]}

COSTS = {name: {"first_call": 1.5, "peak": 4e6} for name in networks.VARIANTS}

RESULTS: dict[str, dict[str, Any]] = {
    "layers": {
        "timings": [
            {"case": CASE, "times": TIMES, "others": 0.25},
            {"case": {**CASE, "layer": "dropout"}, "times": TIMES, "others": 0.25},
        ],
        "memory": [{"case": CASE, "peak": {"kerasnorm": 5e7, "keras": 1e8}}],
    },
    "models": {
        "models": [
            {
                "network": "cnn",
                "times": TIMES,
                "others": 0.25,
                "added_share": 0.2,
                "costs": COSTS,
            }
        ]
    },
    "inference": {
        "inference": [{"network": "cnn", "batch": 32, "times": TIMES, "others": 0.25}]
    },
    "scaling": {
        "scaling": [
            {"layer": layer, "elements": size, "times": TIMES, "others": 0.25}
            for layer in ("batch_norm", "dropout")
            for size in (10_000, 100_000)
        ]
    },
}
