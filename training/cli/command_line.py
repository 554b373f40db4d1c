"""Read the command line, the environment and a TOML file into a `TrainConfig`."""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from training.cli import settings
from training.cli.settings import nearest, option
from training.config import TrainConfig
from training.errors import UserError
from training.options.values import Location
from training.run import files

ENVIRONMENT_PREFIX = "KERASNORM_"
TOKEN = f"{ENVIRONMENT_PREFIX}TOKEN"  # no option: it must not end up in a config
# A resumed run may have other directories and devices: they do not change its results.
_MOVABLE = {
    *("data_dir", "archives", "download", "export_dir", "distribute", "replicas"),
    "model_hash",
}


def token_of_environment() -> str | None:
    """Return the token of a service, if the environment has one.

    What is read from a file often ends with a line break, which no header can hold.

    Raises:
        UserError: If it is blank, or not one line of text.
    """
    given = os.environ.get(TOKEN, "")
    token = given.strip()
    if (given and not token) or not token.isprintable():
        raise UserError(
            f"{TOKEN} must be one line of printable characters, or not be set. "
            f"Received: {'others among them' if token else 'white space alone'}."
        )
    return token or None


class _TomlFile(PydanticBaseSettingsSource):
    """The file that `--config` names; sources of higher priority give that option."""

    def get_field_value(
        self, field: FieldInfo, field_name: str
    ) -> tuple[Any, str, bool]:
        raise NotImplementedError("the file is read as a whole")

    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("config")
        if path is None:
            return {}
        try:
            options = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UserError(
                f"`--config` must be a readable TOML file. Received: {path}: {error}."
            ) from error
        for name in options:
            _check_name(name, TrainConfig.model_fields, f"in {path}")
        return options


class CommandLine(TrainConfig, BaseSettings):
    """Train an image classifier and export it as a SavedModel.

    examples:
      python train.py                                  the CNN on Fashion-MNIST
      python train.py --model mlp --dropout-rate 0.2   an MLP; 20 % of units dropped
      python train.py --dataset mnist --seed 1         TFDS fetches MNIST
      python train.py --dataset folder:~/pets --image-size 64
      python train.py --model applications:MobileNetV2 --dataset cifar10
      python train.py --model nets.py:wide --model-option width=256
      python train.py --resume runs/cnn-fashion_mnist  go on after an interruption
      python train.py --submit http://localhost:8501   run it at a service, follow it

    Each option can also stand in a TOML file (batch_size = 64) or in the
    environment (KERASNORM_BATCH_SIZE=64). The command line overrides the
    environment, the environment the file, the file the defaults.
    """

    model_config = settings.CLI | SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        cli_implicit_flags=True,
        cli_prog_name="train.py",
    )

    config: Path | None = Field(None, description="a TOML file with options")
    resume: Location | None = Field(
        None, description="go on with the interrupted run in this directory"
    )
    submit: str | None = Field(
        None,
        pattern="^https?://",
        description="run the job at the service at this address and follow it from "
        "here; if the service needs a token, put it into KERASNORM_TOKEN",
    )
    ray: str | None = Field(
        None,
        pattern=r"^(auto|[^:/]+:\d+)$",
        description="train on the Ray cluster at this address, auto or HOST:PORT; all "
        "its nodes must see this file system",
    )
    workers: int | None = Field(
        None, ge=1, description="with --ray: the number of workers"
    )

    @model_validator(mode="after")
    def _ray_and_workers(self) -> Self:
        if (self.ray is None) != (self.workers is None):
            raise ValueError(
                "`--ray` and `--workers` belong together. "
                f"Received: ray={self.ray}, workers={self.workers}."
            )
        if self.ray and self.distribute == "mirrored":
            raise ValueError(
                "`--ray` trains with --distribute multiworker. Received: mirrored."
            )
        if self.ray and self.submit:
            raise ValueError("`--ray` and `--submit` exclude each other.")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources after the command line, which comes first by itself."""
        return init_settings, env_settings, _TomlFile(settings_cls)

    def job(self) -> TrainConfig:
        """Return the job's options alone; `model_fields_set` keeps those given."""
        own = set(CommandLine.model_fields) - set(TrainConfig.model_fields)
        return TrainConfig(**self.model_dump(exclude_unset=True, exclude=own))


def read(arguments: Sequence[str]) -> CommandLine:
    """Read all sources of options.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The options; `model_fields_set` has those that any source gives.

    Raises:
        UserError: If an option is unknown or its value is not allowed.
    """
    for variable in os.environ:
        if variable.startswith(ENVIRONMENT_PREFIX) and variable != TOKEN:
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            _check_name(name, CommandLine.model_fields, f"in {variable}")
    try:
        return settings.parse(CommandLine, arguments)
    except ValidationError as error:
        raise UserError(describe(error)) from error


def load(path: Path) -> TrainConfig:
    """Read the `config.json` of a run.

    Raises:
        UserError: If it is missing or is no `TrainConfig`.
    """
    try:
        return TrainConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"`--resume` must be the directory of a run, with its config.json. "
            f"Received: {path.parent}."
        ) from error
    except ValidationError as error:
        raise UserError(f"{path} is not usable. {describe(error)}") from error


def resumed(directory: Path, given: TrainConfig) -> TrainConfig:
    """Return the options with which a run goes on.

    Args:
        directory: The directory of the run.
        given: The options beside `--resume`.

    Raises:
        UserError: If the directory holds no run or an option contradicts it.
    """
    config = load(directory / files.CONFIG)
    for field in given.model_fields_set - _MOVABLE:
        if (value := getattr(given, field)) != getattr(config, field):
            raise UserError(
                f"`{option(field)}` contradicts the run in {directory}, which has "
                f"{getattr(config, field)}. Received: {value}. Leave it out."
            )
    moved = given.model_fields_set & _MOVABLE
    return config.model_copy(update={name: getattr(given, name) for name in moved})


def describe(error: ValidationError) -> str:
    """Return pydantic's first complaint as one line."""
    message = settings.describe(error, TrainConfig.model_fields)
    if error.errors()[0]["loc"] == ("dropout_rate",):
        message += " It is the fraction dropped, not kept."
    return message


def _check_name(name: str, fields: dict[str, FieldInfo], place: str) -> None:
    if name not in fields:
        raise UserError(f"`{name}` {place} is not an option.{nearest(name, fields)}")
