"""No caller of the page reads a file of this machine, or has the service fetch a URL.

What can be asked for is read from the page's own `/config` and from Gradio's routes, so
that a new event or route is covered by itself.
"""

import asyncio
import contextlib
import importlib.util
import io
import itertools
import json
import os
import re
import shutil
import socket
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import tensorflow as tf
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from service.app import Settings, create_app
from service.jobs.job_queue import QueueConfig
from service.serving.config import ServingConfig
from service.serving.routes import Serving
from tests.service.serving.served import save

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("gradio") is None,
        reason="needs Gradio: make serve",
    ),
    # Gradio opens an uploaded picture to see its form, and leaves it to be closed.
    pytest.mark.filterwarnings("ignore:unclosed file .*picture.png:ResourceWarning"),
    # Gradio counts events with an option that pandas has deprecated.
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting'"),
]

UPLOAD = "/gradio_api/upload"
JOIN = "/gradio_api/queue/join"
META = {"_type": "gradio.FileData"}
URLS = ("http://elsewhere.example/a.png", "https://127.0.0.1:9/a.png")
NETWORK = {
    *("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.getnameinfo"),
    *("socket.gethostbyname", "socket.gethostbyaddr"),
}


class Watch:
    """What Python itself reports of this process, while it is on."""

    def __init__(self) -> None:
        self.is_on = False
        self.opened: list[Path] = []
        self.contacted: list[Any] = []
        sys.addaudithook(self._note)  # which stays for ever

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        self.opened.clear()
        self.contacted.clear()
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            self.opened.append(Path(os.fsdecode(arguments[0])))
        elif event in NETWORK:
            self.contacted.append((event, arguments))


@dataclass(frozen=True)
class Page:
    """The page, and a file that nobody may get by it.

    Attributes:
        client: Speaks to the page.
        routes: Those of Gradio, as OpenAPI describes them.
        blocks: What is on it.
        uploads: Its folder of uploads, which is Gradio's cache, too.
        secret: A picture outside of it.
        watch: Sees what the page does.
    """

    client: TestClient
    routes: dict[str, Any]
    blocks: Any
    uploads: Path
    secret: Path
    watch: Watch

    @property
    def functions(self) -> list[Any]:
        return self.client.get("/config").json()["dependencies"]

    @property
    def components(self) -> dict[int, Any]:
        components = self.client.get("/config").json()["components"]
        return {component["id"]: component for component in components}

    def upload(self, picture: bytes, name: str = "picture.png") -> str:
        """Where the page has stored a picture."""
        answer = self.client.post(UPLOAD, files={"files": (name, picture)})
        assert answer.status_code == 200, answer.text
        return answer.json()[0]

    def kept(self) -> dict[Path, bytes]:
        """The files in the folder, and their contents."""
        files = [p for p in self.uploads.rglob("*") if p.is_file()]
        return {path: path.read_bytes() for path in files if not path.is_symlink()}

    def call(self, *bodies: dict[str, Any]) -> list[Any]:
        """What comes of events of one session, in their order."""
        outputs = []
        for start in range(0, len(bodies), 10):  # a session may have so many at a time
            events = [
                self.client.post(JOIN, json=body).json()["event_id"]
                for body in bodies[start : start + 10]
            ]
            results = self.results(bodies[0]["session_hash"])
            outputs += [results[event] for event in events]
        return outputs

    def results(self, session: str) -> dict[str, Any]:
        """What comes of a session's events, by their names."""
        stream = self.client.get(f"/gradio_api/queue/data?session_hash={session}").text
        messages = [json.loads(line[6:]) for line in stream.splitlines() if line]
        return {
            message["event_id"]: message["output"]
            for message in messages
            if message["msg"] == "process_completed"
        }

    @contextlib.contextmanager
    def keeps_its_secret(self) -> Iterator[list[str]]:
        """Fails if the secret is read, or the network is used.

        What the page answers is to be put into the list.
        """
        answers: list[str] = []
        with self.watch():
            yield answers
        assert not self.watch.contacted
        assert self.secret not in [path.resolve() for path in self.watch.opened]
        content = self.secret.read_bytes()
        assert content not in self.kept().values()
        root = f"{re.escape(str(self.secret.parent.parent))}|{self.uploads}"
        for path in set(re.findall(rf"(?:{root})[^\s\"'\\,]*", "\n".join(answers))):
            answer = self.client.get(f"/gradio_api/file={path}")
            assert content not in answer.content, path


