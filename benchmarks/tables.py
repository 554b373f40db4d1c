"""Results as tables in Markdown."""

from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.steps.cases import Case, describe

Times = Mapping[str, Mapping[str, float]]


def timings_table(rows: list[dict[str, Any]]) -> Table:
    """Make the table of the layers' times."""
    table = _table(
        "Milliseconds: median (quartiles). Floor: copy is one read and one write of "
        "the tensor's bytes, timed in the same rounds; batch normalization's training "
        "step moves the tensor 8 times (read x for the moments; read x, write y; read "
        "x and dy for the sums; read x and dy, write dx) = 4 copies, dropout's 4 "
        "times = 2 copies, inference 1 copy. Below a million elements it is the "
        "start-up of one operation. native: on JAX Flax NNX, or plain JAX without it; "
        "else torch.nn, the faster of its two layouts. Others: the cores that other "
        "processes used meanwhile.",
        ("layer", "kerasnorm", "keras", "native", "floor"),
        ("keras / ours", "native / ours", "ours / floor", "others"),
    )
    for row in rows:
        case, times = as_case(row["case"]), row["times"]
        floor = case.copies * times["copy"]["median"]
        fastest = fastest_native(times)
        table.add_row(
            describe(case),
            spread(times["kerasnorm"]),
            spread(times["keras"]),
            spread(times[fastest]) if fastest else "",
            milliseconds(floor),
            f"{times['keras']['ratio']:.2f}",
            f"{times[fastest]['ratio']:.2f}" if fastest else "",
            f"{times['kerasnorm']['median'] / floor:.2f}",
            f"{row['others']:.2f}",
        )
    return table


def memory_table(rows: list[dict[str, Any]]) -> Table:
    """Make the table of the layers' peak memory."""
    table = _table(
        "Peak memory of a training step beyond what is allocated between steps, MB.",
        ("layer", "kerasnorm", "keras"),
        ("ours / keras",),
    )
    for row in rows:
        peak = row["peak"]
        table.add_row(
            describe(as_case(row["case"])),
            megabytes(peak["kerasnorm"]),
            megabytes(peak["keras"]),
            f"{peak['kerasnorm'] / peak['keras']:.2f}",
        )
    return table


def models_table(rows: list[dict[str, Any]]) -> Table:
    """Make the table of whole models' training steps."""
    table = _table(
        "Milliseconds of a training step, batch 128 (32 for keras.applications): "
        "median (quartiles). Share: what our layers add to the model with neither, of "
        "what Keras's add.",
        ("model", "kerasnorm", "keras", "neither"),
        ("keras / ours", "share", "others"),
    )
    for row in rows:
        times = row["times"]
        table.add_row(
            row["network"],
            *(spread(times[name]) for name in ("kerasnorm", "keras", "neither")),
            f"{times['keras']['ratio']:.2f}",
            f"{row['added_share']:.2f}",
            f"{row['others']:.2f}",
        )
    return table


def costs_table(rows: list[dict[str, Any]]) -> Table:
    """Make the table of whole models' first calls and peak memory."""
    table = _table(
        "First call of the train function (tracing, compiling), seconds, and peak "
        "memory of the later ones beyond what is allocated between them, MB: medians "
        "over processes.",
        ("model",),
        tuple(
            f"{what}: {name}"
            for what in ("first call", "peak")
            for name in ("kerasnorm", "keras", "neither")
        ),
    )
    for row in rows:
        costs = [row["costs"][name] for name in ("kerasnorm", "keras", "neither")]
        table.add_row(
            row["network"],
            *(f"{cost['first_call']:.2f}" for cost in costs),
            *(megabytes(cost["peak"]) for cost in costs),
        )
    return table


def inference_table(rows: list[dict[str, Any]]) -> Table:
    """Make the table of exported models."""
    table = _table(
        "Milliseconds of an answer, on TensorFlow of the exported model: median "
        "(quartiles).",
        ("model", "batch", "kerasnorm", "folded", "keras", "neither"),
        ("keras / ours", "ours / folded", "others"),
    )
    for row in rows:
        times = row["times"]
        table.add_row(
            row["network"],
            str(row["batch"]),
            *(
                spread(times[name])
                for name in ("kerasnorm", "folded", "keras", "neither")
            ),
            f"{times['keras']['ratio']:.2f}",
            f"{1 / times['folded']['ratio']:.2f}",
            f"{row['others']:.2f}",
        )
    return table


def scaling_table(rows: list[dict[str, Any]]) -> Table:
    """Make the table of the growth with the number of elements."""
    table = _table(
        "Training step on (samples, 64): milliseconds, median (quartiles), and "
        "nanoseconds an element.",
        ("layer", "elements", "kerasnorm", "keras"),
        ("ours, ns", "keras, ns", "copy, ns", "others"),
    )
    for row in rows:
        times, elements = row["times"], row["elements"]
        table.add_row(
            row["layer"],
            f"{elements:,}",
            spread(times["kerasnorm"]),
            spread(times["keras"]),
            *(
                f"{1e9 * times[name]['median'] / elements:.2f}"
                for name in ("kerasnorm", "keras", "copy")
            ),
            f"{row['others']:.2f}",
        )
    return table


TABLES: dict[str, Callable[[list[dict[str, Any]]], Table]] = {
    "timings": timings_table,
    "memory": memory_table,
    "inference": inference_table,
    "scaling": scaling_table,
    "models": models_table,
    "costs": costs_table,
}


def render(table: Table) -> str:
    """Return the table in Markdown, after its note."""
    console = Console(width=10_000, color_system=None)
    note, table.caption = table.caption, None
    with console.capture() as capture:
        console.print(table)
    table.caption = note
    lines = (line.strip() for line in capture.get().splitlines())
    return f"{note}\n\n" + "\n".join(line for line in lines if line) + "\n"


def as_case(case: Mapping[str, Any]) -> Case:
    """Return the case that a result belongs to."""
    return Case(**{**case, "shape": tuple(case["shape"])})


def fastest_native(times: Times) -> str | None:
    """Return the framework's own layer, in its faster layout, or None without one."""
    names = [name for name in times if name.startswith(("torch", "flax", "jnp"))]
    return min(names, key=lambda name: times[name]["median"], default=None)


def spread(time: Mapping[str, float]) -> str:
    """Return median and quartiles in milliseconds."""
    lower, upper = time["lower_quartile"], time["upper_quartile"]
    return (
        f"{milliseconds(time['median'])} ({milliseconds(lower)}-{milliseconds(upper)})"
    )


def milliseconds(seconds: float) -> str:
    """Return milliseconds with three digits."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def megabytes(num_bytes: float) -> str:
    """Return whole megabytes."""
    return f"{num_bytes / 1e6:.0f}"


def _table(note: str, words: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(box=box.MARKDOWN, caption=note, caption_justify="left")
    for name in words:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
