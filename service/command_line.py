"""A command line of the service: its options' values, and how it is read."""

import ipaddress
import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from training.cli import settings
from training.errors import UserError

CLI = settings.CLI | SettingsConfigDict(cli_implicit_flags="toggle", frozen=True)


def _checked(holds: Callable[[Any], bool], expected: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError("range", f"Input should be {expected}")
        return value

    return AfterValidator(check)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _are_devices(text: str) -> bool:
    numbers = text.split(",")
    is_list = all(re.fullmatch("0|[1-9][0-9]{,3}", number) for number in numbers)
    return text in ("auto", "cpu") or (is_list and len(set(numbers)) == len(numbers))


Port = Annotated[int, _checked(lambda n: 0 <= n < 2**16, "between 0 and 65535")]
Count = Annotated[int, _checked(lambda n: n >= 0, "at least 0")]
Positive = Annotated[int, _checked(lambda n: n >= 1, "at least 1")]
Processes = Annotated[int, _checked(lambda n: 1 <= n <= 256, "between 1 and 256")]
Seconds = Annotated[float, _checked(lambda s: 0 < s < math.inf, "more than 0")]
Pause = Annotated[float, _checked(lambda s: 0 <= s < math.inf, "at least 0")]

Devices = Annotated[
    str, _checked(_are_devices, "auto, cpu or different numbers of GPUs, as 0,1,2,3")
]
Network = Annotated[
    str, _checked(_is_network, "an address or a network, as 10.0.0.7 or 10.0.0.0/24")
]


def named(metavar: str) -> dict[str, Any]:
    """Return the schema entry that sets the value's name in `--help`."""
    return {"metavar": metavar}


class CommandLine(BaseSettings):
    """Options that come from the command line alone.

    Trainers inherit the environment: KERASNORM_... in there are options of train.py.
    """

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line comes first by itself; nothing comes after it."""
        return (init_settings,)

    @classmethod
    def read(cls, arguments: Sequence[str]) -> Self:
        """Read a command line.

        Args:
            arguments: The command line without the program's name.

        Raises:
            UserError: If an option is unknown or its value is not allowed.
        """
        try:
            return settings.parse(cls, arguments)
        except ValidationError as error:
            raise UserError(settings.describe(error, cls.model_fields)) from error
