"""The page in a real browser, over a real service.

`pytest tests/service/page --screenshots docs/figures` keeps a picture of each view.
"""

import gzip
import importlib.util
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import tensorflow as tf
from PIL import Image

from tests.conftest import REPOSITORY
from tests.service.services import Service, wait_until
from training.config import TrainConfig

pytest.importorskip("playwright.sync_api", reason="needs Playwright")

from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from tests.service.page.browsing import (
    SECONDS,
    choose,
    choose_job,
    draw,
    fill,
    image,
    open_form,
    probabilities,
    read,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs Chromium: apt-get install chromium", allow_module_level=True)
if importlib.util.find_spec("gradio") is None:
    pytest.skip("needs Gradio: pip install --group serve", allow_module_level=True)

MNIST = REPOSITORY.parent / "shared" / "data" / "mnist"
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
)
SEVEN = [(0.28, 0.25), (0.72, 0.25), (0.45, 0.8)]
ONE = [(0.5, 0.15), (0.5, 0.85)]
RATES = ("0.0001", "0.003")
NAMES = [f"pictures-learning_rate-{rate}" for rate in RATES]
SCRIBBLE = [(0.2, 0.3), (0.8, 0.4), (0.25, 0.5), (0.75, 0.7), (0.3, 0.75), (0.5, 0.25)]

Keep = Callable[[str], None]


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, few_pictures: Path
) -> Iterator[Service]:
    options = ("--data-root", few_pictures.parent)
    service = Service(tmp_path_factory.mktemp("page"), *options).start()
    yield service
    if service.process.poll() is None:
        service.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """Open the page; none of its requests may leave this machine."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(SECONDS * 1000)
    hosts, complaints = set(), list[Error]()
    page.on("request", lambda request: hosts.add(urlsplit(request.url)))
    page.on("pageerror", lambda error: complaints.append(error))
    page.goto(service.url)
    yield page
    page.close()
    assert {url.hostname for url in hosts if url.scheme not in ("data", "blob")} == {
        "localhost"
    }
    assert not complaints


@pytest.fixture
def keep(page: Page, request: pytest.FixtureRequest) -> Keep:
    """Keep a picture of the page in the directory of --screenshots."""
    directory = request.config.getoption("--screenshots")

    def shoot(name: str) -> None:
        if directory:
            page.mouse.move(0, 0)
            page.screenshot(path=Path(directory) / f"page-{name}.png", full_page=True)

    return shoot


@pytest.fixture(scope="module")
def sweep(browser: Browser, service: Service, few_pictures: Path) -> list[int]:
    """Start a sweep by the form; return its jobs when both have succeeded."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(SECONDS * 1000)
    page.goto(service.url)
    open_form(page)
    choose(page, "#option-model", "mlp")
    page.locator("#option-monitor").get_by_role("checkbox").check()
    fill(page, dataset=f"folder:{few_pictures}", epochs=2, batch_size=32, monte_carlo=5)
    fill(page, name="pictures")
    choose(page, "#swept", "learning rate")
    page.locator("#values").locator("input, textarea").fill(", ".join(RATES))
    page.click("#start")
    assert read(page, "#message", "is queued: 2 jobs").startswith("Sweep 1 ")
    jobs = sorted(job["id"] for job in service.get("?limit=2")["jobs"])
    # The first one is shown in the place of the form, while it trains.
    read(page, "#heading", f"Job {jobs[0]}: {NAMES[0]} · succeeded")
    page.close()
    for job in jobs:
        service.wait_for(job, "succeeded", "failed")
    return jobs


def test_a_job_of_the_form_has_its_options(
    sweep: list[int], service: Service, few_pictures: Path
) -> None:
    for job, rate, name in zip(sweep, RATES, NAMES, strict=True):
        assert service.get(str(job))["state"] == "succeeded"
        config = TrainConfig(**service.get(str(job))["config"])
        assert config == TrainConfig(
            **{"model": "mlp", "dataset": f"folder:{few_pictures}", "epochs": 2},
            **{"batch_size": 32, "monte_carlo": 5, "monitor": True},
            **{"learning_rate": float(rate), "name": name},
            **{"run_dir": service.root / "state" / "runs"},
            export_dir=service.root / "models",
            download=False,
        )


