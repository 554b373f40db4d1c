"""Who may ask the service for what: hosts, origins, the token, the size of bodies.

Each is an ASGI middleware of its own that refuses a request or passes it on.
"""

import asyncio
import functools
import hmac
import ipaddress
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.guesses import TOO_MANY, WAIT, Guesses, address_of
from service.log import log_refusal
from training.errors import printable

LOOPBACK = "127.0.0.1"
_SECONDS_FOR_A_BODY = 60.0
_HOST = re.compile(r"([\w.-]+|\[[\da-fA-F:.]+\])(?::\d*)?", re.ASCII)


@functools.lru_cache
def is_loopback(host: str) -> bool:
    """Return whether a host can only be reached from this machine.

    Names of hosts are the same in capitals, and with a dot at their end.
    """
    if host.lower().removesuffix(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if address.version == 6 else None
    return (mapped or address).is_loopback


def protect(
    app: Starlette,
    *,
    host: str,
    token: str | None,
    guesses: Guesses,
    jobs: Sequence[str],
    max_job_bytes: int,
    max_page_bytes: int,
) -> None:
    """Refuse requests before anything else of the application sees them.

    Without a token only this machine can reach the service. What is left to keep out
    is web pages that a browser here has open: they cannot set the Host header, and
    cannot hide in Origin where they come from. A name of their own that leads here
    (DNS rebinding) shows in Host.

    Args:
        app: The application. A middleware that is added later comes first.
        host: Where the service listens.
        token: What job calls must show as `Authorization: Bearer`, if anything.
        guesses: Who has given wrong tokens.
        jobs: The beginnings of the paths of job calls.
        max_job_bytes: The largest body of a job call.
        max_page_bytes: The largest body of a call to anything outside of /v1/.
    """
    jobs = tuple(jobs)
    app.add_middleware(
        BodyLimit, jobs=jobs, max_job_bytes=max_job_bytes, max_page_bytes=max_page_bytes
    )
    if token is not None:
        app.add_middleware(BearerToken, jobs=jobs, token=token, guesses=guesses)
    app.add_middleware(OwnOrigin, jobs=jobs)
    if is_loopback(host):
        app.add_middleware(LoopbackHost, jobs=jobs)


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused."""

    status: HTTPStatus
    reason: str
    headers: dict[str, str] | None = None


class _Gate(ABC):
    """A middleware that answers a request itself if it finds a reason to refuse it.

    Args:
        app: The application behind it.
        jobs: The beginnings of the paths of job calls, whose refusals have the form of
            FastAPI's; all others have TensorFlow Serving's.
    """

    def __init__(self, app: ASGIApp, *, jobs: tuple[str, ...]) -> None:
        self._app = app
        self._jobs = jobs

    @abstractmethod
    def refusal(self, headers: Headers, scope: Scope, is_job: bool) -> Refusal | None:
        """Return the reason to refuse a request, if there is one."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass the request on."""
        answer = self._app
        if scope["type"] in ("http", "websocket"):
            is_job = scope["path"].startswith(self._jobs)
            if refusal := self.refusal(Headers(scope=scope), scope, is_job):
                reason = printable(refusal.reason)
                log_refusal(
                    f"{scope.get('method', 'WebSocket')} {scope['path']} is refused "
                    f"with {refusal.status}: {reason}"
                )
                body = {"detail" if is_job else "error": reason}
                answer = JSONResponse(body, refusal.status, refusal.headers)
        await answer(scope, receive, send)


class LoopbackHost(_Gate):
    """Take requests to this machine only, by an address or name of loopback.

    No browser sends HTTP/1.0 without Host, as health checks do.
    """

    def refusal(self, headers: Headers, scope: Scope, is_job: bool) -> Refusal | None:
        """Look at Host."""
        hosts = headers.getlist("host")
        if not hosts and scope.get("http_version") == "1.0":
            return None
        host = ", ".join(hosts)  # several match nothing
        name = _HOST.fullmatch(host)
        if name and is_loopback(name[1].strip("[]")):
            return None
        return Refusal(
            HTTPStatus.FORBIDDEN,
            f"The Host header must name this machine. Received: {host}.",
        )


class OwnOrigin(_Gate):
    """Take requests of the service's own pages, and of programs."""

    def refusal(self, headers: Headers, scope: Scope, is_job: bool) -> Refusal | None:
        """Compare Origin with Host."""
        origin = headers.get("origin")
        host = headers.get("host", "")
        if origin is None:
            return None
        if host and origin.partition("://")[2].lower() == host.lower():
            return None
        return Refusal(
            HTTPStatus.FORBIDDEN,
            f"Pages of other sites may not call it. Received: Origin {origin}.",
        )


class BearerToken(_Gate):
    """Take job calls that show the token only, and few guesses at it.

    Args:
        app: The application behind it.
        jobs: The beginnings of the paths of job calls.
        token: The token.
        guesses: Who has given wrong tokens.
    """

    def __init__(
        self, app: ASGIApp, *, jobs: tuple[str, ...], token: str, guesses: Guesses
    ) -> None:
        super().__init__(app, jobs=jobs)
        self._expected = token.strip(" ").encode()
        self._guesses = guesses

    def refusal(self, headers: Headers, scope: Scope, is_job: bool) -> Refusal | None:
        """Look at Authorization: the scheme in capitals or not, spaces, the token."""
        if not is_job:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if given:
            client = address_of(scope)
            if not self._guesses.may(client):
                return Refusal(HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY, WAIT)
            is_token = hmac.compare_digest(
                given.strip(" ").encode("latin-1"), self._expected
            )
            if scheme.lower() == "bearer" and is_token:
                return None
            self._guesses.note(client, "a job call")
        return Refusal(
            HTTPStatus.UNAUTHORIZED,
            "Job calls need the header Authorization: Bearer TOKEN; "
            "train.py --submit takes TOKEN from KERASNORM_TOKEN.",
            {"WWW-Authenticate": "Bearer"},
        )


class BodyLimit:
    """End the reading of a body that is too large or too slow.

    Predictions have limits of their own.

    Args:
        app: The application behind it.
        jobs: The beginnings of the paths of job calls.
        max_job_bytes: The largest body of a job call.
        max_page_bytes: The largest body of a call to anything outside of /v1/.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        jobs: tuple[str, ...],
        max_job_bytes: int,
        max_page_bytes: int,
    ) -> None:
        self._app = app
        self._jobs = jobs
        self._max_job_bytes = max_job_bytes
        self._max_page_bytes = max_page_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a body that is limited."""
        if scope["type"] in ("http", "websocket"):
            if scope["path"].startswith(self._jobs):
                receive = limited(receive, self._max_job_bytes)
            elif not scope["path"].lower().startswith("/v1/"):
                receive = limited(receive, self._max_page_bytes)
        await self._app(scope, receive, send)


def limited(receive: Receive, max_bytes: int) -> Receive:
    """Return a `receive` that ends the reading of a body that is too large or too slow.

    It then raises an HTTPException.
    """
    deadline = asyncio.get_running_loop().time() + _SECONDS_FOR_A_BODY
    size = 0
    is_complete = False

    async def receive_limited() -> Message:
        nonlocal size, is_complete
        if is_complete:  # what comes now is the end of the connection
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(
                HTTPStatus.REQUEST_TIMEOUT,
                f"The body must arrive within {_SECONDS_FOR_A_BODY:.0f} seconds.",
            ) from error
        size += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if size > max_bytes:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The body must have at most {max_bytes:,} bytes.",
            )
        return message

    return receive_limited
