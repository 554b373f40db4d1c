"""Messages in one line, whatever names they quote."""

import unicodedata

import pytest

from training.errors import UserError, first_line, printable

GRAPH = """Graph execution error:

Detected at node cond/DecodeJpeg defined at (most recent call last):
<stack traces unavailable>
Invalid JPEG data or crop window, data size 315
\t [[{{node cond/DecodeJpeg}}]]
\t [[IteratorGetNext]] [Op:__inference_multi_step_on_iterator_1055]"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb\rc", r"a\nb\rc"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("\x1b[2J\x00\x7f", r"\x1b[2J\x00\x7f"),
        ("\u202eevil\u202c\u2066\u200b", r"\u202eevil\u202c\u2066\u200b"),
        ("half \ud800", r"half \ud800"),
        ("a\tb", "a\tb"),
        ("M\u00fctze \u65e5\u672c\u8a9e \u0645 \U0001f600\u00a0", None),
    ],
)
def test_what_moves_or_hides_text_is_written_out(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)
    assert str(UserError(text)) == printable(text)


def test_no_text_has_a_second_line() -> None:
    for code in range(0x11000):
        written = printable(f"a{chr(code)}b")
        assert len(written.splitlines()) == 1
        assert not any(
            unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
            for c in written.replace("\t", "")
        )


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("", "ValueError"),
        (" one\ntwo", "one"),
        ("{{function_node f}} Bad input. [Op:DecodeImage]", "Bad input."),
        (GRAPH, "Invalid JPEG data or crop window, data size 315"),
        ("Graph execution error:", "Graph execution error:"),
    ],
)
def test_the_line_with_the_reason(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line