def test_a_job_from_its_log_to_its_model_card(
    page: Page, sweep: list[int], service: Service
) -> None:
    job = sweep[0]
    choose_job(page, job)
    read(page, "#heading", f"Job {job}: {NAMES[0]} · succeeded")
    read(page, "#jobs", "2 of 2")
    log = requests.get(f"{service.url}/v1/jobs/{job}/logs", timeout=SECONDS).text
    assert page.locator("#log pre").inner_text().rstrip() == log.rstrip()
    names = read(page, "#pictures", "monitor")
    for name in ("curves", "confusion", "mistakes", "certainty"):
        assert name in names
    assert image(page, "#curves").shape[2] == 3
    page.get_by_role("button", name="Model card").click()
    card = read(page, "#model-card", "Classes")
    assert all(f"class{number}" in card for number in range(10))


def test_a_mistake_is_one_line(page: Page, service: Service) -> None:
    jobs = service.get("?limit=1")["total"]
    open_form(page)
    fill(page, epochs=0)
    page.click("#start")
    line = read(page, "#message", "Not started").strip()
    assert line == "Not started. epochs: Input should be greater than or equal to 1"
    fill(page, epochs=1, dataset="folder:/etc")
    page.click("#start")
    assert "must lie in" in read(page, "#message", "dataset: ")
    assert service.get("?limit=1")["total"] == jobs


def test_a_sweep_is_compared(page: Page, sweep: list[int], service: Service) -> None:
    page.click("#compare-jobs > button")
    choose(page, "#compared", "sweep 1: learning_rate")
    page.keyboard.press("Escape")
    answer = requests.get(f"{service.url}/v1/sweeps/1", timeout=SECONDS).json()
    rows = sorted(answer["rows"], key=lambda row: -row["validation"]["accuracy"])
    assert rows[0]["job"] == answer["best"]
    assert sorted(row["job"] for row in rows) == sweep
    expected = [
        [
            *(str(row["job"]), str(row["values"]["learning_rate"]), "2"),
            f"{row['validation']['loss']:.4f}",
            f"{row['validation']['accuracy']:.2%}",
        ]
        for row in rows
    ]
    cells = page.locator("#comparison-table [role=gridcell]")
    wait_until(
        lambda: [c.strip() for c in cells.all_inner_texts()] == [*chain(*expected)]
    )
    assert image(page, "#comparison").std() > 0


def test_cancelled_and_resumed_while_the_log_grows(
    page: Page, service: Service, few_pictures: Path
) -> None:
    open_form(page)
    choose(page, "#option-model", "mlp")
    page.locator("#option-norm").get_by_role("checkbox").uncheck()  # starts sooner
    fill(page, dataset=f"folder:{few_pictures}", epochs=500, batch_size=4, name="long")
    page.click("#start")
    job = read(page, "#message", r"Job \d+ is queued").split()[1]
    log = page.locator("#log pre")
    wait_until(lambda: "Epoch 2/" in log.inner_text())
    early = log.inner_text()
    curves = page.locator("#curves img").get_attribute("src")
    wait_until(lambda: page.locator("#curves img").get_attribute("src") != curves)
    assert len(log.inner_text()) > len(early)
    read(page, "#heading", r"epoch \d+ of 500")
    page.click("#cancel")
    read(page, "#heading", f"Job {job}: long · cancelled")
    assert service.get(job)["state"] == "cancelled"
    expect(page.locator("#cancel")).to_be_disabled()
    page.click("#resume")
    read(page, "#heading", f"Job {job}: long · running")
    wait_until(lambda: log.inner_text().count("If interrupted") == 2)
    page.click("#cancel")
    read(page, "#heading", f"Job {job}: long · cancelled")