@pytest.fixture(scope="module", params=["with jobs", "serve only"])
def page(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    root = tmp_path_factory.mktemp("page")
    secret = root / "outside" / "secret.png"
    secret.parent.mkdir()
    secret.write_bytes(png(np.random.default_rng().integers(0, 256, (28, 28))))
    save_mean(root / "models" / "mean" / "1")
    serving = Serving(ServingConfig(root / "models"))
    jobs = QueueConfig(root / "state", root / "models", slots=0)
    settings = Settings(serving.config, jobs if request.param == "with jobs" else None)
    app = create_app(settings, serving)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(root / "uploads"))
        patch.setattr(tempfile, "tempdir", str(root))
        asyncio.run(mounted(app, serving))
        uploads = Path(os.environ["GRADIO_TEMP_DIR"])
        page = app.router.routes[-1].app
        local = TestClient(app, "http://localhost", raise_server_exceptions=False)
        with local as client:
            routes = page.openapi()["paths"]
            yield Page(client, routes, page.get_blocks(), uploads, secret, Watch())
        assert not uploads.exists()


async def mounted(app: FastAPI, serving: Serving) -> None:
    """Mounts the page where a loop runs; else Gradio leaves some of its own open."""
    from service.page.mount import mount

    mount(app, app.state.queue, serving, None)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def save_mean(directory: Path) -> None:
    """Saves a model whose first probability is the share of white in an image."""

    def probabilities(images: tf.Tensor) -> dict[str, tf.Tensor]:
        white = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2, 3]) / 255
        return {"probabilities": tf.stack([white, 1 - white], 1)}

    images = tf.TensorSpec([None, 28, 28, 1], "uint8", "images")
    save(directory, serving_default=(probabilities, [images]))


@pytest.fixture(scope="module")
def outside(page: Page) -> list[str]:
    """Ways to name the secret, and URLs."""
    folder = Path(page.upload(png(np.zeros((28, 28))))).parent
    replaced = Path(page.upload(png(np.ones((28, 28)))))
    replaced.unlink()
    links = [
        *(page.secret.with_name("link.png"), page.uploads / "link.png"),
        *(folder / "link.png", replaced),
    ]
    for link in links:
        link.symlink_to(page.secret)
    (page.uploads / "folder").symlink_to(page.secret.parent)
    return [
        *(str(page.secret), os.path.relpath(page.secret)),
        f"{page.uploads}/../outside/secret.png",
        f"{folder}/../../outside/secret.png",
        *map(str, links),
        f"{page.uploads}/folder/secret.png",
        f"/proc/self/root{page.secret}",
        page.secret.as_uri(),
        *URLS,
    ]


def shapes(path: str) -> list[Any]:
    """Values that name a file to Gradio or to one of its components."""
    file = {"path": path, "meta": META}
    return [
        file,
        {"path": path},
        {"path": path, "meta": {"_type": "another"}},
        file | {"url": path, "is_stream": True},
        [file],
        {"value": [{"image": {"path": path}}]},
    ]


def test_it_is_noticed_if_the_secret_comes_out(page: Page) -> None:
    with pytest.raises(AssertionError), page.keeps_its_secret():
        page.secret.read_bytes()
    with pytest.raises(AssertionError), page.keeps_its_secret():
        socket.getaddrinfo("127.0.0.1", 9)
    copy = page.uploads / "copy.png"
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(page.secret, copy)
    with pytest.raises(AssertionError), page.keeps_its_secret():
        pass
    copy.unlink()


