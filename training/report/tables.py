"""Print what a run has for data and what it has reached."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from training.data.pipeline import SPLITS, Data
from training.run.files import Metrics

_MOST_CLASSES = 20  # that are shown each by itself


def print_metrics(metrics: Metrics) -> None:
    """Print loss and accuracy by split."""
    table = Table("split", title=None)
    table.add_column("loss", justify="right")
    table.add_column("accuracy", justify="right")
    for split, scores in metrics:
        table.add_row(split, f"{scores.loss:.4f}", f"{scores.accuracy:.2%}")
    Console().print(table)


def print_classes(data: Data) -> None:
    """Print the classes, and the number of images of each in each split if known."""
    splits = [split for split in SPLITS if split in data.counts]
    number = len(data.labels)
    shown = number if number <= _MOST_CLASSES else _MOST_CLASSES // 2
    if not splits:
        more = f" and {number - shown} more" if shown < number else ""
        print(f"{number} classes: {', '.join(data.labels[:shown])}{more}")
        return
    table = Table(f"{number} classes", box=None, pad_edge=False)
    for split in splits:
        table.add_column(split, justify="right")
    for index, label in enumerate(data.labels[:shown]):
        counts = (f"{data.counts[split][index]:,}" for split in splits)
        table.add_row(Text(label, overflow="ellipsis", no_wrap=True), *counts)
    if shown < number:
        rest = (data.counts[split][shown:] for split in splits)
        ranges = (f"{min(counts):,} to {max(counts):,}" for counts in rest)
        table.add_row(f"{number - shown} more, each", *ranges)
    Console().print(table)
