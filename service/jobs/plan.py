"""What a search may try: ranges of numbers, lists of choices, and how many trials."""

import json
from collections.abc import Mapping
from decimal import Decimal
from importlib.util import find_spec
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from service.jobs.paths import Roots
from service.jobs.submission import (
    SubmissionError,
    combinations_of,
    logging_refusals,
    refusal,
)
from training.config import LONGEST_NAME, TrainConfig

MOST_TRIALS = 500
TRIALS = "trials"  # the key of the body that makes a search
_MOST_STEPS = 1_000_000

Trials = Annotated[
    int,
    Field(
        ge=1,
        le=MOST_TRIALS,
        strict=True,
        description="makes a search: so many jobs, whose values Optuna draws from the "
        "options with a range or a list",
    ),
]


class Range(BaseModel):
    """The numbers that an option may have in a search."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    low: FiniteFloat = Field(description="the lowest number")
    high: FiniteFloat = Field(description="the highest number")
    log: bool = Field(False, description="draw the logarithm evenly")
    step: FiniteFloat | None = Field(
        None, gt=0, description="draw low, low + step, ... up to high"
    )

    @model_validator(mode="after")
    def _ends_and_step_fit(self) -> Self:
        said = f"Received: low={self.low:g}, high={self.high:g}"
        if self.low > self.high:
            raise ValueError(f"`low` must not be above `high`. {said}.")
        if self.log and self.low <= 0:
            raise ValueError(f"`low` must be above 0 with `log`. {said}.")
        if self.step is None:
            return self
        said += f", step={self.step:g}"
        if self.log:
            raise ValueError(f"`step` and `log` exclude each other. {said}.")
        steps = (_exact(self.high) - _exact(self.low)) / _exact(self.step)
        if steps > _MOST_STEPS or steps != int(steps):
            raise ValueError(
                "`step` must divide the range from `low` to `high` into at most "
                f"{_MOST_STEPS:,} equal parts. {said}."
            )
        return self


class Plan(BaseModel):
    """What a search tries, as the table of jobs keeps it.

    Attributes:
        trials: How many jobs it has.
        seed: What the draws follow from, beside the number of the trial.
        ranges: The options that take numbers from a range.
        choices: The options that take one of some values; each value is JSON text, so
            that values of any type are told apart.
    """

    model_config = ConfigDict(frozen=True)

    trials: int
    seed: int
    ranges: dict[str, Range]
    choices: dict[str, list[str]]

    def config_with(
        self, drawn: Mapping[str, Any], config: TrainConfig, trial: int
    ) -> TrainConfig:
        """Return the options of a trial, which exports under a name of its own.

        Args:
            drawn: The numbers, and the JSON texts of the choices.
            config: The options of the search.
            trial: The number of the trial.
        """
        values = {
            name: json.loads(value) if name in self.choices else value
            for name, value in drawn.items()
        }
        options = config.model_dump(mode="json") | values
        config = TrainConfig.model_validate(options)
        end = f"-trial-{trial}"
        name = config.export_name[: LONGEST_NAME - len(end)] + end
        return config.model_copy(update={"name": name})

    def drawn_of(self, config: TrainConfig) -> dict[str, Any]:
        """Return the numbers and JSON texts that the options of a trial come from."""
        options = config.model_dump(mode="json")
        return {name: options[name] for name in self.ranges} | {
            name: json.dumps(options[name]) for name in self.choices
        }


def takes_ranges(option: str) -> bool:
    """Return whether an option is a number."""
    return bool({int, float} & _types(option))


def takes_integers(option: str) -> bool:
    """Return whether an option of numbers takes only whole ones."""
    return float not in _types(option)


def is_search(values: Mapping[str, Any]) -> bool:
    """Return whether a body asks for a search instead of a job or a grid."""
    return TRIALS in values or bool(_ranges_in(values))


@logging_refusals()
def plan_of(
    values: Mapping[str, Any], roots: Roots
) -> tuple[Plan, list[str], TrainConfig]:
    """Return a search, the options that it draws, and those of a job before its draw.

    Every combination of choices and ends of ranges must be allowed: then so is all
    that can be drawn.

    Args:
        values: The body: options of train.py, some with a range or a list, `trials`.
        roots: The directories that the paths in them are confined to.

    Raises:
        SubmissionError: If an option, its range or the number of trials is not allowed.
    """
    if find_spec("optuna") is None:
        raise refusal(
            "A search needs Optuna: pip install --group serve brings it.", TRIALS
        )
    ranges = {n: _range(n, given) for n, given in _ranges_in(values).items()}
    if TRIALS not in values:
        raise refusal(
            f"A range needs `{TRIALS}`, how many jobs its values are drawn for.",
            TRIALS,
        )
    if isinstance(values.get("name"), list):
        raise refusal("A search has one name; each trial adds its number.", "name")
    trials = _checked(Trials, values[TRIALS], TRIALS)
    if not ranges:
        raise refusal(f"`{TRIALS}` needs an option with a range.", TRIALS)
    options = {name: value for name, value in values.items() if name != TRIALS}
    ends = {n: _ends(n, of) for n, of in ranges.items()}
    drawn, configs = combinations_of(
        options | ends,
        roots,
        "A search must have at most {} combinations of choices and ends of ranges",
    )
    dumps = [config.model_dump(mode="json") for config in configs]
    choices = {
        name: list(dict.fromkeys(json.dumps(dump[name]) for dump in dumps))
        for name in drawn
        if name not in ranges
    }
    plan = Plan(trials=trials, seed=configs[0].seed, ranges=ranges, choices=choices)
    return plan, drawn, configs[0]


def _ranges_in(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may be meant as a range: an object where the option takes none."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, dict)
        and name in TrainConfig.model_fields
        and dict not in _types(name)
    }


def _range(option: str, given: Any) -> Range:
    if not takes_ranges(option):
        raise refusal(
            "It takes no range, since it is not a number. Give a value, or a list of "
            "values to choose from.",
            option,
        )
    checked = _checked(Range, given, option)
    if takes_integers(option):
        for key in ("low", "high", "step"):
            number = getattr(checked, key)
            if number is not None and number != int(number):
                raise refusal(
                    f"`{key}` must be a whole number. Received: {key}={number:g}.",
                    option,
                )
    return checked


def _ends(option: str, of: Range) -> list[float]:
    return [int(n) if takes_integers(option) else n for n in (of.low, of.high)]


def _checked(expected: Any, value: Any, option: str) -> Any:
    try:
        return TypeAdapter(expected).validate_python(value)
    except ValidationError as error:
        raise SubmissionError(
            [
                {**each, "loc": (option, *each["loc"]), "msg": _in_words(each)}
                for each in error.errors(include_url=False, include_context=False)
            ]
        ) from error


def _in_words(complaint: Any) -> str:
    if complaint["type"] == "extra_forbidden":
        keys = ", ".join(Range.model_fields)
        key = str(complaint["loc"][-1])[:LONGEST_NAME]
        return f"`{key}` is not a key of a range: it has {keys}."
    return str(complaint["msg"]).removeprefix("Value error, ")


def _types(option: str) -> set[Any]:
    annotation = TrainConfig.model_fields[option].annotation
    return {annotation, get_origin(annotation), *get_args(annotation)}


def _exact(number: float) -> Decimal:
    return Decimal(repr(number))
