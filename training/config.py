"""`TrainConfig`: the options of a training job.

It describes each option once. `read` in `training/cli/command_line.py` fills it from
the command line, the environment and a TOML file. A program fills it directly.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = "folder:"  # before the path of a dataset
APPLICATIONS = "applications:"  # before the name of a model of keras.applications
LONGEST_NAME = 100  # of a run and its exported model
_DEEPEST = 6  # lists and objects in the value of a model's argument

# Before a name of TFDS, but not before a version.
_NAMESPACE = re.compile(r"[\w-]+:(?!(\d+|\*)(\.(\d+|\*)){2}$)")
# Neither control characters, nor line breaks of any kind, nor marks that turn the
# direction of writing: a name stands in messages.
_ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]*$"

# NAME of the repository, applications:NAME, FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION
_MODEL = re.compile(r"cnn|mlp|(?P<file>.+\.py):\w+|[^\W\d][\w.]*:\w+")
_FORMAT = "(savedmodel|onnx|litert|openvino)"

# Kept absolute, so that a run can be resumed from any working directory.
Location = Annotated[Path, AfterValidator(lambda path: _absolute(path))]


def _absolute_folder(dataset: str) -> str:
    if not dataset.startswith(FOLDER):
        return dataset
    return f"{FOLDER}{_absolute(Path(dataset.removeprefix(FOLDER)))}"


def _absolute_model(model: str) -> str:
    if not _MODEL.fullmatch(model):
        raise ValueError(
            "it must be cnn, mlp, applications:NAME, FILE.py:FUNCTION or "
            "PACKAGE.MODULE:FUNCTION"
        )
    file = file_of(model)
    return model if file is None else f"{_absolute(file)}{model[len(str(file)) :]}"


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"it must be a regular expression: {error}") from error
    return text


def is_code(model: str) -> bool:
    """Return whether a model is a function of a file or a module, which is run."""
    return ":" in model and not model.startswith(APPLICATIONS)


def file_of(model: str) -> Path | None:
    """Return the file that FILE.py:FUNCTION names; `None` for other models."""
    match = _MODEL.fullmatch(model)
    return Path(match["file"]) if match and match["file"] else None


def _options(given: Any) -> Any:
    """Return options by name; as text, each is KEY=VALUE, and its value may be JSON."""
    if not isinstance(given, Mapping):
        texts = given.split() if isinstance(given, str) else given
        if not isinstance(texts, Collection) or not all(
            isinstance(text, str) and text.find("=") > 0 for text in texts
        ):
            raise ValueError("it must be KEY=VALUE")
        pairs = (text.partition("=") for text in texts)
        given = {key: _plain(value) for key, _, value in pairs}
    _check_is_json(list(given.values()), _DEEPEST)
    return given


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _check_is_json(value: Any, deepest: int) -> None:
    if isinstance(value, list | dict) and deepest:
        parts = value.values() if isinstance(value, dict) else value
        for part in parts:
            _check_is_json(part, deepest - 1)
    elif isinstance(value, list | dict):
        raise ValueError(f"it must be at most {_DEEPEST - 1} lists deep")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("its numbers must be finite")
    elif not isinstance(value, str | int | float | None):
        raise ValueError("its values must be text, numbers, true, false, null or lists")


def is_elsewhere(dataset: str) -> bool:
    """Return whether a name means a dataset of another host: huggingface:USER/NAME.

    After the name of one of TFDS's own a colon precedes a version.
    """
    return not dataset.startswith(FOLDER) and bool(_NAMESPACE.match(dataset))


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no such user.") from error


class TrainConfig(BaseModel):
    """The options of one training job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, AfterValidator(_absolute_model)] = Field(
        "cnn",
        max_length=1000,
        pattern=_ONE_LINE,
        description="cnn, mlp, applications:NAME (one of keras.applications), "
        "FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION: a function of input_shape and "
        "num_classes that returns a Keras model from images to logits",
        examples=["cnn", "mlp"],
    )
    model_option: Annotated[dict[str, Any], BeforeValidator(_options), NoDecode] = (
        Field(
            {},
            description="another argument of the model's function; can be given "
            "several times",
            json_schema_extra={"metavar": "KEY=VALUE"},
        )
    )
    model_hash: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="the SHA-256 of the model's file, which train.py notes; with "
        "--resume: go on although the file has changed to this",
    )
    weights: Location | None = Field(
        None,
        description="start from a .keras or .weights.h5 file of the same model, of "
        "Keras's layers or kerasnorm's; of a .keras file the number of classes may "
        "differ: the last layer begins anew",
    )
    freeze: Annotated[str, AfterValidator(_regular_expression)] | None = Field(
        None,
        max_length=1000,
        description="leave the layers as they are in whose names this regular "
        "expression is found; in training their batch normalization keeps its "
        "statistics",
    )
    convert: bool = Field(
        True,
        description="replace Keras's own dropout and batch normalization in the model "
        "with kerasnorm's; --no-convert leaves them",
    )
    preset: Literal["small", "srivastava2014"] = Field(
        "small",
        description="the MLP's hidden layers: 512-512 or the 1024-1024-2048 of "
        "Srivastava et al. (2014)",
    )
    dataset: Annotated[str, AfterValidator(_absolute_folder)] = Field(
        "fashion_mnist",
        min_length=1,
        max_length=1000,
        pattern=_ONE_LINE,
        description="a TFDS image classification set (mnist, cifar10, "
        "emnist/letters) or folder:PATH, a folder of pictures by class: "
        "PATH/CLASS/*.png or PATH/SPLIT/CLASS/*.png",
    )
    image_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="resize every image to N x N pixels; needed if the dataset's "
        "images differ in size; default: keep their size",
    )
    validation_split: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="fraction of the training images used for validation if the "
        "dataset has no validation split; the same for a missing test split",
    )
    epochs: int = Field(
        4, ge=1, lt=2**31, description="passes over the training images"
    )
    batch_size: int = Field(
        128, ge=1, lt=2**31, description="images in a training step"
    )
    augment: Literal["none", "flip", "crop", "standard", "strong"] = Field(
        "none",
        description="change training images at random: flip, mirrored; crop, moved by "
        "up to an eighth; standard, both; strong, also turned and partly erased",
    )
    learning_rate: float = Field(
        4e-3,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="AdamW's highest learning rate, reached after a linear warm-up "
        "and followed by a cosine decay to 0",
    )
    weight_decay: float = Field(
        0.05,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        description="AdamW's weight decay; biases, gamma and beta are not decayed",
    )
    dropout_rate: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="fraction of the units dropped (not kept); 0 switches dropout off",
    )
    norm: bool = Field(
        True, description="batch normalization; --no-norm builds the model without"
    )
    moving_average: Literal["exponential", "debiased", "cumulative"] = Field(
        "exponential",
        description="how batch normalization averages the statistics of the batches",
    )
    virtual_batch_size: int | None = Field(
        None,
        ge=1,
        lt=2**31,
        description="let batch normalization see parts of N images of each batch; "
        "default: the whole batch",
    )
    renorm: bool = Field(
        False, description="batch renormalization, for small batches (Ioffe 2017)"
    )
    scale_at: Literal["training", "inference"] = Field(
        "training",
        description="when dropout scales: by 1 / keep in training, or by keep at "
        "inference as Srivastava et al. (2014) have it",
    )
    max_norm: float | None = Field(
        None,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="upper bound of the norm of each unit's incoming weights "
        "(3 to 4 in the dropout paper); default: no bound",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32",
        description="what layers compute in; variables stay float32. float16 needs a "
        "GPU to be fast, and scales the loss",
    )
    jit: Literal["auto", "on", "off"] = Field(
        "auto", description="compile the training step with XLA; auto: as Keras decides"
    )
    patience: int | None = Field(
        None,
        ge=1,
        lt=2**31,
        description="stop after N epochs without a lower validation loss and keep "
        "the best epoch's weights; default: train all epochs",
    )
    recalibrate: int | None = Field(
        None,
        ge=1,
        lt=2**31,
        description="after training, compute the moving statistics of batch "
        "normalization anew from N training images, with dropout off; default: keep "
        "the moving averages",
    )
    fold: bool = Field(
        True,
        description="export with batch normalization folded into the layers beside it "
        "and without dropout, which gives the same answers faster; --no-fold exports "
        "the model as it is",
    )
    export_format: str = Field(
        "savedmodel",
        pattern=rf"^{_FORMAT}(,{_FORMAT})*$",
        max_length=100,
        description="what to export, separated by commas: savedmodel, which is always "
        "written, and beside it onnx, litert, openvino; with --monte-carlo each with "
        "a second file that takes a seed",
    )
    monte_carlo: int | None = Field(
        None,
        ge=2,
        lt=2**31,
        description="also predict with N random dropout masks: adds the signature "
        "monte_carlo to the export and the picture certainty.png to the run",
    )
    monitor: bool = Field(
        False,
        description="about fifty times in the run, record the inputs and the moving "
        "statistics of every batch normalization on some validation images: "
        "monitor.csv and monitor.png",
    )
    distribute: Literal["none", "mirrored", "multiworker"] = Field(
        "none",
        description="split every batch: mirrored, over the GPUs of this machine; "
        "multiworker, over the machines that TF_CONFIG names (start the same command "
        "on each of them)",
    )
    replicas: int | None = Field(
        None,
        ge=1,
        le=256,
        description="with --distribute mirrored: the first N GPUs, or N parts of the "
        "CPU where there is no GPU; default: all GPUs",
    )
    synchronized: bool = Field(
        False,
        description="normalize a split batch as a whole; default: each part by itself",
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="same seed, same machine: the same weights"
    )
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=LONGEST_NAME,
        description="the name of the run and of the exported model; default: "
        "MODEL-DATASET",
    )
    run_dir: Location = Field(
        REPOSITORY / "runs", description="the run is kept in DIR/NAME"
    )
    export_dir: Location = Field(
        REPOSITORY / "saved_models",
        description="the SavedModel is written to DIR/NAME/VERSION",
    )
    data_dir: Location | None = Field(
        None, description="prepared datasets; default: TFDS's own directory"
    )
    archives: Location | None = Field(
        None,
        description="a directory with the dataset's original archives; default: the "
        "repository's datasets/NAME, then /usr/share/datasets/NAME, then a download",
    )
    download: bool = Field(
        True,
        description="let TFDS fetch a dataset that is not on this machine; "
        "--no-download asks no other host",
    )

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
        for field, only in (("precision", "float32"), ("jit", "auto")):
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
