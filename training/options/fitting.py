"""Options of the data and of the training on them."""

from typing import Literal

from pydantic import BaseModel, Field

from training.options.values import ONE_LINE, Dataset

EMA = 0.999


class DataOptions(BaseModel):
    """What the model is trained on."""

    dataset: Dataset = Field(
        "fashion_mnist",
        min_length=1,
        max_length=1000,
        pattern=ONE_LINE,
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


class FittingOptions(BaseModel):
    """What a training step does."""

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
    mixup: float = Field(
        0,
        ge=0,
        le=100,
        description="mix each training image and its label with another's, by shares "
        "from Beta(ALPHA, ALPHA) (Zhang et al. 2018, who take 0.1 to 0.4); in training "
        "the class of the larger share counts as right",
        json_schema_extra={"metavar": "ALPHA"},
    )
    label_smoothing: float = Field(
        0,
        ge=0,
        lt=1,
        description="in the training loss, spread this part of each label over all "
        "classes; validation and test have the plain loss",
    )
    class_weight: Literal["none", "balanced"] = Field(
        "none",
        description="balanced: in the training loss every class counts the same, "
        "however many images it has; validation and test have the plain loss",
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
    ema: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="validate, test and export an exponential moving average of the "
        "weights and of the moving statistics; DECAY is what a step leaves of it, "
        f"{EMA} if it is left out; default: the weights themselves",
        json_schema_extra={"metavar": "DECAY", "alone": str(EMA)},
    )


class CourseOptions(BaseModel):
    """What steps are computed in, and when training ends."""

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
