"""The form of a job, and what it asks for."""

import asyncio

import pytest

pytest.importorskip("gradio", reason="pip install --group serve")

import gradio as gr

from service.jobs.gpus import Gpus
from service.page.form import Form


@pytest.mark.parametrize(
    ("gpus", "shown", "most", "is_visible"),
    [
        (Gpus(("0", "1")), 1, 2, True),
        (Gpus(None), 0, 0, False),
        (Gpus(()), 0, 0, False),
        (Gpus(are_elsewhere=True), 0, None, True),
    ],
)
def test_gpus_are_asked_for_where_there_are_any(
    gpus: Gpus, shown: int, most: int | None, is_visible: bool
) -> None:
    async def made() -> Form:  # Gradio looks for a loop
        with gr.Blocks():
            return Form(gpus)

    form = asyncio.run(made())
    *others, field = form.inputs
    assert (field.value, field.maximum, field.visible) == (shown, most, is_visible)
    values = [component.value for component in others]
    for given, asked in ((shown, None), (2, 2), (None, None if not shown else 0)):
        assert form.read(*values, given) == ({}, 0, asked)
