"""What the site adds to MkDocs: formulae without a script, pages of linked sources."""

import html
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()(?:\./)?(\.\./[^)#\s]+)(?=\))")
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL
)


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each file of the repository that a page links to."""
    linked: set[Path] = set()
    for file in files.documentation_pages():
        page = DOCS / file.src_uri
        linked |= {path for _, path in _links_to_sources(file.content_string, page)}
    for directory in [path for path in linked if path.is_dir()]:
        linked |= set(directory.glob("*.py"))
    for path in sorted(linked):
        name = _page_of(path)
        files.append(File.generated(config, name, content=_source(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to the repository's files lead to their pages."""
    directory = (DOCS / page.file.src_uri).parent
    for target, path in _links_to_sources(markdown, directory / "page"):
        destination = os.path.relpath(DOCS / _page_of(path), directory)
        markdown = markdown.replace(f"]({target})", f"]({destination})")
    return markdown


def on_page_content(content: str, **_: Any) -> str:
    """TeX to MathML, which browsers draw themselves."""

    def formula(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        return convert(html.unescape(match[2]).strip(), display=display)

    return FORMULA.sub(formula, content)


def _links_to_sources(markdown: str, page: Path) -> Iterator[tuple[str, Path]]:
    for target in LINK.findall(markdown):
        path = (page.parent / target).resolve()
        if path.exists() and path.is_relative_to(ROOT) and DOCS not in path.parents:
            yield target, path


def _page_of(path: Path) -> str:
    return f"source/{path.relative_to(ROOT)}.md"


def _source(path: Path) -> str:
    title = path.relative_to(ROOT)
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {title}\n\n"
    if path.is_dir():
        names = sorted(file.name for file in path.glob("*.py"))
        return head + "".join(f"- [{n}]({path.name}/{n}.md)\n" for n in names)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return head + "\n\n".join(map(_cell, json.loads(text)["cells"]))
    language = {".py": "python", ".md": "markdown"}.get(path.suffix, "text")
    return head + _fenced(text, language)


def _cell(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return text.replace("](../docs/", "](../../")  # docs/ is the site's root
    return _fenced(text, "python")


def _fenced(text: str, language: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````\n"
