"""Options of the model and its layers."""

from typing import Literal

from pydantic import BaseModel, Field

from training.options.values import ONE_LINE, Arguments, Location, Model, Pattern


class ModelOptions(BaseModel):
    """Which model it is, and what it begins with."""

    model: Model = Field(
        "cnn",
        max_length=1000,
        pattern=ONE_LINE,
        description="cnn, mlp, applications:NAME (one of keras.applications), "
        "FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION: a function of input_shape and "
        "num_classes that returns a Keras model from images to logits",
        examples=["cnn", "mlp"],
    )
    model_option: Arguments = Field(
        {},
        description="another argument of the model's function; can be given "
        "several times",
        json_schema_extra={"metavar": "KEY=VALUE"},
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
        "Keras's layers or kerasnorm's; with another number of classes the last layer "
        "begins anew",
    )
    freeze: Pattern | None = Field(
        None,
        max_length=1000,
        description="leave the layers as they are in whose names this regular "
        "expression is found; in training their batch normalization keeps its "
        "statistics",
        json_schema_extra={"metavar": "REGEX"},
    )
    train_head: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="train only the last layer with weights in the first N of the "
        "epochs, then all that --freeze leaves, with a learning rate that begins anew",
        json_schema_extra={"metavar": "N"},
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


class LayerOptions(BaseModel):
    """What dropout and batch normalization do."""

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
        description="how batch normalization averages the statistics of the batches: "
        "exponential, with a momentum, as Keras does; debiased, without the bias to "
        "what it begins with; cumulative, all batches alike",
    )
    virtual_batch_size: int | None = Field(
        None,
        ge=1,
        lt=2**31,
        description="let batch normalization see parts of N images of each batch, as "
        "small batches do, whose noise regularizes (Hoffer et al. 2017); default: the "
        "whole batch",
        json_schema_extra={"metavar": "N"},
    )
    renorm: bool = Field(
        False,
        description="batch renormalization: training normalizes with nearly the "
        "moving statistics, for small batches (Ioffe 2017)",
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
        description="upper bound of the norm of each unit's incoming weights. The "
        "dropout paper's 3 to 4 is for --scale-at inference; with --scale-at training "
        "multiply it by the share of the layer's inputs that are kept; default: no "
        "bound",
    )
