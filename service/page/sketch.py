"""A canvas to draw on with a mouse, a pen or a finger.

`gr.Sketchpad` (6.31) sends three pictures to the server at every move of the pointer,
and loses its brush when it is cleared. This canvas sends one when a stroke ends.
"""

import base64
import io
from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from training.errors import UserError

SIDE = 280  # pixels

_BEGINNING = "data:image/png;base64,"
_HTML = f"""
<canvas width="{SIDE}" height="{SIDE}"></canvas>
<button type="button">Clear</button>
"""
_CSS = """
canvas { display: block; width: 100%; max-width: 340px; touch-action: none;
  cursor: crosshair; background: white; border: 1px solid var(--border-color-primary);
  border-radius: var(--radius-lg); }
button { margin-top: 8px; padding: 4px 16px; border-radius: var(--radius-md);
  background: var(--button-secondary-background-fill); }
"""
_JAVASCRIPT = """
const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");
pen.lineWidth = 22;
pen.lineCap = pen.lineJoin = "round";
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
};
const draw = (event) => {
  pen.lineTo(...place(event));
  pen.stroke();
};
const tell = () => trigger("input", { drawing: canvas.toDataURL() });
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pen.beginPath();
  draw(event);
});
canvas.addEventListener("pointermove", (event) => event.buttons && draw(event));
canvas.addEventListener("pointerup", tell);
element.querySelector("button").addEventListener("click", () => {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  tell();
});
"""


class Sketch:
    """The canvas; it appears where it is made, in a `gr.Blocks`.

    Attributes:
        drawing: The drawing as the browser sends it, for `ink` to read.
    """

    def __init__(self) -> None:
        self.drawing = gr.State("")
        canvas = gr.HTML(
            html_template=_HTML,
            css_template=_CSS,
            js_on_load=_JAVASCRIPT,
            elem_id="sketch",
        )
        canvas.input(
            _drawing,
            None,
            self.drawing,
            show_progress="hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )

    @property
    def change(self) -> Callable[..., Any]:
        """The event of a stroke or of a click on Clear."""
        return self.drawing.change


def ink(drawing: str) -> np.ndarray:
    """Return how much of each pixel is drawn on, 0 to 255.

    Args:
        drawing: A PNG as the browser sends it. A transparent pixel is not drawn on.
    """
    if not drawing:
        return np.zeros((SIDE, SIDE), np.uint8)
    png = base64.b64decode(drawing.removeprefix(_BEGINNING))
    picture = Image.open(io.BytesIO(png), formats=["PNG"])
    if picture.size != (SIDE, SIDE):
        raise UserError(
            f"A drawing must be of {SIDE} x {SIDE} pixels. Received: {picture.size}."
        )
    return np.asarray(picture.convert("RGBA"))[..., 3]


def _drawing(event: gr.EventData) -> str:
    return str(event.drawing)