def test_events_take_nothing_that_was_not_uploaded(
    page: Page, outside: list[str]
) -> None:
    """Each input of each function gets one path in all shapes, the paths in turn."""
    values = {n: part["props"].get("value") for n, part in page.components.items()}
    paths = itertools.cycle(outside)
    inputs = 0
    for function in page.functions:
        own = [values[number] for number in function["inputs"]] or [None]
        call = {"fn_index": function["id"], "session_hash": f"of-{function['id']}"}
        named = [next(paths) for _ in own]
        inputs += len(own)
        calls = [
            call | {"data": [*own[:i], value, *own[i + 1 :]], "event_data": value}
            for i, path in enumerate(named)
            for value in shapes(path)
        ]
        with page.keeps_its_secret() as answers:
            results = page.call(*calls)
            answers += map(str, results)
        assert [result["error"] for result in results] == [
            "`path` must be a file that was uploaded to this page. "
            f"Received: path={path!r}. Upload it first."
            for path in named
            for _ in shapes(path)
        ]
    assert inputs > len(outside)


def test_no_url_beside_an_upload_is_followed(page: Page) -> None:
    upload = page.upload(png(np.zeros((28, 28))))
    for function in page.functions:
        call = {"fn_index": function["id"], "session_hash": f"url-{function['id']}"}
        calls = [
            call | {"data": [value] * max(len(function["inputs"]), 1)}
            for url in URLS
            for value in (
                {"path": upload, "meta": META, "url": url},
                {"path": upload, "url": url},
                {"url": url, "meta": META},
                url,
            )
        ]
        with page.keeps_its_secret() as answers:
            answers += map(str, page.call(*calls))


def test_no_route_takes_what_was_not_uploaded(page: Page, outside: list[str]) -> None:
    """Each way to post, with each function and the secret in all its inputs."""
    posted = [path for path, operations in page.routes.items() if "post" in operations]
    assert "/gradio_api/queue/join" in posted
    value = {"path": str(page.secret), "meta": META}
    for function in page.functions:
        session = f"posted-{function['id']}"
        body = {
            "data": [value] * max(len(function["inputs"]), 1),
            **{"fn_index": function["id"], "session_hash": session},
            **{"event_data": value, "component_id": 0, "fn_name": "ls"},
        }
        with page.keeps_its_secret() as answers:
            for path in posted:
                url = re.sub(r"{\w+}", str(function["api_name"]), path)
                answers.append(page.client.post(url, json=body).text)
            answers += map(str, page.results(session).values())


def test_no_route_gives_out_what_was_not_uploaded(
    page: Page, outside: list[str]
) -> None:
    """Each route that is asked for something, in its path or its query."""
    asked = {
        path: operations["get"]["parameters"]
        for path, operations in page.routes.items()
        if operations.get("get", {}).get("parameters")
    }
    assert "/gradio_api/file={path_or_url}" in asked
    del asked["/gradio_api/upload_progress"]  # waits seconds for an upload
    content = page.secret.read_bytes()
    for route, parameters in asked.items():
        names = [each["name"] for each in parameters if each["in"] == "query"]
        with page.keeps_its_secret():
            for path in outside:
                # Else the client takes out what is before "..".
                encoded = quote(path, safe="").replace(".", "%2E")
                for given in (encoded, f"{page.uploads}/{encoded}"):
                    url = re.sub(r"{\w+}", given, route)
                    answer = page.client.get(url, params=dict.fromkeys(names, path))
                    page.client.head(url)
                    assert content not in answer.content
                    assert names or answer.status_code in (403, 404), url


