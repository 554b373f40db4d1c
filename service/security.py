"""Who may ask the service for what: hosts, origins, the token, the size of bodies."""

import asyncio
import functools
import hmac
import ipaddress
import re
from collections.abc import Sequence
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
_SECONDS_FOR_A_BODY = 60.0
_HOST = re.compile(r"([\w.-]+|\[[\da-fA-F:.]+\])(?::\d+)?", re.ASCII)


@functools.lru_cache
def is_loopback(host: str) -> bool:
    """Whether a host can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses requests before anything else sees them.

    Without a token only this machine can reach the service. What is left to keep out
    is web pages that a browser here has open: they cannot set the Host header, and do
    not hide where they come from in Origin. A name of their own that leads here (DNS
    rebinding) shows in Host.

    Args:
        app: The application behind it.
        loopback: Whether the service listens on loopback only.
        token: What job calls must show as `Authorization: Bearer`, if anything.
        jobs: The beginnings of the paths of job calls.
        max_job_bytes: The largest body of a job call.
        max_page_bytes: The largest body of a call to anything outside of /v1/.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        loopback: bool,
        token: str | None,
        jobs: Sequence[str],
        max_job_bytes: int,
        max_page_bytes: int,
    ) -> None:
        self._app = app
        self._loopback = loopback
        self._token = token
        self._jobs = tuple(jobs)
        self._max_job_bytes = max_job_bytes
        self._max_page_bytes = max_page_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers itself or passes the request on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_job = scope["path"].startswith(self._jobs)
        refusal = self._refusal(headers, is_job)
        if refusal is None:
            if is_job:
                receive = _limited(receive, self._max_job_bytes)
            elif not scope["path"].lower().startswith("/v1/"):
                receive = _limited(receive, self._max_page_bytes)
            # Predictions have limits of their own.
            await self._app(scope, receive, send)
        else:
            status, reason = refusal
            body = {"detail" if is_job else "error": reason}
            is_unknown = status is HTTPStatus.UNAUTHORIZED
            challenge = {"WWW-Authenticate": "Bearer"} if is_unknown else None
            await JSONResponse(body, status, challenge)(scope, receive, send)

    def _refusal(self, headers: Headers, is_job: bool) -> tuple[HTTPStatus, str] | None:
        host = headers.get("host", "")
        name = _HOST.fullmatch(host)
        if self._loopback and not (name and is_loopback(name[1].strip("[]"))):
            return (
                HTTPStatus.FORBIDDEN,
                f"The Host header must name this machine. Received: {host}.",
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return (
                HTTPStatus.FORBIDDEN,
                f"Pages of other sites may not call it. Received: Origin {origin}.",
            )
        if is_job and self._token is not None:
            given = headers.get("authorization", "").encode("latin-1")
            expected = f"Bearer {self._token}".encode()
            if not hmac.compare_digest(given, expected):
                return (
                    HTTPStatus.UNAUTHORIZED,
                    "Job calls need the header Authorization: Bearer TOKEN; "
                    "train.py --submit takes TOKEN from KERASNORM_TOKEN.",
                )
        return None


def _limited(receive: Receive, max_bytes: int) -> Receive:
    """Takes a body that is neither too large nor too slow."""
    deadline = asyncio.get_running_loop().time() + _SECONDS_FOR_A_BODY
    size = 0
    is_complete = False

    async def limited() -> Message:
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

    return limited
