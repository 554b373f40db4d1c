"""A form with a field for each option of a training job."""

from typing import Any

import gradio as gr

from service.jobs.gpus import Gpus
from service.jobs.submission import SubmissionError
from training.config import TrainConfig

# The service's own, and what a trainer notes.
_LEFT_OUT = ("run_dir", "export_dir", "download", "model_hash")
_IN_FRONT = ("model", "dataset", "epochs", "learning_rate")


class Form:
    """The fields of `TrainConfig`, one of which may be swept.

    It appears where it is made, in a `gr.Blocks`.

    Args:
        gpus: What jobs can have of the GPUs.
    """

    def __init__(self, gpus: Gpus) -> None:
        self._own_gpus = gpus.number(None)
        schema = TrainConfig.model_json_schema()["properties"]
        self._defaults = {name: field.get("default") for name, field in schema.items()}
        others = [name for name in schema if name not in _IN_FRONT + _LEFT_OUT]
        with gr.Row():
            self._fields = {name: _component(name, schema[name]) for name in _IN_FRONT}
        with gr.Accordion("More options", open=False), gr.Row(elem_id="more-options"):
            self._fields |= {name: _component(name, schema[name]) for name in others}
        with gr.Row():
            self._swept = gr.Dropdown(
                [("nothing: one job", ""), *((_label(n), n) for n in self._fields)],
                label="Sweep",
                info="a job for each value of this option",
                elem_id="swept",
            )
            self._values = gr.Textbox(
                label="Values",
                info="of that option, separated by commas: 0.001, 0.004",
                elem_id="values",
            )
            self._priority = gr.Number(
                0,
                label="priority",
                info="the higher, the sooner",
                precision=0,
                minimum=-1000,
                maximum=1000,
            )
            self._gpus = gr.Number(
                self._own_gpus,
                label="GPUs",
                info="of each job",
                precision=0,
                minimum=0,
                maximum=gpus.most,
                visible=gpus.most != 0,
                elem_id="gpus",
            )

    @property
    def inputs(self) -> list[gr.components.Component]:
        """All components, in the order of the arguments of `read`."""
        own = [self._swept, self._values, self._priority, self._gpus]
        return [*self._fields.values(), *own]

    def read(self, *inputs: Any) -> tuple[dict[str, Any], int, int | None]:
        """Return the values as the body of `POST /v1/jobs`, the priority, the GPUs."""
        *fields, swept, values, priority, gpus = inputs
        filled = {
            name: value
            for name, value in zip(self._fields, fields, strict=True)
            if value not in (None, "") and value != self._defaults[name]
        }
        if swept:
            filled[swept] = [v.strip() for v in values.split(",") if v.strip()]
        asked = int(gpus or 0)
        is_default = asked == self._own_gpus
        return filled, int(priority or 0), None if is_default else asked


def complaint(error: SubmissionError) -> str:
    """Return what is wrong with the values, in one line."""
    return "; ".join(
        f"{_label(str(each['loc'][-1]))}: {each['msg']}"
        if each["loc"]
        else str(each["msg"])
        for each in error.complaints
    )


def _component(name: str, field: dict[str, Any]) -> gr.components.Component:
    """Return a component for the type of a field; if it is empty, it means None."""
    default = field.get("default")
    options: dict[str, Any] = {
        "value": "" if default == {} else default,
        "label": _label(name),
        "info": _explanation(field["description"]),
        "elem_id": f"option-{name}",
        "min_width": 240,
    }
    if "enum" in field:
        return gr.Dropdown(field["enum"], **options)
    if "examples" in field:
        return gr.Dropdown(field["examples"], allow_custom_value=True, **options)
    if field.get("type") == "boolean":
        return gr.Checkbox(**options)
    if field.get("type") in ("integer", "number"):
        precision = 0 if field["type"] == "integer" else None
        return gr.Number(precision=precision, **options)
    # Numbers that may be None are here too: an empty gr.Number becomes 0.
    return gr.Textbox(**options)


def _explanation(text: str) -> str:
    """Return a description for a form instead of a command line."""
    text = text.partition("; --no-")[0].replace("--", "")
    # Gradio reads it as Markdown, and knows no escape for an asterisk.
    return text.replace("*", "\N{ASTERISK OPERATOR}")


def _label(name: str) -> str:
    return name.replace("_", " ")
