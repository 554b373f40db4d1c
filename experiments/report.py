"""Make `docs/results.md` of the stored results alone."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.advice import FOLLOWS, ONE_ARM
from experiments.experiment import Experiment
from experiments.lab import differences
from experiments.significance import holm
from training.errors import UserError

Result = Mapping[str, Any]

PAPER = "-paper"  # ends the name of an arm that is as the paper had it
OURS = "n"  # begins the name of a question of our own

INTRODUCTION = """\
# The papers' claims, run

Made by `python -m experiments report` from the files in `results/`; not written by
hand. Every experiment is a short file in `experiments/` (one for c1 to c3): the
claim, its source, the configuration and the criterion, which was fixed and committed
before the run. A claim that does not hold is printed so.

A claim has two arms. **Tuned**: each network has the settings that are best for it on
validation images, which is what a user compares. These runs came first. **As the paper
had it**: the paper's conditions, and a criterion that cannot hold or fail for another
reason than the claim. The second kind was designed when the results of the first were
known, and pilots too; each file says which. A verdict is of its arm alone.

Where a run is not finished the table says so, and there is no verdict: the criterion
stands, and `python -m experiments run NAME` makes the run, with `--from-results` from
the measurements that are there.

- Tuned arms have five seeds, three where it says so; arms as the paper had it have ten
  others wherever a sign test judges. The networks of an experiment share initial
  weights, images and their order, seed by seed.
- In tuned arms learning rates are chosen for each network on validation images, with a
  seed of its own; but R3 takes multiples of R1's best rate without normalization, and
  C1 to C3 have fixed ones. Arms as the paper had it have fixed settings unless their
  file says how they are chosen.
- Training ends at a step fixed before, and nothing that is judged is chosen on the test
  images. What was tried after a result was measured on the same test images.
- One configuration was changed after a run: with 400 steps on MNIST no network of C2
  had come to 99 %, the time to which is asked for (mean test accuracies 98.58 % with
  this package's layers, 98.59 % with Keras's); it has 1,200 now.
- `a [b, c]` is the mean of the paired differences with its 95 % interval by Student's
  t; `a (b to c)` are the mean, the smallest and the largest value over the seeds.
- The networks are smaller than the papers' and so are the data: what is tested is the
  order and the size of effects, not the errors themselves.

What the files alone do not tell:

- The p-values of R4 and R5, tuned, became one-sided after their results were known
  (0.032 to 0.016 and 0.0064 to 0.997; a difference in the other direction supports no
  claim). Their criteria do not use them.
- R8 was measured twice. The first time the error of weight scaling came from R5's store
  and the draws from networks that were trained again (50 draws minus weight scaling:
  -0.002 [-0.0394, +0.0354] points); the second time, which is printed, both come from
  the same networks. So R8's networks are not R5's and R9's, though they have their
  settings and seeds: weight scaling gives 3.38 % in R8, and 3.42 % in R5 and R9.
- Nine of the fourteen measurements of C2 are of a state that was never committed: that
  of the commit with a +, with changed files.
"""


def read_results(directory: Path) -> dict[str, Result]:
    """Return the results by name, those of unfinished full runs too, no quick ones."""
    results = {}
    for path in sorted(directory.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result.get("mode") in ("full", "unfinished"):
            results[result["name"]] = result
    return results


def page(experiments: Mapping[str, Experiment], results: Mapping[str, Result]) -> str:
    """Return the page.

    Raises:
        UserError: If a result has another configuration than its experiment.
    """
    finished = {
        name: results[name]
        for name in _ordered(experiments)
        if name in results and results[name]["mode"] == "full"
    }
    for name in experiments.keys() & results.keys():
        _check(experiments[name], results[name])
    parts = [INTRODUCTION, _verdicts(experiments, results)]
    if headlines := {n: r["p"] for n, r in finished.items() if r["p"] is not None}:
        parts.append(_headlines(headlines))
    parts += [_section(result) for result in finished.values()]
    return "\n".join(parts)


def _ordered(names: Mapping[str, Experiment]) -> Iterator[str]:
    """Yield the names, each followed by that of its arm as the paper had it."""
    for name in names:
        if not name.endswith(PAPER):
            yield from (name, name + PAPER)


def _check(experiment: Experiment, result: Result) -> None:
    today = json.loads(json.dumps(dataclasses.asdict(experiment.full)))
    if changed := differences(result["config"], today):
        raise UserError(
            f"docs/results/{experiment.name}.json was measured with another "
            f"{', '.join(changed)}. Run {experiment.name} anew."
        )


def _verdicts(
    experiments: Mapping[str, Experiment], results: Mapping[str, Result]
) -> str:
    """Return tables with one line for each claim, run or not."""

    def verdict_of(name: str) -> str:
        if name in experiments:
            return _linked_verdict(results.get(name))
        return ONE_ARM.get(name.removesuffix(PAPER), "-")

    claims, questions = [], []
    for name, experiment in experiments.items():
        told = FOLLOWS.get(name, "")
        if name[0] == OURS:
            questions.append((name, experiment.claim, verdict_of(name), told))
        elif not name.endswith(PAPER):
            verdicts = verdict_of(name + PAPER), verdict_of(name)
            claims.append((name, experiment.claim, *verdicts, told))
    follows = "what follows for a user"
    return (
        "## Verdicts\n\n"
        + _table(("", "claim", "as the paper had it", "tuned", follows), claims)
        + "\nAsked beside the papers' claims, in settings that each file tells:\n\n"
        + _table(("", "claim", "verdict", follows), questions)
    )


def _linked_verdict(result: Result | None) -> str:
    if result is None:
        return "not run yet"
    if result["mode"] == "unfinished":
        return f"unfinished, {result['trainings']} measurements"
    return f"[{_verdict(result)}](#{_anchor(result)})"


def _verdict(result: Result) -> str:
    return "holds" if result["holds"] else "**does not hold**"


def _headlines(p_values: Mapping[str, float]) -> str:
    """Return a table of p-values for each kind of experiment, adjusted in itself."""
    kinds = {
        "as the paper had it": [n for n in p_values if n.endswith(PAPER)],
        "tuned": [n for n in p_values if n[0] == "r" and not n.endswith(PAPER)],
        "asked by us": [n for n in p_values if n[0] != "r"],
    }
    tables = [
        f"{kind.capitalize()}:\n\n"
        + _holm_table({name: p_values[name] for name in names})
        for kind, names in kinds.items()
        if names
    ]
    return (
        "## The headlines together\n\nSo many tests find something by chance; Holm's "
        "correction for all of a kind that have a p-value. With five seeds a sign test "
        "cannot go below 1/32, so that no tuned claim judged by one can stay below "
        "0.05: read them as 5 of 5, not as proofs. With ten it can go to 1/1024.\n\n"
        + "\n".join(tables)
    )


def _holm_table(p_values: Mapping[str, float]) -> str:
    adjusted = holm(p_values)
    rows = [
        (name.removesuffix(PAPER), f"{p:.2g}", f"{adjusted[name]:.2g}")
        for name, p in p_values.items()
    ]
    return _table(("", "p", "p, adjusted"), rows)


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
    name = result["name"].removesuffix(PAPER).upper()
    kind = " as the paper had it" if result["name"].endswith(PAPER) else ""
    return f"{name}{kind}: {result['title']}"


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
