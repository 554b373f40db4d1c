"""The options of the service's command lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service import __main__, ray_serve
from service.jobs.job_queue import QueueConfig
from service.options import ServiceOptions
from service.ray_serve import RayServeOptions
from service.serving.batching import BatchingParameters
from service.serving.config import ServingConfig
from tests.conftest import REPOSITORY
from training.cli.settings import option
from training.errors import UserError


def test_without_options_it_listens_on_this_machine_only() -> None:
    options = ServiceOptions.read([])
    assert (options.host, options.port, options.grpc_port) == ("127.0.0.1", 8501, 8500)
    assert options.state_dir == REPOSITORY / "service_state"
    assert options.model_base_path == REPOSITORY / "saved_models"
    assert (options.executor, options.slots, options.retries) == ("local", 1, 3)
    assert (options.timeout, options.max_queue) == (30.0, 256)
    assert options.max_body_bytes == 64 * 2**20
    assert not options.serve_only
    assert not options.enable_batching
    assert options.model_config_file is options.batching_parameters_file is None


def test_on_ray_one_to_four_replicas_serve_on_a_new_cluster() -> None:
    options = RayServeOptions.read([])
    assert (options.host, options.port, options.address) == ("127.0.0.1", 8501, "local")
    assert (options.min_replicas, options.max_replicas) == (1, 4)


def test_options_become_how_jobs_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--state-dir", "state", "--slots", "2", "--retries", "0"]
    arguments += ["--data-root", "pets, and more", "--data-root=/[x"]
    jobs = ServiceOptions.read(arguments).queue(tmp_path / "models")
    assert jobs.state_dir == tmp_path / "state"
    assert jobs.exports == tmp_path / "models"
    assert (jobs.slots, jobs.retries) == (2, 0)
    own = REPOSITORY / "datasets"
    assert jobs.data_roots == (own, tmp_path / "pets, and more", Path("/[x"))
    assert QueueConfig(tmp_path, tmp_path).slots == 1


def test_options_become_how_models_are_served(tmp_path: Path) -> None:
    base = ["--model-base-path", str(tmp_path)]
    assert ServiceOptions.read(base).serving() == ServingConfig(tmp_path)
    batching = tmp_path / "batching"
    batching.write_text("max_batch_size { value: 16 }")
    arguments = ["--timeout", "0.5", "--max-queue", "9", "--max-body-bytes", "99"]
    arguments += ["--model-config-file", f"{tmp_path}/models", "--enable-batching"]
    arguments += ["--batching-parameters-file", str(batching)]
    assert ServiceOptions.read(base + arguments).serving() == ServingConfig(
        tmp_path,
        tmp_path / "models",
        timeout=0.5,
        max_queue=9,
        max_body_bytes=99,
        batching=BatchingParameters(max_batch_size=16),
    )


def test_each_of_several_processes_has_its_part_of_the_threads(tmp_path: Path) -> None:
    base = ["--model-base-path", str(tmp_path)]
    one = ServiceOptions.read(base)
    assert one.serving_processes == 1
    assert one.serving().threads == 2 * len(os.sched_getaffinity(0))
    many = ServiceOptions.read([*base, "--serving-processes", "64"])
    assert many.serving().threads == 2


def test_the_environment_is_left_to_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They inherit it, and take KERASNORM_... for options of train.py."""
    for name in ("KERASNORM_PORT", "PORT", "KERASNORM_EPOCHS", "KERASNORM_TOKEN"):
        monkeypatch.setenv(name, "1")
    assert ServiceOptions.read([]).port == 8501


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--port 65536", "`--port` must be between 0 and 65535. Received: 65536."),
        ("--port -1", "`--port` must be between 0 and 65535. Received: -1."),
        ("--grpc-port x", "`--grpc-port` must be a valid integer. Received: x."),
        ("--slots 0", "`--slots` must be at least 1. Received: 0."),
        (
            "--serving-processes 0",
            "`--serving-processes` must be between 1 and 256. Received: 0.",
        ),
        (
            "--serving-processes 20000",
            "`--serving-processes` must be between 1 and 256. Received: 20000.",
        ),
        ("--retries -1", "`--retries` must be at least 0. Received: -1."),
        ("--timeout 0", "`--timeout` must be more than 0. Received: 0."),
        ("--timeout nan", "`--timeout` must be more than 0. Received: nan."),
        ("--timeout inf", "`--timeout` must be more than 0. Received: inf."),
        ("--max-queue 0", "`--max-queue` must be at least 1. Received: 0."),
        ("--max-body-bytes 0", "`--max-body-bytes` must be at least 1.* 0."),
        (
            "--trusted-proxy *",
            r"`--trusted-proxy` must be an address or a network, as 10.0.0.7 or "
            r"10.0.0.0/24. Received: \*.",
        ),
        ("--trusted-proxy 10.0.0.1/24", "must be an address or a network"),
        ("--executor k8s", "`--executor` must be 'local' or 'ray'. Received: k8s."),
        *(
            (
                f"--devices {wrong}",
                "`--devices` must be auto, cpu or different numbers of GPUs, as "
                f"0,1,2,3. Received: {wrong}.",
            )
            for wrong in ("gpu", "0,0", "0,,1", "-1", "01", "0,cpu", "1.5")
        ),
        (
            "--executor ray --devices auto",
            "`--devices` is for jobs on this machine; Ray gives its own GPUs to jobs "
            "that ask for some. Received: auto with --executor ray.",
        ),
        ("--slot 2", "`--slot` is not an option. Did you mean `--slots`?"),
        ("--state-dir", "argument --state-dir: expected one argument. See --help."),
        (
            "--batching-parameters-file x",
            "`--batching-parameters-file` needs `--enable-batching`. "
            "Received: .*/x alone.",
        ),
    ],
)
def test_a_wrong_option_is_named_in_one_line(arguments: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint.replace("?", r"\?")) as caught:
        ServiceOptions.read(arguments.split())
    assert "\n" not in str(caught.value)


