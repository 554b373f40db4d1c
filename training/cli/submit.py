"""`train.py --submit URL`: the job runs at a service, and is followed from here."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

import requests

from training.cli.command_line import TOKEN
from training.config import TrainConfig
from training.errors import UserError

_SECONDS_TO_ANSWER = 30
_SECONDS_BETWEEN_TRIES = 1.0


@dataclass(frozen=True)
class _Event:
    name: str
    id: str
    data: str


def submit(url: str, config: TrainConfig) -> bool:
    """Submits a job and prints its log until it has ended.

    While the service cannot be reached, it is asked again.

    Args:
        url: Where the service listens, as `http://localhost:8501`.
        config: The options of the job; those not given are the service's defaults.

    Returns:
        Whether the job has succeeded.

    Raises:
        UserError: If the service does not take the job.
    """
    session = requests.Session()
    if token := os.environ.get(TOKEN):
        # Requests sends headers in Latin-1; these are the bytes of UTF-8.
        session.headers["Authorization"] = f"Bearer {token}".encode().decode("latin-1")
    options = config.model_dump(mode="json", exclude_unset=True)
    jobs = f"{url.rstrip('/')}/v1/jobs"
    try:
        answer = session.post(jobs, json=options, timeout=_SECONDS_TO_ANSWER)
    except requests.RequestException as error:
        raise UserError(
            f"`--submit` must be the address of a service that runs. "
            f"Received: {url}, which does not answer ({type(error).__name__})."
        ) from error
    if not answer.ok:
        raise UserError(f"{url} does not take the job: {_complaint(answer)}")
    try:
        job = f"{jobs}/{int(answer.json()['id'])}"
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            "`--submit` must be the address of this project's service. "
            f"Received: {url}, where something else answers."
        ) from error
    print(f"Submitted. Ctrl-C leaves it running; to stop it: curl -X POST {job}/cancel")
    state = _follow(session, job)
    print(f"The job: {state}.")
    return state == "succeeded"


def _follow(session: requests.Session, job: str) -> str:
    """Prints the log, from where it broke off, until the state of the end arrives."""
    last = "0"
    is_reached = True
    while True:
        try:
            for event in _events(session, f"{job}/logs", last):
                is_reached = True
                if event.name == "end":
                    return event.data
                print(event.data, flush=True)
                last = event.id
        except requests.RequestException as error:
            if is_reached:  # until now; it may be starting again
                print(
                    f"{job} does not answer ({type(error).__name__}); asking again.",
                    file=sys.stderr,
                )
            is_reached = False
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _events(session: requests.Session, url: str, last: str) -> Iterator[_Event]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
    with session.get(
        url, headers=headers, stream=True, timeout=_SECONDS_TO_ANSWER
    ) as answer:
        if HTTPStatus.BAD_REQUEST <= answer.status_code < 500:
            raise UserError(f"{url} cannot be followed: {_complaint(answer)}")
        answer.raise_for_status()
        fields: dict[str, str] = {}
        for line in map(bytes.decode, answer.iter_lines()):
            if line.startswith(":"):
                continue  # a sign of life
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                yield _Event(
                    fields.get("event", "message"),
                    fields.get("id", last),
                    fields.get("data", ""),
                )
                fields = {}


def _complaint(answer: requests.Response) -> str:
    """What a service says against a request, in one line."""
    try:
        detail = answer.json()["detail"]
        if isinstance(detail, str):
            return detail
        first = detail[0]
        field = ".".join(map(str, first["loc"][1:]))
        return f"{field}: {first['msg']}" if field else first["msg"]
    except (ValueError, TypeError, LookupError):  # some other server's
        return f"{answer.status_code} {answer.reason}."
