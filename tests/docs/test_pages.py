"""Commands, links and tests that the pages name exist, and the site builds."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kerasnorm

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[str]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [block for language, block in found if language in languages]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for block in blocks(page, "console", "sh", "bash", "shell"):
        command = block.replace("\\\n", " ")
        for line in re.findall(r"^\$ (.*)$", command, re.MULTILINE):
            line = line.partition("#")[0]
            if match := re.search(r"(?:^|&& )make ((?:[a-z-]+ ?)+)", line):
                assert set(match[1].split()) <= targets, line
            for module in re.findall(r"python -m ([\w.]+)", line):
                path = ROOT / module.replace(".", "/")
                package, file = path / "__main__.py", path.with_suffix(".py")
                assert package.is_file() or file.is_file(), line
            for script in re.findall(r"python (\S+\.py)", line):
                assert (ROOT / script).is_file(), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?://|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_no_block_of_python_is_left_out() -> None:
    """Sybil collects every `python` block, and each skipped one gives a reason."""
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "README.md", "docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    collected = {line.partition("::")[0] for line in process.stdout.splitlines()}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not blocks(page, "py", "pycon", "python3"), page
        if blocks(page, "python"):
            assert str(page.relative_to(ROOT)) in collected
        for skipped in re.findall(r"<!--+ *skip:(.*?)-->", text, re.DOTALL):
            assert re.search(r'"[^"]+"', skipped), page


def test_the_table_of_equations() -> None:
    text = (ROOT / "docs" / "math.md").read_text()
    rows = re.findall(
        r"^\| .*? \| (.*?) \| (?:(.*?) )?\| (`test_.*) \|$", text, re.MULTILINE
    )
    assert len(rows) > 15
    assert sum(bool(at_work) for _, at_work, _ in rows) > 8
    for functions, at_work, tests in rows:
        for name in re.findall(r"`([\w.]+)`", functions):
            room = kerasnorm if "." in name else kerasnorm.functional
            assert callable(getattr(room, name.removeprefix("kerasnorm.")))
        for module, name in re.findall(r"`([\w.]+)\.(\w+)`", at_work):
            assert callable(
                getattr(importlib.import_module(f"kerasnorm.{module}"), name)
            )
        for file, test in re.findall(r"`(\w+)::(\w+)`", tests):
            (path,) = (ROOT / "tests").rglob(f"{file}.py")
            assert f"\ndef {test}(" in path.read_text(), test


def test_every_equation_is_in_the_table() -> None:
    table = (ROOT / "docs" / "math.md").read_text().partition("## Each equation")[2]
    helpers = {"widen", "widened"}
    functions = {
        name
        for name, value in vars(kerasnorm.functional).items()
        if getattr(value, "__module__", "") == "kerasnorm.functional"
        and not name.startswith("_")
        and not isinstance(value, type)
    }
    missing = {name for name in functions - helpers if f"`{name}`" not in table}
    assert not missing


def test_the_page_of_the_api_is_the_docstrings() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    rows = re.findall(r"^\| \[(`.*?`)\]\((.*?)\) \| (.*) \|$", text, re.MULTILINE)
    listed = {name for names, _, _ in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == set(kerasnorm.__all__)
    for names, source, sentence in rows:
        name = re.findall(r"`(\w+)`", names)[0]
        value = getattr(kerasnorm, name)
        if callable(value):
            code = (ROOT / "docs" / source).read_text(encoding="utf-8")
            assert re.search(rf"^(class|def) {name}\(", code, re.MULTILINE)
            assert sentence == first_sentence(value)
            arguments = ", ".join(map(str, without_types(value)))
            flat = " ".join(text.split()).replace("( ", "(")
            assert f"{name}({arguments})" in flat, f"{name}({arguments})"
    functions = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    expected = {
        name: first_sentence(value)
        for name, value in vars(kerasnorm.functional).items()
        if getattr(value, "__module__", "") == "kerasnorm.functional"
        and not name.startswith("_")
    }
    assert functions == expected


def first_sentence(value: Any) -> str:
    return " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())


def without_types(value: Any) -> list[str]:
    """Return the arguments as a call writes them, `*` included."""
    parameters = inspect.signature(value).parameters.values()
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    signature = str(inspect.Signature(plain))[1:-1]
    return signature.split(", ")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    output = tmp_path_factory.mktemp("site")
    process = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", output],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return output


def test_the_site_needs_no_network(site: Path) -> None:
    """Everything that a browser loads by itself is in the site."""
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]* src="([^"]+)"', text)
        for link in re.findall(r"<link [^>]*>", text):
            if re.search(r'rel="?(stylesheet|icon|preload|preconnect)', link):
                loaded += re.findall(r'href="([^"]+)"', link)
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page
        for url in loaded:
            assert (page.parent / url.partition("?")[0]).exists(), url
    for sheet in site.rglob("*.css"):
        urls = re.findall(r"url\(([^)]+)\)", sheet.read_text(encoding="utf-8"))
        assert not [url for url in urls if "//" in url and "data:" not in url], sheet


def test_formulae_need_no_script(site: Path) -> None:
    text = (site / "guide" / "6-training.html").read_text(encoding="utf-8")
    assert text.count("<math") == 4
    assert "arithmatex" not in text