def test_ports_from_0_to_65535_are_taken() -> None:
    options = ServiceOptions.read(["--port", "0", "--grpc-port", "65535"])
    assert (options.port, options.grpc_port) == (0, 65535)


def test_models_lie_in_a_directory(tmp_path: Path) -> None:
    options = ServiceOptions.read(["--model-base-path", str(tmp_path / "none")])
    with pytest.raises(UserError, match=r"`--model-base-path` must be .*/none\."):
        options.serving()


def test_jobs_export_to_where_they_can_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="`--model-base-path` must be a directory that"):
        ServiceOptions.read([]).queue(tmp_path / "file")


def test_models_of_jobs_lie_in_a_directory(tmp_path: Path) -> None:
    options = ServiceOptions.read(["--model-root", str(tmp_path / "none")])
    with pytest.raises(UserError, match=r"`--model-root` must be a directory.*/none\."):
        options.queue(tmp_path)


def test_a_wrong_option_ends_a_command_with_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["service", "--port", "70000"])
    assert __main__.main() == 2
    assert capsys.readouterr() == (
        "",
        "error: `--port` must be between 0 and 65535. Received: 70000.\n",
    )


def test_other_machines_need_a_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KERASNORM_TOKEN", raising=False)
    monkeypatch.setattr(sys, "argv", ["service", "--host", "0.0.0.0"])
    assert __main__.main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: `--host 0.0.0.0` can be reached from other machines")
    assert err.count("\n") == 1


@pytest.mark.parametrize("token", [" ", "\n", "a\nb", "a\x1bb", "\udcff"])
def test_what_no_header_can_hold_is_no_token(
    token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KERASNORM_TOKEN", token)
    # It would not start with this directory either.
    options = ["--host", "0.0.0.0", "--model-base-path", "/nowhere"]
    monkeypatch.setattr(sys, "argv", ["service", *options])
    assert __main__.main() == 2
    err = capsys.readouterr().err
    assert err.startswith("error: KERASNORM_TOKEN must be one line of printable")
    assert err.count("\n") == 1


def test_fewer_replicas_at_most_than_at_least_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--min-replicas", "5", "--max-replicas", "4"]
    monkeypatch.setattr(sys, "argv", ["service.ray_serve", *options])
    assert ray_serve.main() == 2
    assert capsys.readouterr().err == (
        "error: `--max-replicas` must be at least `--min-replicas`. Received: 4, 5.\n"
    )


@pytest.mark.parametrize("options", [ServiceOptions, RayServeOptions])
def test_help_names_each_option_with_its_default(
    options: type[ServiceOptions | RayServeOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        options.read(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name, field in options.model_fields.items():
        assert f"\n  {option(name)}" in text
        if field.default not in (None, ()):
            # Lines break at spaces, and at the hyphens of paths.
            assert f"(default:{field.default})" in "".join(text.split())
    assert "examples:\n" in text
    titles = [
        line for line in text.splitlines() if line.endswith(":") and line[0] > " "
    ]
    assert len(titles) == 4


def test_help_and_mistakes_do_not_wait_for_tensorflow() -> None:
    code = (
        "import sys, service.__main__, service.ray_serve; "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules"
        " or 'fastapi' in sys.modules)"
    )
    # As the command does: the tests' own interpreter has imported them long ago.
    subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=os.environ, check=True
    )
