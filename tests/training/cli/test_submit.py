"""`train.py --submit` against servers that are not what it expects."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from training.cli import submit
from training.config import TrainConfig
from training.errors import UserError

Answers = list[tuple[int, str]]


class Handler(BaseHTTPRequestHandler):
    """Gives the server's answers one after the other."""

    def do_GET(self) -> None:
        self.server.tokens.append(self.headers.get("Authorization"))
        status, text = self.server.answers.pop(0)
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setattr(submit, "SECONDS_BETWEEN_TRIES", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def submitted(server: ThreadingHTTPServer, *answers: tuple[int, str]) -> bool:
    server.answers, server.tokens = list(answers), []
    url = f"http://127.0.0.1:{server.server_port}"
    ended = submit.submit(url, TrainConfig(model="mlp"))
    assert server.answers == []
    return ended


TAKEN = (201, '{"id": 7}')
REFUSED = (401, '{"detail": "Job calls need a token."}')
SUCCEEDED = (200, "event: end\ndata: succeeded\n\n")
SIGN_OF_LIFE = ": ping\n\n"


@pytest.mark.parametrize(
    "text",
    ["<html>", "", "{}", "[]", '[{"id": 1}]', '{"id": "x"}', '{"id": null}', "null"],
)
def test_another_server_is_no_service(server: ThreadingHTTPServer, text: str) -> None:
    with pytest.raises(UserError, match="where something else answers") as raised:
        submitted(server, (200, text))
    assert str(server.server_port) in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (REFUSED, "Job calls need a token"),
        ((404, "nothing here"), "404 Not Found"),
        ((422, '{"detail": []}'), "422 Unprocessable"),
        ((422, '{"detail": [{"loc": 3}]}'), "422 Unprocessable"),
        ((500, '{"error": "x"}'), "500 Internal Server Error"),
    ],
)
def test_what_is_refused_says_why(
    server: ThreadingHTTPServer, answer: tuple[int, str], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as raised:
        submitted(server, answer)
    assert "\n" not in str(raised.value)


def test_a_job_is_followed_over_failures_of_the_service(
    server: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the line after the last one; one line says that it is asked again."""
    begun = (200, "data: one\nid: 4\n\ndata: two\nid: 8\n\n")
    down = (503, json.dumps({"detail": "Not now."}))
    assert submitted(server, TAKEN, begun, down, down, SUCCEEDED)
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == ["one", "two", "The job: succeeded."]
    assert err.endswith("/v1/jobs/7 does not answer (HTTPStatusError); asking again.\n")
    assert err.count("\n") == 1


def test_a_job_is_followed_though_others_have_guessed_the_token(
    server: ThreadingHTTPServer,
) -> None:
    wait = (429, '{"detail": "Too many wrong tokens came from this address."}')
    assert submitted(server, TAKEN, wait, SUCCEEDED)


def test_the_line_break_of_a_file_is_no_part_of_the_token(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERASNORM_TOKEN", "long word\n")
    assert submitted(server, TAKEN, SUCCEEDED)
    assert server.tokens == ["Bearer long word"] * 2


def test_each_line_of_the_log_is_printed_once_as_it_is(
    server: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty line, too, but nothing for a sign of life."""
    events = [
        *("data: one\nid: 4\n\n", "id: 5\n\n", "data:   a: b\nid: 12\n\n"),
        *("data: page\ndata: break\nid: 23\n\n", "data: \u2028 and \x85\nid: 30\n\n"),
    ]
    log = SIGN_OF_LIFE + SIGN_OF_LIFE.join(events) + SIGN_OF_LIFE
    assert submitted(server, TAKEN, (200, log), (200, SIGN_OF_LIFE + SUCCEEDED[1]))
    shown = capsys.readouterr().out.split("\n")[1:]
    assert shown == [
        *("one", "", "  a: b", "page", "break", r"\u2028 and \x85"),
        *("The job: succeeded.", ""),
    ]


def test_a_job_that_may_not_be_followed_any_more_is_given_up(
    server: ThreadingHTTPServer,
) -> None:
    """The service was started again, with another token."""
    with pytest.raises(UserError, match="cannot be followed: Job calls need a token"):
        submitted(server, TAKEN, (200, "data: one\nid: 4\n\n"), REFUSED)
