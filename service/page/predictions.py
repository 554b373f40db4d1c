"""The page's tab of predictions: draw a digit or drop an image."""

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import tensorflow as tf

from service.page.models import Models
from service.page.pictures import (
    fitted,
    ink_of_photograph,
    like_mnist,
    opened,
    shown,
)
from service.page.sketch import Sketch, ink
from service.page.uncertainty import spread, words
from training.errors import UserError, first_line
from training.run import files

_SEED = 0  # the same drawing, the same masks

_DRAWING, _PICTURE = "drawing", "picture"

Updates = dict[gr.blocks.Block, Any]


class PredictionsTab:
    """The tab; it appears where it is made, in a `gr.Tab`.

    Args:
        models: The models that can be chosen.
    """

    def __init__(self, models: Models) -> None:
        self._models = models
        gr.Markdown("Draw something or drop an image. What does the model take it for?")
        with gr.Row():
            self._name = gr.Dropdown([], label="Model", elem_id="model")
            self._version = gr.Dropdown([], label="Version", elem_id="version")
            self._samples = gr.Slider(
                *(2, 200, 50),
                step=1,
                label="Dropout masks",
                info="for models trained with the option monte carlo",
            )
        with gr.Row():
            with gr.Column(min_width=340):
                self._build_sources()
            with gr.Column(min_width=240):
                self._seen = gr.Image(
                    label="What the model sees",
                    format="png",
                    interactive=False,
                    buttons=[],
                    height=340,
                    elem_id="seen",
                )
            with gr.Column(min_width=320):
                self._label = gr.Label(
                    label="Probabilities", num_top_classes=10, elem_id="probabilities"
                )
        self._words = gr.Markdown(elem_id="uncertainty")
        self._spread = gr.Plot(show_label=False, visible=False, elem_id="spread")
        self._listen()

    def _build_sources(self) -> None:
        self._source = gr.State(_DRAWING)
        with gr.Tab("Draw") as draw:
            self._sketch = Sketch()
        with gr.Tab("Image") as drop:
            self._picture = gr.Image(
                type="filepath",  # Gradio's own decoding differs from training's
                image_mode=None,
                sources=["upload", "clipboard"],
                height=340,
                show_label=False,
                elem_id="picture",
            )
            self._is_paper = gr.Checkbox(
                label="A drawing on paper",
                info="dark on light: it is brought to the form of the drawings; "
                "else the image goes as it is",
            )
        for tab, source in ((draw, _DRAWING), (drop, _PICTURE)):
            tab.select(
                lambda source=source: source,
                None,
                self._source,
                api_visibility="private",
            )

    def _listen(self) -> None:
        answer: dict[str, Any] = {
            "fn": self._answer,
            "inputs": [
                *(self._source, self._sketch.drawing, self._picture, self._is_paper),
                *(self._name, self._version, self._samples),
            ],
            "outputs": [self._seen, self._label, self._words, self._spread],
            "show_progress_on": self._label,
            "api_visibility": "private",
        }
        gr.on(
            [
                *(self._sketch.change, self._picture.change, self._is_paper.change),
                *(self._version.change, self._samples.release, self._source.change),
            ],
            trigger_mode="always_last",
            **answer,
        )
        self._name.input(
            self._newest_version, self._name, self._version, api_visibility="private"
        ).then(**answer)

    @property
    def choice(self) -> list[gr.components.Component]:
        """The components that `refresh` fills."""
        return [self._name, self._version]

    def refresh(self, name: str | None, version: int | None) -> list[Any]:
        """Return the models and versions; the chosen ones stay chosen."""
        names = self._models.names()
        if name not in names:
            name, version = next(iter(names), None), None
        versions = self._models.versions(name) if name else []
        if version not in versions:
            version = next(iter(versions), None)
        return [gr.Dropdown(names, value=name), gr.Dropdown(versions, value=version)]

    def _newest_version(self, name: str) -> Any:
        versions = self._models.versions(name) if name in self._models.names() else []
        return gr.Dropdown(versions, value=next(iter(versions), None))

    def _answer(
        self,
        source: str,
        drawing: str,
        picture: str | None,
        is_paper: bool,
        name: str | None,
        version: int | None,
        samples: int,
    ) -> Updates:
        """Show what the chosen version says of the drawing or picture."""
        updates: Updates = {
            self._seen: None,
            self._label: None,
            self._words: "",
            self._spread: gr.Plot(visible=False),
        }
        try:
            if name is None or version is None:
                raise UserError("There is no model yet. Start a job.")
            shape, dtype = self._models.input(name, version)
            if source == _DRAWING:
                image = like_mnist(ink(drawing), shape)
            elif picture is None:
                image = None
            elif is_paper:
                image = like_mnist(ink_of_photograph(opened(Path(picture))), shape)
            else:
                image = fitted(opened(Path(picture)), shape)
            if image is None:
                return updates
            images = _batch(image, dtype)
            return (
                updates
                | {self._seen: shown(image)}
                | self._predict(name, version, images, int(samples))
            )
        except (UserError, OSError, ValueError, tf.errors.OpError) as error:
            return updates | {self._words: f"**No answer.** {first_line(error)}"}

    def _predict(
        self, name: str, version: int, images: np.ndarray, samples: int
    ) -> Updates:
        inputs = {"images": images}
        answer = self._models.predict(name, version, files.DEFAULT_SIGNATURE, inputs)
        rows = answer.get("probabilities")
        if rows is None or rows.ndim != 2:
            raise UserError(
                f"{name} {version} must have an output `probabilities`, a row for each "
                f"image. Received: {', '.join(answer)}."
            )
        probabilities = rows[0].tolist()
        classes = self._models.classes(name, version, len(probabilities))
        label: Updates = {self._label: dict(zip(classes, probabilities, strict=True))}
        if not self._models.has(name, version, files.MONTE_CARLO_SIGNATURE):
            return label
        masks = {
            "seed": np.array(_SEED, "int32"),
            "samples": np.array(samples, "int32"),
        }
        answer = self._models.predict(
            name, version, files.MONTE_CARLO_SIGNATURE, inputs | masks
        )
        return label | {
            self._words: words(answer, samples),
            self._spread: gr.Plot(spread(answer, classes), visible=True),
        }


def _batch(image: np.ndarray, dtype: str) -> np.ndarray:
    """Return one image, 0 to 255, as a batch in the range of the dtype; floats to 1."""
    kind = tf.as_dtype(dtype)
    number = kind.as_numpy_dtype
    images = image[np.newaxis].astype(number)
    return (
        images / number(255) if kind.is_floating else images * number(kind.max // 255)
    )
