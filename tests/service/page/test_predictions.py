"""The page's answers for models that train.py has not made."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

pytest.importorskip("gradio", reason="pip install --group serve")
pytest.importorskip("simdjson", reason="pip install --group serve")

import gradio as gr

from service.page.models import Models
from service.page.predictions import PredictionsTab
from service.serving.servables import Servables
from tests.service.serving.served import save


@pytest.mark.parametrize(
    ("dtype", "output", "complaint"),
    [
        ("string", "probabilities", "images of numbers, named `images`. Received: ima"),
        ("bool", "probabilities", "images of numbers, named `images`. Received: image"),
        ("float32", "scores", "an output `probabilities`, a row for each image. Recei"),
        *((kind, "probabilities", "") for kind in ("bfloat16", "float16", "int64")),
    ],
)
def test_a_model_of_another_kind_is_named_in_one_line(
    tmp_path: Path, dtype: str, output: str, complaint: str
) -> None:
    def half(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {output: tf.fill([tf.shape(images)[0], 2], 0.5)}

    spec = tf.TensorSpec([None, 4, 4, 1], dtype, "images")
    save(tmp_path / "models" / "m" / "1", serving_default=(half, [spec]))
    picture = tmp_path / "picture.png"
    Image.fromarray(np.eye(4, dtype="uint8")).save(picture)
    base = tmp_path / "models"

    async def made() -> PredictionsTab:  # Gradio looks for a loop
        with gr.Blocks():
            return PredictionsTab(Models(base, Servables(base)))

    tab = asyncio.run(made())
    answer = tab._answer("picture", "", str(picture), False, "m", 1, 2)
    said = answer[tab._words]
    assert complaint in said
    assert said.startswith("**No answer.** m 1 must " if complaint else "")
    assert "\n" not in said
    assert bool(answer[tab._label]) is not bool(complaint)
