"""The options of a job, as a program gives them."""

import json

import pytest
from pydantic import ValidationError

import models
from models.mlp import PRESETS
from training.config import TrainConfig


def test_a_program_does_not_read_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KERASNORM_EPOCHS", "21")
    body = '{"model": "mlp", "max_norm": 3}'
    config = TrainConfig.model_validate_json(body)
    assert config.epochs == TrainConfig.model_fields["epochs"].default
    assert config.max_norm == 3.0
    with pytest.raises(ValidationError, match=r"epoch"):
        TrainConfig.model_validate_json('{"epoch": 3}')


def test_choices_are_those_of_the_models() -> None:
    schema = TrainConfig.model_json_schema()["properties"]
    assert set(schema["model"]["examples"]) == set(models.REGISTRY)
    assert set(schema["preset"]["enum"]) == set(PRESETS)


def test_the_config_is_json() -> None:
    assert json.loads(TrainConfig().model_dump_json())["dropout_rate"] == 0.5


@pytest.mark.parametrize(
    "options",
    [{"replicas": 2}, {"replicas": 2, "distribute": "multiworker"}],
)
def test_replicas_are_those_of_one_machine(options: dict) -> None:
    with pytest.raises(
        ValueError, match="`replicas` needs `distribute` to be mirrored"
    ):
        TrainConfig(**options)


def test_synchronization_needs_batch_normalization() -> None:
    with pytest.raises(ValueError, match="`synchronized` needs batch normalization"):
        TrainConfig(norm=False, synchronized=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_head": 4, "epochs": 4}, "`train_head` must be less than `epochs`"),
        ({"ema": 0.9, "distribute": "mirrored"}, "`ema` needs training on one device"),
        ({"ema": 1}, "less than 1"),
        ({"ema": float("nan")}, "less than 1"),
        ({"label_smoothing": 1}, "less than 1"),
        ({"mixup": -0.1}, "greater than or equal to 0"),
        ({"mixup": float("inf")}, "less than or equal to 100"),
        ({"class_weight": "equal"}, "'none' or 'balanced'"),
    ],
)
def test_options_of_training_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig(**options)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("cnn", "cnn-mnist"),
        ("applications:ResNet50", "ResNet50-mnist"),
        ("/a b/nets.py:wide", "wide-mnist"),
        ("package.nets:wide", "wide-mnist"),
        ("package.nets:_wide", "wide-mnist"),
        ("nets.py:n\u00f6tz", "n-tz-mnist"),
        (f"nets.py:{'x' * 300}", "x" * 100),
    ],
)
def test_a_run_is_named_by_its_model_and_dataset(model: str, name: str) -> None:
    assert TrainConfig(model=model, dataset="mnist").export_name == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_option": 5}, "KEY=VALUE"),
        ({"model_option": None}, "KEY=VALUE"),
        ({"model_option": [3]}, "KEY=VALUE"),
        ({"model_option": ["x=" + "[" * 100_000]}, None),
        ({"model_option": {"x": [[[[[[[1]]]]]]]}}, "lists deep"),
        ({"model_option": ["x=NaN"]}, "finite"),
        ({"model_option": {"x": object()}}, "text, numbers"),
        ({"freeze": "("}, "regular expression"),
        ({"freeze": "a{99999999999}"}, "regular expression"),
        ({"freeze": "(" * 900}, "regular expression"),
    ],
)
def test_odd_values_are_refused_as_others_are(options: dict, message: str) -> None:
    if message is None:  # text that is no JSON is text
        assert TrainConfig(**options).model_option["x"].startswith("[[[")
        return
    with pytest.raises(ValidationError, match=message):
        TrainConfig(**options)
