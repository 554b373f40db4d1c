"""The predictions of one image under random dropout masks, in words and drawn."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from training.report.names import drawable

_CERTAIN, _NEARLY = 0.1, 0.4  # of the largest entropy there is
_MOST_BARS = 20

Answer = Mapping[str, np.ndarray]


def words(answer: Answer, samples: int) -> str:
    """Return how certain the model is, as Markdown.

    Args:
        answer: The answer of the signature monte_carlo to one image.
        samples: The number of masks.
    """
    number = answer["mean"].shape[1]
    entropy, mutual = (
        float(answer[name][0]) for name in ("predictive_entropy", "mutual_information")
    )
    share = entropy / math.log(number)
    if share < _CERTAIN:
        verdict = "The model is certain."
    elif share < _NEARLY:
        verdict = "The model is not quite certain."
    else:
        verdict = "The model is uncertain."
    return (
        f"### {verdict}\n"
        f"Averaged over {samples} dropout masks, the predictive entropy is "
        f"**{entropy:.2f}** of at most {math.log(number):.2f} nats (ln {number}). "
        f"**{mutual:.2f}** of it is mutual information: so much is due to the masks "
        "disagreeing, the rest to the image."
    )


def spread(answer: Answer, classes: Sequence[str]) -> Figure:
    """Draw the mean and standard deviation of each probability over the masks."""
    mean, deviation = answer["mean"][0], np.sqrt(answer["variance"][0])
    names = drawable(classes)
    likeliest = np.sort(np.argsort(-mean, kind="stable")[:_MOST_BARS])
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(
        range(len(likeliest)),
        mean[likeliest],
        yerr=deviation[likeliest],
        capsize=4,
        color="tab:blue",
        ecolor="tab:orange",
    )
    axes.set_xticks(
        range(len(likeliest)),
        [names[i] for i in likeliest],
        rotation=0 if max(map(len, names)) < 4 else 30,
    )
    axes.set(ylabel="probability", ylim=(0, None))
    axes.set_title("Over dropout masks: mean ± standard deviation", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    return figure
