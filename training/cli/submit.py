"""`train.py --submit URL`: run the job at a service and follow it from here."""

import sys
import time
from collections.abc import Iterator
from http import HTTPStatus

import httpx
from httpx_sse import ServerSentEvent, connect_sse

from training.cli.command_line import token_of_environment
from training.config import TrainConfig
from training.errors import UserError, printable

_SECONDS_TO_ANSWER = 30
SECONDS_BETWEEN_TRIES = 1.0


def submit(url: str, config: TrainConfig) -> bool:
    """Submit a job and print its log until it has ended.

    Ask again while the service does not answer.

    Args:
        url: The address of the service, as `http://localhost:8501`.
        config: The options of the job. Only those that are set are sent; the service
            has its own defaults.

    Returns:
        Whether the job succeeded.

    Raises:
        UserError: If the service does not take the job.
    """
    token = token_of_environment()
    headers = {b"Authorization": f"Bearer {token}".encode()} if token else {}
    with httpx.Client(
        headers=headers, timeout=_SECONDS_TO_ANSWER, follow_redirects=True
    ) as client:
        return _submit(client, url, config)


def _submit(client: httpx.Client, url: str, config: TrainConfig) -> bool:
    options = config.model_dump(mode="json", exclude_unset=True)
    jobs = f"{url.rstrip('/')}/v1/jobs"
    try:
        answer = client.post(jobs, json=options)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"`--submit` must be the address of a service that runs. "
            f"Received: {url}, which does not answer ({type(error).__name__})."
        ) from error
    if not answer.is_success:
        raise UserError(f"{url} does not take the job: {_complaint(answer)}")
    try:
        job = f"{jobs}/{int(answer.json()['id'])}"
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            "`--submit` must be the address of this project's service. "
            f"Received: {url}, where something else answers."
        ) from error
    print(f"Submitted. Ctrl-C leaves it running; to stop it: curl -X POST {job}/cancel")
    state = _follow(client, job)
    print(f"The job: {printable(state)}.")
    return state == "succeeded"


def _follow(client: httpx.Client, job: str) -> str:
    """Print the log, from where it broke off, until the job ends; return its state."""
    last = "0"
    is_reached = True
    while True:
        try:
            for event in _events(client, f"{job}/logs", last):
                is_reached = True
                if event.event == "end":
                    return event.data
                # httpx-sse also gives an event for a comment, the sign of life.
                if event.id != last:
                    lines = map(printable, event.data.split("\n"))
                    print(*lines, sep="\n", flush=True)
                    last = event.id
        except httpx.HTTPError as error:
            if is_reached:  # until now; it may be starting again
                print(
                    f"{job} does not answer ({type(error).__name__}); asking again.",
                    file=sys.stderr,
                )
            is_reached = False
        time.sleep(SECONDS_BETWEEN_TRIES)


def _events(client: httpx.Client, url: str, last: str) -> Iterator[ServerSentEvent]:
    with connect_sse(client, "GET", url, headers={"Last-Event-ID": last}) as source:
        status = source.response.status_code
        if source.response.is_client_error and status != HTTPStatus.TOO_MANY_REQUESTS:
            source.response.read()
            raise UserError(f"{url} cannot be followed: {_complaint(source.response)}")
        source.response.raise_for_status()
        yield from source.iter_sse()


def _complaint(answer: httpx.Response) -> str:
    """Return why the service refuses a request, in one line."""
    try:
        detail = answer.json()["detail"]
        if isinstance(detail, str):
            return detail
        first = detail[0]
        field = ".".join(map(str, first["loc"][1:]))
        return f"{field}: {first['msg']}" if field else first["msg"]
    except (ValueError, TypeError, LookupError):  # some other server's
        return f"{answer.status_code} {answer.reason_phrase}."