@pytest.mark.usefixtures("sweep")
def test_a_dropped_image_is_what_the_model_sees(
    page: Page, service: Service, few_pictures: Path
) -> None:
    page.get_by_role("tab", name="Try").click()
    choose(page, "#model", NAMES[1])
    page.get_by_role("tab", name="Image").click()
    head = b"\x89PNG\r\n\x1a\n" + bytes.fromhex(  # 30,000 x 30,000 pixels
        "0000000d4948445200007530000075300806000000"
        + "6627f8ba"
        + "00000009"
        + "49444154"
    )
    large = {"name": "a.png", "mimeType": "image/png", "buffer": head}
    page.set_input_files("#picture input[type=file]", large)
    page.get_by_text("A picture must have at most 30,000,000 pixels").wait_for()
    path = sorted(few_pictures.rglob("*.png"))[7]
    pixels = np.asarray(Image.open(path))
    page.set_input_files("#picture input[type=file]", path)
    model = tf.saved_model.load(str(service.root / "models" / NAMES[1] / "1"))
    images = tf.constant(pixels[np.newaxis, ..., np.newaxis])
    answer = model.signatures["serving_default"](images=images)["probabilities"][0]
    expected = {
        f"class{i}": pytest.approx(100 * p, abs=0.6)
        for i, p in enumerate(answer.numpy())
    }
    # What was drawn before is answered until now.
    wait_until(lambda: probabilities(page) == expected, seconds=60)
    seen = image(page, "#seen")
    seen = seen[..., 0] if seen.ndim == 3 else seen
    np.testing.assert_array_equal(seen[::8, ::8], pixels)
    prediction = model.signatures["monte_carlo"](
        images=images, seed=tf.constant(0), samples=tf.constant(50)
    )
    entropy = float(prediction["predictive_entropy"][0])
    words = read(page, "#uncertainty", "predictive entropy")
    assert f"the predictive entropy is {entropy:.2f} of at most 2.30 nats" in words
    assert image(page, "#spread").std() > 0


def save_digits(root: Path, number: int) -> Path:
    """Save the first pictures of MNIST by class."""
    images, labels = (
        gzip.decompress((MNIST / f"train-{name}-ubyte.gz").read_bytes())
        for name in ("images-idx3", "labels-idx1")
    )
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    for index, label in enumerate(labels[8 : 8 + number]):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[index]).save(root / str(label) / f"{index:04}.png")
    return root


@pytest.fixture(scope="module")
def digits(service: Service, few_pictures: Path) -> int:
    """Return a job on 1,500 pictures of MNIST that has succeeded.

    After three epochs it knows a clear digit, and no scribble is like one.
    """
    if not MNIST.is_dir():
        pytest.skip(f"needs MNIST's archives in {MNIST}")
    config = {"model": "mlp", "epochs": 3, "batch_size": 32, "monte_carlo": 20}
    dataset = f"folder:{save_digits(few_pictures.parent / 'digits', 1500)}"
    job = service.submit(
        config | {"monitor": True, "dataset": dataset, "name": "digits"}
    )
    wait_until(
        lambda: service.get(str(job))["state"] in ("succeeded", "failed"), seconds=900
    )
    assert service.get(str(job))["state"] == "succeeded"
    return job


def test_a_drawn_digit_is_recognized_and_a_scribble_uncertain(
    page: Page, digits: int, keep: Keep
) -> None:
    page.get_by_role("tab", name="Try").click()
    choose(page, "#model", "digits")
    entropies = {}
    for name, points in (("1", ONE), ("7", SEVEN), ("scribble", SCRIBBLE)):
        page.click("#sketch button")
        expect(page.locator("#uncertainty")).not_to_contain_text("entropy")
        draw(page, points)
        words = read(page, "#uncertainty", "predictive entropy")
        entropies[name] = float(re.findall(r"entropy is ([\d.]+)", words)[0])
        percents = probabilities(page)
        if name != "scribble":
            assert max(percents, key=percents.__getitem__) == name
            assert "The model is certain" in words
        keep(f"try-{name}")
    assert "The model is uncertain" in words
    assert entropies["scribble"] > 10 * max(entropies["1"], entropies["7"])


def test_the_inside_of_a_run(page: Page, sweep: list[int]) -> None:
    page.get_by_role("tab", name="Inside").click()
    choose(page, "#run", f"job {sweep[0]}: {NAMES[0]}")
    expect(page.locator("#statistics img")).to_be_visible()
    for view in ("#network", "#distributions", "#statistics"):
        assert image(page, view).std() > 0
    thinned = page.locator("#network img").get_attribute("src")
    page.click("#another")
    wait_until(lambda: page.locator("#network img").get_attribute("src") != thinned)


def test_a_sweep_goes_on_as_in_the_picture(
    page: Page, service: Service, request: pytest.FixtureRequest, keep: Keep
) -> None:
    if not request.config.getoption("--screenshots"):
        pytest.skip("takes minutes, to have a picture; see --screenshots")
    choose(page, "#option-model", "mlp")
    fill(page, epochs=6)
    choose(page, "#swept", "dropout rate")
    page.locator("#values").locator("input, textarea").fill("0.2, 0.5")
    page.click("#start")
    sweep = read(page, "#message", "is queued: 2 jobs").split()[1]
    page.click("#compare-jobs > button")
    choose(page, "#compared", f"sweep {sweep}: dropout_rate")
    page.keyboard.press("Escape")
    answer = requests.get(f"{service.url}/v1/sweeps/{sweep}", timeout=SECONDS)
    first, second = (row["job"] for row in answer.json()["rows"])
    wait_until(lambda: service.get(str(first))["state"] == "succeeded", seconds=600)
    choose_job(page, second)
    wait_until(lambda: len(service.get(f"{second}/metrics")) == 5, seconds=600)
    read(page, "#heading", r"epoch 6 of 6, step [1-4]\d\d")
    keep("jobs")


