"""What the service is told on the command line."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from service.command_line import (
    CLI,
    CommandLine,
    Count,
    Devices,
    Network,
    Pause,
    Port,
    Positive,
    Processes,
    Seconds,
    named,
)
from service.jobs.gpus import Gpus, gpus_of
from service.jobs.job_queue import QueueConfig
from service.jobs.trainers import LocalTrainers, Trainers
from service.security import LOOPBACK
from service.serving.batching import BatchingParameters, read_batching_parameters
from service.serving.config import ServingConfig
from training.errors import UserError
from training.options.values import REPOSITORY, Location
from training.run.atomic import check_writable

_DATASETS = REPOSITORY / "datasets"


class Listening(BaseModel):
    """Where the service listens."""

    model_config = ConfigDict(title="listening")

    host: str = Field(
        LOOPBACK,
        description="listen at this address",
        json_schema_extra=named("ADDRESS"),
    )
    port: Port = Field(
        8501,
        description="the port of HTTP; 0: a free one",
        json_schema_extra=named("N"),
    )


class ListeningToBoth(Listening):
    """Where the service listens to HTTP and gRPC, and behind what."""

    grpc_port: Port = Field(
        8500,
        description="the port of gRPC; 0: a free one",
        json_schema_extra=named("N"),
    )
    serving_processes: Processes = Field(
        1,
        description="answer predictions in N processes on the same ports, each with "
        "all models and its part of the cores; --max-queue and the memory of requests "
        "are limited in each",
        json_schema_extra=named("N"),
    )
    trusted_proxy: Annotated[tuple[Network, ...], NoDecode] = Field(
        (),
        description="take the address of a caller from the X-Forwarded-For of a proxy "
        "at this address; can be given several times",
        json_schema_extra=named("ADDRESS"),
    )


class JobOptions(BaseModel):
    """How jobs are run."""

    model_config = ConfigDict(title="training jobs")

    serve_only: bool = Field(
        False, description="serve the models that are there; run no jobs"
    )
    state_dir: Location = Field(
        REPOSITORY / "service_state",
        description="keep jobs and runs here",
        json_schema_extra=named("DIR"),
    )
    data_root: Annotated[tuple[Location, ...], NoDecode] = Field(
        (),
        description="let jobs take archives, prepared data and pictures from here "
        f"as well as from {_DATASETS}; can be given several times",
        json_schema_extra=named("DIR"),
    )
    model_root: Annotated[tuple[Location, ...], NoDecode] = Field(
        (),
        description="let jobs train models of Python files below this directory, whose "
        "code their trainers run; can be given several times",
        json_schema_extra=named("DIR"),
    )
    allow_downloads: bool = Field(
        False,
        description="let jobs name datasets that TFDS fetches from other hosts",
    )
    executor: Literal["local", "ray"] = Field(
        "local", description="run jobs on this machine or on a Ray cluster"
    )
    ray_address: str = Field(
        "http://127.0.0.1:8265",
        description="the dashboard of the Ray cluster",
        json_schema_extra=named("URL"),
    )
    slots: Positive = Field(
        QueueConfig.slots,
        description="run N jobs at a time",
        json_schema_extra=named("N"),
    )
    devices: Devices = Field(
        "auto",
        description="the GPUs of this machine that jobs get, each job its own: auto, "
        "all that nvidia-smi lists; cpu, none; or their numbers, as 0,1,2,3",
        json_schema_extra=named("LIST"),
    )
    retries: Count = Field(
        QueueConfig.retries,
        description="start a trainer that died, or could not be started, N times again "
        "before its job fails; a finished epoch sets the count back",
        json_schema_extra=named("N"),
    )
    keep: Positive | None = Field(
        None,
        description="when a job has exported a version of a model, remove older "
        "versions that jobs and train.py have exported, but for the N newest and those "
        "that are served or labelled; default: none",
        json_schema_extra=named("N"),
    )
    keep_runs: Positive | None = Field(
        None,
        description="remove ended jobs and their runs, but for the N that ended last, "
        "interrupted ones and those of sweeps that go on; their models stay; default: "
        "none",
        json_schema_extra=named("N"),
    )
    stall_timeout: Pause = Field(
        QueueConfig.stall_timeout,
        description="kill a trainer that makes no progress for so long and start it "
        "again; 0: never",
        json_schema_extra=named("SECONDS"),
    )

    @model_validator(mode="after")
    def _devices_are_of_this_machine(self) -> Self:
        if self.executor == "ray" and "devices" in self.model_fields_set:
            raise ValueError(
                "`--devices` is for jobs on this machine; Ray gives its own GPUs to "
                f"jobs that ask for some. Received: {self.devices} with --executor ray."
            )
        return self

    def queue(self, exports: Path) -> QueueConfig:
        """Return how jobs are run.

        Args:
            exports: The directory that jobs export their models to.

        Raises:
            UserError: If it cannot be written to, the Ray cluster does not answer,
                this machine has not these GPUs, or a `--model-root` is no directory.
        """
        check_writable(exports, "--model-base-path")
        for root in self.model_root:
            if not root.is_dir():
                raise UserError(
                    "`--model-root` must be a directory, with the files of models. "
                    f"Received: {root}."
                )
        return QueueConfig(
            state_dir=self.state_dir,
            exports=exports,
            data_roots=(_DATASETS, *self.data_root),
            model_roots=self.model_root,
            allow_downloads=self.allow_downloads,
            slots=self.slots,
            retries=self.retries,
            stall_timeout=self.stall_timeout,
            trainers=self._trainers(),
            keep=self.keep,
            keep_runs=self.keep_runs,
            gpus=Gpus(are_elsewhere=True)
            if self.executor == "ray"
            else gpus_of(self.devices),
        )

    def _trainers(self) -> Trainers:
        if self.executor == "local":
            return LocalTrainers()
        try:
            from service.jobs.ray_trainers import RayTrainers
        except ModuleNotFoundError as error:
            raise UserError(
                "`--executor ray` needs Ray. Install it with: pip install --group ray."
            ) from error
        return RayTrainers(self.ray_address)


class ServingOptions(BaseModel):
    """How models are served."""

    model_config = ConfigDict(title="serving models")

    model_base_path: Location = Field(
        REPOSITORY / "saved_models",
        description="the models: jobs export to it, predictions come from it",
        json_schema_extra=named("DIR"),
    )
    model_config_file: Location | None = Field(
        None,
        description="TensorFlow Serving's file of models, version policies and labels; "
        "default: every model below --model-base-path, its latest version",
        json_schema_extra=named("FILE"),
    )
    enable_batching: bool = Field(
        False,
        description="let TensorFlow run requests that come together as one batch",
    )
    batching_parameters_file: Location | None = Field(
        None,
        description="TensorFlow Serving's file of how to batch, with "
        "--enable-batching; default: its defaults",
        json_schema_extra=named("FILE"),
    )
    timeout: Seconds = Field(
        ServingConfig.timeout,
        description="stop a prediction that takes longer",
        json_schema_extra=named("SECONDS"),
    )
    max_queue: Positive = Field(
        ServingConfig.max_queue,
        description="predictions under way; further ones are told to come again",
        json_schema_extra=named("N"),
    )
    max_body_bytes: Positive = Field(
        ServingConfig.max_body_bytes,
        description="refuse a prediction with a longer body",
        json_schema_extra=named("N"),
    )

    @model_validator(mode="after")
    def _parameters_are_for_batching(self) -> Self:
        if self.batching_parameters_file and not self.enable_batching:
            raise ValueError(
                "`--batching-parameters-file` needs `--enable-batching`. "
                f"Received: {self.batching_parameters_file} alone."
            )
        return self

    def serving(self) -> ServingConfig:
        """Return how models are served.

        Raises:
            UserError: If the directory of models or a file cannot be used.
        """
        if not self.model_base_path.is_dir():
            raise UserError(
                "`--model-base-path` must be a directory of models. "
                f"Received: {self.model_base_path}."
            )
        return ServingConfig(
            self.model_base_path,
            self.model_config_file,
            timeout=self.timeout,
            max_queue=self.max_queue,
            max_body_bytes=self.max_body_bytes,
            # For several requests with large bodies, and for one that becomes large.
            max_pending_bytes=max(
                ServingConfig.max_pending_bytes, 8 * self.max_body_bytes
            ),
            max_decoded_bytes=max(
                ServingConfig.max_decoded_bytes, 16 * self.max_body_bytes
            ),
            batching=self._batching(),
        )

    def _batching(self) -> BatchingParameters | None:
        if self.batching_parameters_file:
            return read_batching_parameters(self.batching_parameters_file)
        return BatchingParameters() if self.enable_batching else None


# `--help` shows the groups of the last class first.
class ServiceOptions(ServingOptions, JobOptions, ListeningToBoth, CommandLine):
    """Train and serve over HTTP.

    examples:
      python -m service                         jobs and models, for this machine
      python -m service --serve-only            the models alone
      python -m service --slots 2               two jobs at a time
      python -m service --slots 4 --devices 0,1,2,3       each with a GPU of its own
      python -m service --serving-processes 4   predictions on many cores
      KERASNORM_TOKEN=... python -m service --host 0.0.0.0

      curl -H 'Content-Type: application/json' -d '{"model": "mlp"}' \\
        localhost:8501/v1/jobs
      python train.py --submit http://localhost:8501 --model mlp

    The page is at http://localhost:8501, the API is described at
    http://localhost:8501/docs.
    """

    model_config = CLI | SettingsConfigDict(cli_prog_name="python -m service")

    def serving(self) -> ServingConfig:
        """Return how each process serves models.

        Raises:
            UserError: If the directory of models or a file cannot be used.
        """
        alone = super().serving()
        return replace(alone, threads=max(2, alone.threads // self.serving_processes))
