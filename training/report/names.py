"""Names of classes as they can be drawn."""

from collections.abc import Sequence

from matplotlib.font_manager import FontProperties, findfont, get_font

_LONGEST = 32  # letters


def drawable(labels: Sequence[str]) -> list[str]:
    """Return the names of classes for a picture.

    A name with a letter that matplotlib's font does not have becomes the number of its
    class, as #3; the model card has both. The end of a long name is left out.
    """
    font = get_font(findfont(FontProperties()))
    return [
        _short(label)
        if all(font.get_char_index(ord(letter)) for letter in label)
        else f"#{index}"
        for index, label in enumerate(labels)
    ]


def explained(title: str, names: Sequence[str]) -> str:
    """Return the title of a picture with these `drawable` names."""
    numbers = any(name.startswith("#") for name in names)
    return f"{title}\n#N is class N of the model card" if numbers else title


def _short(label: str) -> str:
    short = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
    # Matplotlib takes what stands between two of them for a formula.
    return short.replace("$", r"\$")
