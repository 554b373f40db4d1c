"""The statistical tests of the mask generator, recorded in `docs/masks.md`.

    python -m experiments.masks [--output docs/masks.json]

The exit status is 1 if the generator fails a test.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from experiments.masks import stream
from experiments.masks.battery import battery, draw, failures, table

FALSE_ALARM = 1e-3
"""The probability that a perfect generator fails any test of the run."""

SIZE = 2**24
"""Words of one test."""


def main() -> int:
    """Run all tests and print the table; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.masks",
        description="The statistical tests of the mask generator.",
    )
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--figure", type=Path, help="plot the p-values")
    options = parser.parse_args()
    start = time.perf_counter()
    results = list(battery(stream.words, SIZE))
    failed = failures(results, FALSE_ALARM)
    bound = FALSE_ALARM / len(results)
    print(table(results))
    print(
        f"\n{len(results)} p-values, smallest {min(r.p_value for r in results):.3g}, "
        f"bound {bound:.3g}, {len(failed)} below it, "
        f"{time.perf_counter() - start:.0f} s"
    )
    if options.output:
        record = {
            "seed": stream.SEED,
            "words": SIZE,
            "false_alarm_probability": FALSE_ALARM,
            "p_value_bound": bound,
            "failed": [r.test for r in failed],
            "results": [r._asdict() for r in results],
        }
        options.output.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    if options.figure:
        draw(results, options.figure)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
