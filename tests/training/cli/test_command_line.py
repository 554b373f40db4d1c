"""Options from the command line, the environment and a TOML file."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.cli.command_line import CommandLine, load, read
from training.cli.settings import option
from training.config import TrainConfig
from training.errors import UserError
from training.options.fitting import EMA
from training.options.values import REPOSITORY


@pytest.fixture(autouse=True)
def _no_options_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("KERASNORM_"):
            monkeypatch.delenv(name)


def test_command_line_over_environment_over_file_over_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "job.toml"
    file.write_text("epochs = 11\nbatch_size = 12\nseed = 13\nnorm = false\n")
    monkeypatch.setenv("KERASNORM_EPOCHS", "21")
    monkeypatch.setenv("KERASNORM_BATCH_SIZE", "22")
    config = read(["--config", str(file), "--epochs", "31"]).job()
    assert (config.epochs, config.batch_size, config.seed) == (31, 22, 13)
    assert config.norm is False
    assert config.patience is None
    assert config.model_fields_set == {"epochs", "batch_size", "seed", "norm"}


def test_the_file_may_be_named_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "job.toml").write_text('model = "mlp"\n')
    monkeypatch.setenv("KERASNORM_CONFIG", str(tmp_path / "job.toml"))
    assert read([]).job().model == "mlp"


def test_flags_switch_both_ways() -> None:
    assert read(["--no-norm"]).norm is False
    assert read(["--norm"]).norm is True


def test_an_option_may_stand_without_its_value() -> None:
    assert read(["--ema", "--epochs", "3"]).ema == EMA
    assert read(["--ema", "0.9"]).ema == 0.9
    assert read([]).ema is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--epochs 0", "`--epochs` must be greater than or equal to 1. Received: 0."),
        ("--epochs 99999999999999999999", "`--epochs` must be less than 2147483648."),
        ("--batch-size 3000000000", "`--batch-size` must be less than 2147483648."),
        (
            "--dataset folder:~nobody-of-that-name/x",
            "`--dataset` is not usable: ~nobody-of-that-name/x: there is no such user. "
            "Received: folder:",
        ),
        ("--batch-size -3", "`--batch-size` must be .* Received: -3."),
        ("--batch-size x", "`--batch-size` must be a valid integer. Received: x."),
        (
            "--model-option width --model-option depth=3",
            "`--model-option` is not usable: it must be KEY=VALUE. "
            "Received: width depth=3.",
        ),
        ("--learning-rate 0", "`--learning-rate` must be greater than 0.* 0."),
        ("--learning-rate nan", "`--learning-rate` must be a finite number.* nan."),
        ("--weight-decay -1", "`--weight-decay` .* Received: -1."),
        ("--dropout-rate 1.5", "`--dropout-rate` .*Received: 1.5. .*not kept."),
        (
            "--recalibrate 100 --no-norm",
            "`recalibrate` needs batch normalization. "
            "Received: recalibrate=100, norm=False.",
        ),
        (
            "--monitor --no-norm",
            "`monitor` needs batch normalization. Received: monitor=True, norm=False.",
        ),
        (
            "--monitor --distribute mirrored",
            "`monitor` needs training on one device. "
            "Received: monitor=True, distribute=mirrored.",
        ),
        (
            "--monte-carlo 20 --dropout-rate 0",
            "`monte_carlo` needs dropout. Received: monte_carlo=20, dropout_rate=0.",
        ),
        (
            "--precision mixed_bfloat16 --distribute mirrored",
            "`precision` needs training on one device. "
            "Received: precision=mixed_bfloat16, distribute=mirrored.",
        ),
        ("--jit on --distribute mirrored", "`jit` needs training on one device. "),
        ("--max-norm 0", "`--max-norm` must be greater than 0. Received: 0."),
        ("--image-size 4", "`--image-size` .* Received: 4."),
        ("--validation-split 1", "`--validation-split` .* Received: 1."),
        ("--patience 0", "`--patience` .* Received: 0."),
        ("--seed -1", "`--seed` .* Received: -1."),
        ("--model rnn", "`--model` .* it must be cnn, mlp, .* Received: rnn."),
        ("--model a.py:", "`--model` .* it must be cnn, mlp, .* Received: a.py:."),
        ("--model-option 3", "`--model-option` .* KEY=VALUE. Received: .*3"),
        ("--name a/b", "`--name` .* Received: a/b."),
        ("--preset srivastava2014", "`preset` .* preset=srivastava2014, model=cnn."),
        ("--epocs 3", "`--epocs` is not an option. Did you mean `--epochs`?"),
        ("--epoch 3", "`--epoch` is not an option. Did you mean `--epochs`?"),
        ("--zzzzzz=1", "`--zzzzzz=1` is not an option. See --help."),
        ("--epochs", "argument --epochs: expected one argument"),
        ("stray", "`stray` is not an option."),
        ("--config /no/such.toml", "`--config` .* Received: /no/such.toml"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(arguments: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint.replace("?", r"\?")) as caught:
        read(arguments.split())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("batchsize = 3", "`batchsize` in .*job.toml .*Did you mean `batch_size`?"),
        ("epochs = 0", "`--epochs` must be .* Received: 0."),
        ("resume = 'x'", "`resume` in .*job.toml is not an option."),
        ("epochs = ", "`--config` must be a readable TOML file. Received: .*job.toml"),
    ],
)
def test_a_wrong_line_in_the_file_is_named(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises(UserError, match=complaint.replace("?", r"\?")):
        read(["--config", str(tmp_path / "job.toml")])


def test_an_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERASNORM_BATCHSIZE", "3")
    with pytest.raises(UserError, match=r"in KERASNORM_BATCHSIZE .*mean `batch_size`"):
        read([])


def test_a_written_config_is_read_back(tmp_path: Path) -> None:
    config = TrainConfig(model="mlp", preset="srivastava2014", max_norm=3, patience=2)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert load(tmp_path / "config.json") == config
    default = TrainConfig()
    (tmp_path / "config.json").write_text(default.model_dump_json())
    assert load(tmp_path / "config.json") == default


@pytest.mark.parametrize("text", ["{", "[]", '{"epochs": 0}', '{"colour": 1}'])
def test_a_broken_config_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config.json is not usable"):
        load(tmp_path / "config.json")


def test_help_names_each_option_with_its_default(
    run_train_py: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    process = run_train_py("--help", cwd=tmp_path)
    assert process.returncode == 0
    # Lines break at spaces, and at the hyphens of paths.
    text = "".join(process.stdout.split())
    for name, field in CommandLine.model_fields.items():
        assert {option(name), f"{option(name)},"} & set(process.stdout.split())
        if field.default is not None:
            assert f"(default:{field.default})" in text
    assert "dropped(notkept)" in text
    assert "(default:None)" not in text


def test_options_are_read_without_tensorflow() -> None:
    code = (
        "import sys, training.cli.command_line; sys.exit('tensorflow' in sys.modules"
        " or 'keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_a_wrong_option_ends_train_py_with_status_2_and_leaves_nothing(
    run_train_py: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    process = run_train_py(
        "--dropout-rate", 1, "--run-dir", "r", "--export-dir", "e", cwd=tmp_path
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith("error: `--dropout-rate` must be less than 1.")
    assert list(tmp_path.iterdir()) == []


def test_without_options_the_cnn_is_trained_on_fashion_mnist() -> None:
    config = read([]).job()
    assert (config.model, config.dataset) == ("cnn", "fashion_mnist")
    assert config.model_fields_set == set()
    assert config.export_name == "cnn-fashion_mnist"
    assert config.run_dir == REPOSITORY / "runs"
    assert config.export_dir == REPOSITORY / "saved_models"


def test_paths_are_kept_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config = read(["--run-dir", "r", "--dataset", "folder:pets"]).job()
    assert config.run_dir == tmp_path / "r"
    assert config.dataset == f"folder:{tmp_path / 'pets'}"
    assert config.export_name == "cnn-pets"


def test_a_models_function_and_its_arguments() -> None:
    given = ("--model", "nets.py:wide", "--model-option", "width=5")
    more = ("--model-option", "name=a,b", "--model-option", "sizes=[1, 2]")
    config = read([*given, *more]).job()
    assert config.model == f"{Path.cwd() / 'nets.py'}:wide"
    assert config.model_option == {"width": 5, "name": "a,b", "sizes": [1, 2]}
    assert config.export_name == "wide-fashion_mnist"
