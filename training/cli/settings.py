"""Command lines read by pydantic-settings, with errors of one line."""

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from inspect import get_annotations
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from training.errors import UserError

CLI = SettingsConfigDict(
    cli_avoid_json=True,
    cli_exit_on_error=False,
    cli_hide_none_type=True,
    cli_kebab_case=True,
)

Options = TypeVar("Options", bound=BaseSettings)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Leave out the default of an option that has none: its text says what happens."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        return text.removesuffix(" (default: None)").removesuffix(" (default: ())")


class _Collect(argparse.Action):
    """Collect the values of an option that is given several times.

    pydantic-settings would split each of them at its commas.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest, ())
        setattr(namespace, self.dest, (*before, values))


def parse(options: type[Options], arguments: Sequence[str]) -> Options:
    """Read a command line.

    `--help` shows the options that a class with a `title` in its `model_config`
    declares as a group of that name. A field's `json_schema_extra` may name its
    `metavar`, and the value that the option has `alone`, given without one. A field
    that takes several values is a `tuple` with `NoDecode`.

    Args:
        options: The class of the options.
        arguments: The command line without the program's name.

    Returns:
        The options, filled from the command line and the other sources of the class.

    Raises:
        UserError: If an option is unknown or lacks its value.
        pydantic.ValidationError: If a value is not allowed.
    """
    groups: dict[str, Any] = {}

    def add(parser: argparse.ArgumentParser, *names: str, **details: Any) -> None:
        place: Any = parser
        if (field := details.get("dest")) in options.model_fields:
            extra = options.model_fields[field].json_schema_extra
            if isinstance(extra, dict) and "metavar" in extra:
                details["metavar"] = extra["metavar"]
            if isinstance(extra, dict) and "alone" in extra:
                details |= {"nargs": "?", "const": extra["alone"]}
            if details.get("action") == "append":
                details["action"] = _Collect
            if title := _group(options, field):
                if title not in groups:
                    groups[title] = parser.add_argument_group(title)
                place = groups[title]
        place.add_argument(*names, **details)

    try:
        # With its arguments given, the source has parsed them once it is made.
        source = CliSettingsSource[Any](
            options,
            cli_parse_args=list(arguments),
            formatter_class=_HelpFormatter,
            add_argument_method=add,
        )
        return options(_cli_settings_source=source)
    except SettingsError as error:
        raise UserError(_describe_parser_error(str(error), options)) from error


def option(field: str) -> str:
    """Return the command-line option of a field."""
    return f"--{field.replace('_', '-')}"


def describe(error: ValidationError, fields: Iterable[str]) -> str:
    """Return the first complaint of pydantic as one line.

    Args:
        error: What pydantic has raised.
        fields: The names of all fields, to suggest one for a name that is none.
    """
    first = error.errors()[0]
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    field = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"`{field}` is not an option.{nearest(field, fields)}"
    if first["type"] == "value_error":  # of a validator of ours
        said = first["msg"].removeprefix("Value error, ").rstrip(".")
        return f"`{option(field)}` is not usable: {said}. Received: {_received(first)}."
    expected = first["msg"].replace("Input should", "must")
    expected = expected.replace("String should", "must")
    expected = expected.partition(", unable to parse")[0]
    return f"`{option(field)}` {expected}. Received: {_received(first)}."


def _received(complaint: Mapping[str, Any]) -> str:
    """Return the value as it was given; an option may be given several times."""
    given = complaint["input"]
    return " ".join(map(str, given)) if isinstance(given, tuple) else str(given)


def nearest(name: str, fields: Iterable[str], otherwise: str = " See --help.") -> str:
    """Return what to do about a name that is no field, as the end of a message."""
    matches = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
    return f" Did you mean `{matches[0]}`?" if matches else otherwise


def _group(options: type[BaseSettings], field: str) -> str | None:
    """Return the title of the class that declares a field."""
    (owner, *_) = (c for c in options.__mro__ if field in get_annotations(c))
    return getattr(owner, "model_config", {}).get("title")


def _describe_parser_error(message: str, options: type[BaseSettings]) -> str:
    message = message.removeprefix("error parsing CLI: ")
    prefix = "unrecognized arguments: "
    if not message.startswith(prefix):
        return f"{message}. See --help."
    given = message.removeprefix(prefix).split()[0]
    known = [option(field) for field in options.model_fields]
    return f"`{given}` is not an option.{nearest(given.split('=')[0], known)}"