def test_an_uploaded_picture_is_what_the_model_sees(page: Page) -> None:
    components, functions = page.components, page.functions
    values = {n: part["props"].get("value") for n, part in components.items()}
    kinds = {n: part["type"] for n, part in components.items()}
    (tab,) = (
        n
        for n, part in components.items()
        if part["type"] == "tabitem" and part["props"]["label"] == "Image"
    )

    def call(function: Any) -> list[Any]:
        data = [values[number] for number in function["inputs"]]
        body = {"fn_index": function["id"], "session_hash": "real", "data": data}
        return page.call(body)[0]["data"]

    for function in functions:
        if any(event == "load" for _, event in function["targets"]):
            updates = zip(function["outputs"], call(function), strict=True)
            values |= {number: update["value"] for number, update in updates}
        elif [tab, "select"] in function["targets"]:
            call(function)
    answer = next(f for f in functions if "image" in [kinds[n] for n in f["inputs"]])
    (image,) = (number for number in answer["inputs"] if kinds[number] == "image")
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)
    path = page.upload(png(pixels))
    url = f"http://localhost/gradio_api/file={path}"
    values[image] = {"path": path, "url": url, "orig_name": "a.png", "meta": META}

    seen, probabilities, *_ = call(answer)
    shown = page.client.get(seen["url"]).content
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(shown)))[::8, ::8], pixels
    )
    assert {c["label"]: c["confidence"] for c in probabilities["confidences"]} == {
        "0": pytest.approx(pixels.mean() / 255),
        "1": pytest.approx(1 - pixels.mean() / 255),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("../../x.png", "/etc/x.png", "..\\x.png", "%2e%2e%2fx.png", "a/../../b.png"),
        *("x.svg", "x.html", "x.png.html", ".htaccess", "C:\\x.png", "con", ".", ".."),
        *("\u202egnp.html", "\u4e2d\u6587.png", "x" * 300, "x\x00.html", "-rf", "a\nb"),
    ],
)
def test_no_upload_chooses_its_name_or_how_it_is_shown(page: Page, name: str) -> None:
    content = png(np.zeros((2, 2))) + b"<script>alert(1)</script>"
    before = set(page.kept())
    path = page.upload(content, name)
    assert set(page.kept()) - before == {Path(path)}
    assert re.fullmatch(r"[0-9a-f]{32}/picture\.png", path[len(f"{page.uploads}/") :])
    for headers in ({}, {"Range": "bytes=0-99"}, {"Accept": "text/html"}):
        answer = page.client.get(f"/gradio_api/file={path}", headers=headers)
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert answer.content == content


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0" * 1000, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7"),
        *(b"<!doctype html><script>alert(1)</script>", b"PK\3\4", b"\x89PNG\r\n\x1a\n"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    ],
)
def test_what_is_no_picture_is_not_kept(page: Page, content: bytes) -> None:
    before = page.kept()
    for name in ("picture.png", "picture.svg", "picture.html"):
        answer = page.client.post(UPLOAD, files={"files": (name, content)})
        assert answer.status_code == 422
        assert answer.text.startswith("A picture must be a readable PNG, ")
    assert page.kept() == before