def test_the_inside_of_a_run_as_in_the_picture(
    page: Page, digits: int, request: pytest.FixtureRequest, keep: Keep
) -> None:
    if not request.config.getoption("--screenshots"):
        pytest.skip("looks at no more than another test; see --screenshots")
    page.get_by_role("tab", name="Inside").click()
    choose(page, "#run", f"job {digits}: digits")
    expect(page.locator("#statistics img")).to_be_visible()
    keep("inside")


def test_the_api_is_described_without_a_network(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/docs")
    page.get_by_text("/v1/jobs/{job_id}/cancel").first.wait_for()


def test_the_api_keeps_its_paths(service: Service) -> None:
    def ask(method: str, path: str) -> requests.Response:
        return requests.request(method, f"{service.url}{path}", timeout=SECONDS)

    assert "swagger" in ask("GET", "/docs").text
    assert "/v1/jobs" in ask("GET", "/openapi.json").json()["paths"]
    assert ask("GET", "/v1/jobs").json()["jobs"] is not None
    assert ask("GET", "/healthz").text == "ok"
    assert ask("GET", "/monitoring/prometheus/metrics").status_code == 200
    for method, path in (("PUT", "/v1/jobs"), ("GET", "/v1/x"), ("GET", "/V1/")):
        assert ask(method, path).json()["error"].startswith("Malformed request")


def test_the_page_gives_out_no_files_and_obeys_the_guard(service: Service) -> None:
    files = f"{service.url}/gradio_api/file="
    for path in ("/etc/passwd", "README.md", service.root / "state" / "jobs.sqlite"):
        assert requests.get(f"{files}{path}", timeout=SECONDS).status_code in (403, 404)
    join = f"{service.url}/gradio_api/queue/join"
    call: Any = {"data": [], "fn_index": 0, "session_hash": "x"}
    foreign = {"Origin": "http://elsewhere.example"}
    assert requests.post(join, json=call, headers=foreign).status_code == 403
    large = b"x" * (2**24 + 1)
    assert requests.post(join, data=large, timeout=SECONDS).status_code == 413
    host = {"Host": "elsewhere.example"}
    assert requests.get(service.url, headers=host).status_code == 403


class Unasked(Service):
    """A service that is not asked for its jobs."""

    asked = "/docs"


def test_without_jobs_the_page_has_predictions_alone_and_asks_for_a_token(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERASNORM_TOKEN", "a secret")
    (tmp_path / "models").mkdir()
    service = Unasked(tmp_path, "--serve-only").start()
    page = browser.new_page()
    page.set_default_timeout(SECONDS * 1000)
    try:
        config = requests.get(f"{service.url}/config", timeout=SECONDS)
        assert config.status_code == 401
        join = f"{service.url}/gradio_api/queue/join"
        call: Any = {"data": [], "fn_index": 0, "session_hash": "x"}
        assert requests.post(join, json=call, timeout=SECONDS).status_code == 401
        page.goto(service.url)
        for password, expected in (("wrong", "Incorrect"), ("a secret", "Try")):
            page.get_by_label("username").fill("anyone")
            page.get_by_label("password").fill(password)
            page.get_by_role("button", name="Login").click()
            page.get_by_text(expected).first.wait_for()
        page.get_by_role("tab", name="Try").wait_for()
        assert page.get_by_role("tab", name="Jobs").count() == 0
        draw(page, ONE)
        read(page, "#uncertainty", "There is no model yet")
    finally:
        page.close()
        service.stop()


def test_an_open_page_does_not_keep_the_service_from_stopping(
    browser: Browser, service: Service
) -> None:
    """The page holds streams, which Gradio's private `app.stop_event` ends.

    This is the last test, since it ends the service of the others.
    """
    page = browser.new_page()
    page.goto(service.url)
    page.locator("#start-a-job").wait_for()
    service.stop()
    page.close()
    assert service.process.returncode == 0
    assert not (service.root / "state" / "page").exists()
