"""Make `docs/results.md` of the stored results alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.experiment import Experiment
from experiments.significance import holm

Result = Mapping[str, Any]

INTRODUCTION = """\
# The papers' claims, run

Made by `python -m experiments report` from the files in `results/`; not written by
hand. Every experiment is a short file in `experiments/` (one for the last three): the
claim, its source, the configuration and the criterion, which was fixed and committed
before the run. A claim that does not hold is printed so.

- Five seeds, three where it says so. The arms of an experiment share initial weights,
  images and their order, seed by seed.
- Learning rates are tuned for each arm on validation images, with a seed of its own;
  but R3 takes multiples of R1's best rate without normalization, and C1 to C3 have
  fixed ones.
- Training ends at a step fixed before, and nothing that is judged is chosen on the test
  images. What was tried after a result was measured on the same test images.
- One configuration was changed after a run: with 400 steps on MNIST no network of C2
  had come to 99 %, the time to which is asked for (mean test accuracies 98.58 % with
  this package's layers, 98.59 % with Keras's); it has 1,200 now.
- `a [b, c]` is the mean of the paired differences with its 95 % interval by Student's
  t; `a (b to c)` are the mean, the smallest and the largest value over the seeds.
- The networks are smaller than the papers' and so are the data: what is tested is the
  order and the size of effects, not the errors themselves.
"""


def read_results(directory: Path) -> dict[str, Result]:
    """Return the results of full runs by name, without those of quick runs."""
    results = {}
    for path in sorted(directory.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result.get("mode") == "full":
            results[result["name"]] = result
    return results


def page(experiments: Mapping[str, Experiment], results: Mapping[str, Result]) -> str:
    """Return the page."""
    present = [results[name] for name in experiments if name in results]
    parts = [INTRODUCTION, _verdicts(experiments, results)]
    if headlines := {r["name"]: r["p"] for r in present if r["p"] is not None}:
        parts.append(_holm_table(headlines))
    parts += [_section(result) for result in present]
    return "\n".join(parts)


def _verdicts(
    experiments: Mapping[str, Experiment], results: Mapping[str, Result]
) -> str:
    """Return a table with one line for each claim, run or not."""
    rows = [
        (f"[{name}](#{_anchor(results[name])})", e.claim, _verdict(results[name]))
        if name in results
        else (name, e.claim, "not run")
        for name, e in experiments.items()
    ]
    return "## Verdicts\n\n" + _table(("", "claim", "verdict"), rows)


def _verdict(result: Result) -> str:
    return "holds" if result["holds"] else "**does not hold**"


def _holm_table(headlines: Mapping[str, float]) -> str:
    adjusted = holm(headlines)
    rows = [
        (name, f"{p:.2g}", f"{adjusted[name]:.2g}") for name, p in headlines.items()
    ]
    return (
        "## The headlines together\n\nSo many tests find something by chance; Holm's "
        f"correction for all {len(rows)} that have a p-value. With five seeds a sign "
        "test cannot go below 1/32, so that no claim judged by one can stay below "
        "0.05: read them as 5 of 5, not as proofs.\n\n"
        + _table(("", "p", "p, adjusted"), rows)
    )


def _section(result: Result) -> str:
    numbers = _table(
        ("", "ours", "paper, or exact"),
        [(n["what"], n["ours"], n["paper"]) for n in result["numbers"]],
    )
    name = result["name"]
    lines = [
        f"## {_heading(result)}\n",
        f"**Claim.** {result['claim']} ({result['source']})\n",
        f"**Criterion.** {result['criterion']}\n",
        f"**Measured.** {_capitalized(result['measured'])}. The claim "
        f"{_verdict(result)}.\n",
    ]
    if result["remark"]:
        lines.append(f"{result['remark']}\n")
    lines += [
        numbers,
        f"![{result['title']}](results/{name}.png)\n",
        _circumstances(result),
    ]
    return "\n".join(lines)


def _circumstances(result: Result) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    name = result["name"]
    return (
        f"`{result['command']}`: {_seeds(result['config'])}"
        f"{result['trainings']} measurements, "
        f"{result['cpu_seconds'] / 60:.1f} minutes of one core "
        f"({result['seconds'] / 60:.1f} by the clock), {' to '.join(result['dates'])}, "
        f"commits "
        f"{', '.join(result['commits'])}. {'; '.join(result['machine'])}; {versions}. "
        f"[Every measurement](results/{name}.csv), [all of it](results/{name}.json).\n"
    )


def _seeds(config: Mapping[str, Any]) -> str:
    """Return how many seeds; R3 has those of R1's configuration, R8 those of R5's."""
    parts = (config, config.get("tuning", {}), config.get("nets", {}))
    found = [part["seeds"] for part in parts if "seeds" in part]
    return f"{len(found[0])} seeds, " if found else ""


def _heading(result: Result) -> str:
    return f"{result['name'].upper()}: {result['title']}"


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _anchor(result: Result) -> str:
    """Return the anchor that GitHub and Python-Markdown give to the section."""
    kept = [c for c in _heading(result).lower() if c.isalnum() or c in " -_"]
    return "".join(kept).replace(" ", "-")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n"
        for line in lines
    )
