"""`TrainConfig`: the options of a training job.

`training/options/` describes each option once. `read` in `training/cli/command_line.py`
fills it from the command line, the environment and a TOML file. A program fills it
directly.
"""

import re
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import ConfigDict, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from training.options.fitting import CourseOptions, DataOptions, FittingOptions
from training.options.model import LayerOptions, ModelOptions
from training.options.run import DeviceOptions, ExportOptions, RunOptions
from training.options.values import FOLDER, LONGEST_NAME


# `--help` shows the options of the last class first.
class TrainConfig(
    RunOptions,
    DeviceOptions,
    ExportOptions,
    CourseOptions,
    LayerOptions,
    FittingOptions,
    DataOptions,
    ModelOptions,
):
    """The options of one training job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts true as 1; a number may come as text, but not as that."""
        assert info.field_name is not None
        annotation = cls.model_fields[info.field_name].annotation
        takes = {annotation, *get_args(annotation)}
        if isinstance(value, bool):
            if takes & {int, float}:
                raise PydanticCustomError("number", "Input should be a number")
        elif isinstance(value, int | float) and bool in takes:
            raise PydanticCustomError("bool", "Input should be true or false")
        return value

    @model_validator(mode="after")
    def _preset_is_the_mlps(self) -> Self:
        if self.preset != "small" and self.model != "mlp":
            raise ValueError(
                "`preset` chooses the layers of the MLP. "
                f"Received: preset={self.preset}, model={self.model}."
            )
        return self

    @model_validator(mode="after")
    def _options_fit_together(self) -> Self:
        if self.recalibrate and not self.norm:
            raise ValueError(
                "`recalibrate` needs batch normalization. "
                f"Received: recalibrate={self.recalibrate}, norm=False."
            )
        if self.monitor and not self.norm:
            raise ValueError(
                "`monitor` needs batch normalization. "
                "Received: monitor=True, norm=False."
            )
        if self.monitor and self.distribute != "none":
            raise ValueError(
                "`monitor` needs training on one device. "
                f"Received: monitor=True, distribute={self.distribute}."
            )
        if self.synchronized and not self.norm:
            raise ValueError(
                "`synchronized` needs batch normalization. "
                "Received: synchronized=True, norm=False."
            )
        if self.replicas and self.distribute != "mirrored":
            raise ValueError(
                "`replicas` needs `distribute` to be mirrored. "
                f"Received: replicas={self.replicas}, distribute={self.distribute}."
            )
        if self.train_head >= self.epochs:
            raise ValueError(
                "`train_head` must be less than `epochs`, which counts all epochs. "
                f"Received: train_head={self.train_head}, epochs={self.epochs}."
            )
        for field, only in (("precision", "float32"), ("jit", "auto"), ("ema", None)):
            value = getattr(self, field)
            if value != only and self.distribute != "none":
                raise ValueError(
                    f"`{field}` needs training on one device. "
                    f"Received: {field}={value}, distribute={self.distribute}."
                )
        if self.monte_carlo and not self.dropout_rate:
            raise ValueError(
                "`monte_carlo` needs dropout. "
                f"Received: monte_carlo={self.monte_carlo}, dropout_rate=0."
            )
        return self

    @property
    def softens_labels(self) -> bool:
        """Return whether training takes labels as rows of probabilities."""
        return bool(self.mixup or self.label_smoothing) or self.class_weight != "none"

    @property
    def export_formats(self) -> tuple[str, ...]:
        """Return the formats beside the SavedModel, each once."""
        names = dict.fromkeys(self.export_format.split(","))
        return tuple(name for name in names if name != "savedmodel")

    @property
    def export_name(self) -> str:
        """Return the name given, or `<model>-<dataset>` without directories."""
        if self.name:
            return self.name
        dataset = self.dataset.removeprefix(FOLDER)
        if dataset != self.dataset:
            dataset = Path(dataset).name
        name = f"{self.model.rpartition(':')[2]}-{dataset}"
        return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:LONGEST_NAME]
