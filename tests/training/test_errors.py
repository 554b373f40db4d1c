"""Errors in one line."""

import pytest

from training.errors import first_line

GRAPH = """Graph execution error:

Detected at node cond/DecodeJpeg defined at (most recent call last):
<stack traces unavailable>
Invalid JPEG data or crop window, data size 315
\t [[{{node cond/DecodeJpeg}}]]
\t [[IteratorGetNext]] [Op:__inference_multi_step_on_iterator_1055]"""


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