def head_of_png(width: int, height: int) -> bytes:
    """A PNG of this size without its pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    length, end = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + length + chunk + end + struct.pack(">I", 9) + b"IDAT"


@pytest.mark.parametrize(
    "size", [(30_000, 30_000), (6_000, 5_001), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1)]
)
def test_a_picture_that_would_grow_is_refused_by_its_head(
    page: Page, size: tuple[int, int]
) -> None:
    before = page.kept()
    files = {"files": ("picture.png", head_of_png(*size))}
    answer = page.client.post(UPLOAD, files=files)
    assert answer.status_code == 422
    assert answer.text.startswith("A picture must have at most 30,000,000 pixels. ")
    assert "\n" not in answer.text
    assert page.kept() == before


def test_only_the_newest_pictures_are_kept(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.page import folder

    sizes = [len(png(np.full((28, 28), n))) for n in range(9)]
    for bound, value in (("MOST_FILES", 3), ("MOST_BYTES", sum(sizes[-3:]))):
        with monkeypatch.context() as patch:
            patch.setattr(folder, bound, value)
            paths = [page.upload(png(np.full((28, 28), n))) for n in range(9)]
            assert {str(path) for path in page.kept()} == set(paths[-3:])
            assert page.blocks.upload_file_set == set(paths[-3:])
            assert len(list(page.uploads.iterdir())) == 3
            answers = [page.client.get(f"/gradio_api/file={path}") for path in paths]
            assert [a.status_code for a in answers] == [404] * 6 + [200] * 3


def test_an_upload_is_one_file_and_what_breaks_off_leaves_nothing(page: Page) -> None:
    before = page.kept()
    picture = png(np.zeros((28, 28)))
    for files in ([], [("file", picture)], [("files", picture)] * 2):
        assert page.client.post(UPLOAD, files=files).status_code in (400, 422)
    text = page.client.post(UPLOAD, data={"files": "/etc/hostname"})
    assert text.status_code == 422
    beginning = b"--x\r\nContent-Disposition: form-data; name=files; filename=a\r\n\r\n"
    messages = [
        {"type": "http.request", "body": beginning + picture, "more_body": True},
        {"type": "http.disconnect"},
    ]
    asyncio.run(ask(page, UPLOAD, messages))
    assert page.kept() == before


def test_uploads_under_way_are_few(page: Page) -> None:
    async def crowd() -> list[int]:
        """The answers to nine uploads of which eight do not go on."""
        waiting = [asyncio.create_task(ask(page, UPLOAD, [])) for _ in range(8)]
        await asyncio.sleep(0.1)
        status = 0
        with contextlib.suppress(TimeoutError):  # it waits, too
            status = await asyncio.wait_for(ask(page, UPLOAD, []), 30)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        return [status, *(task.done() for task in waiting)]

    assert asyncio.run(crowd()) == [503] + [True] * 8
    page.upload(png(np.zeros((28, 28))))


async def ask(page: Page, path: str, messages: list[dict[str, Any]]) -> int:
    """The status of the answer to a form whose body comes in these messages."""
    statuses = [0]

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        statuses.append(message.get("status", statuses[-1]))

    form = b"multipart/form-data; boundary=x"
    headers = [(b"host", b"localhost"), (b"content-type", form)]
    scope = {
        **{"type": "http", "method": "POST", "path": path, "headers": headers},
        **{"query_string": b"", "http_version": "1.1", "server": ("localhost", 80)},
        **{"scheme": "http", "root_path": "", "client": ("127.0.0.1", 1)},
    }
    with contextlib.suppress(Exception):
        await page.client.app(scope, receive, send)
    return statuses[-1]


def test_events_are_small_and_few(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.page import uploads

    queue, holder = page.blocks._queue, page.blocks.state_holder
    assert (queue.max_size, holder.capacity) == (64, 64)
    monkeypatch.setattr(uploads, "_MOST_SESSIONS", 4)
    monkeypatch.setattr(uploads, "_MOST_UNREAD", 3)
    (function,) = (
        f for f in page.functions if any(event == "load" for _, event in f["targets"])
    )
    data = [None] * len(function["inputs"])
    body = {"fn_index": function["id"], "data": data}
    for name in ("", "x" * 65, "a b", "a\nb", 1, None, [], {"a": 1}):
        answer = page.client.post(JOIN, json=body | {"session_hash": name})
        assert answer.status_code == 400, name
    for content in (b"", b"1", b"[" * 100_000, b"{" * 100_000, b"\xff", b"{}"):
        assert page.client.post(JOIN, content=content).status_code == 400
    for values in ([[]] * 1001, [{"": 0}] * 501, {str(n): 0 for n in range(1001)}):
        many = body | {"session_hash": "many", "data": [values]}
        answer = page.client.post(JOIN, json=many)
        assert answer.json()["detail"].startswith("An event must have at most 1,000")
    large = body | {"session_hash": "large", "data": ["x" * 2**17]}
    assert page.client.post(JOIN, json=large).status_code == 413

    same = [body | {"session_hash": "same"}] * 4
    statuses = [page.client.post(JOIN, json=each).status_code for each in same]
    assert statuses == [200] * 3 + [429]
    for number in range(8):
        answer = page.client.post(JOIN, json=body | {"session_hash": f"s{number}"})
        assert answer.status_code == 200
    newest = {f"s{number}" for number in range(4, 8)}
    assert set(queue.pending_event_ids_session) == newest
    assert set(queue.pending_messages_per_session) == newest
    (output,) = page.call(body | {"session_hash": "next", "data": ["x" * 9000] * 2})
    assert "not in the list of choices" in output["error"]
    (output,) = page.call(body | {"session_hash": "next"})
    assert "data" in output
    kept = holder.session_data["next"].config_values.values()
    assert "x" * 9000 not in str([config["props"].get("value") for config in kept])
