"""The docstrings' sections that mkdocstrings does not know, as Markdown."""

import re
import textwrap
from typing import Any

import griffe

SECTION = re.compile(
    r"^(?P<title>Call arguments|References|Weights(?: \([^)]*\))?):\n"
    r"(?P<body>(?:[ \t]+\S.*\n?|\n(?=[ \t]))+)",
    re.MULTILINE,
)
SHAPE = re.compile(r"^(Input shape|Output shape|Example):", re.MULTILINE)
EXAMPLE = re.compile(r"^>>> (?:.+\n?)+", re.MULTILINE)
PAIR = re.compile(r"^( +)(\w+), (\w+): (.*)$", re.MULTILINE)
ENTRY = re.compile(r"^(\S[^:\n]*):", re.MULTILINE)


class Sections(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Sections as lists under a bold title, doctests as blocks of code."""
    text = SECTION.sub(_section, text)
    text = PAIR.sub(r"\1\2: \4\n\1\3: \4", text)
    text = SHAPE.sub(r"**\1:**", text)
    return EXAMPLE.sub(lambda m: f"```pycon\n{m[0].rstrip()}\n```\n", text)


def _section(match: re.Match[str]) -> str:
    title = " ".join(match["title"].split())
    body = textwrap.dedent(match["body"])
    if not title.startswith("References"):
        body = ENTRY.sub(r"- **\1**:", body)
    return f"**{title}:**\n\n{body}\n"
