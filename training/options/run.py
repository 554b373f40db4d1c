"""Options of what a run leaves, where, and on which devices."""

from typing import Literal

from pydantic import BaseModel, Field

from training.options.values import FORMAT, LONGEST_NAME, REPOSITORY, Location


class ExportOptions(BaseModel):
    """What is exported."""

    fold: bool = Field(
        True,
        description="export with batch normalization folded into the layers beside it "
        "and without dropout, which gives the same answers faster; --no-fold exports "
        "the model as it is",
    )
    export_format: str = Field(
        "savedmodel",
        pattern=rf"^{FORMAT}(,{FORMAT})*$",
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


class DeviceOptions(BaseModel):
    """Which devices train, and what is watched."""

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


class RunOptions(BaseModel):
    """Which run it is, and where everything lies."""

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
