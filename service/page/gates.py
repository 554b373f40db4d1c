"""What stands before Gradio: which of its routes are open, to whom and to how much."""

import json
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.security import limited

UPLOAD = "/gradio_api/upload"
_JOIN = "/gradio_api/queue/join"
# What the page asks for in a browser. After `file=`, a path begins with a slash and a
# URL does not.
_ROUTES = re.compile(
    r"/(config|favicon\.ico|login|logout|manifest\.json|robots\.txt|theme\.css)?"
    r"|/(assets|static)/.+"
    rf"|/gradio_api/(app_id|queue/data)|{UPLOAD}|{_JOIN}"
    r"|/gradio_api/heartbeat/[\w-]{1,64}"
    r"|/gradio_api/file=/.+",
    re.ASCII,
)
_SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
_MAX_EVENT_BYTES = 2**17
_MOST_VALUES = 1000  # of an event


class OwnRoutes:
    """Open only those routes of Gradio that the page itself uses.

    Some of the others fetch URLs or start events in other ways. But for uploads bodies
    are small.

    Args:
        app: Gradio's application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that there is no such route."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http" and _ROUTES.fullmatch(scope["path"]):
            if scope["path"] != UPLOAD:
                receive = limited(receive, _MAX_EVENT_BYTES)
            await self._app(scope, receive, send)
        else:
            message = f"The page has no such route. Received: {scope['path']!r}."
            answer = refused(message, HTTPStatus.NOT_FOUND)
            await answer(scope, receive, send)


class Admission:
    """Ask for each event whether its session may have another one.

    Args:
        app: Gradio's application.
        admit: Return whether a session of this name may have another event.
    """

    def __init__(
        self, app: ASGIApp, *, admit: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._app = app
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an event on or refuse it; pass on all that is no event."""
        if scope["type"] != "http" or scope["path"] != _JOIN:
            await self._app(scope, receive, send)
            return
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        except HTTPException as error:
            await refused(error.detail, error.status_code)(scope, receive, send)
            return
        session = None if _is_large(body) else _session(body)
        if session is None:
            answer = refused(
                f"An event must have at most {_MOST_VALUES:,} values, and a "
                "`session_hash` of 1 to 64 letters, digits, - or _.",
                HTTPStatus.BAD_REQUEST,
            )
        elif await self._admit(session):
            await self._app(scope, _replayed(body, receive), send)
            return
        else:
            answer = refused(
                "The session must read the answers to its events first.",
                HTTPStatus.TOO_MANY_REQUESTS,
            )
        await answer(scope, receive, send)


def refused(
    message: str, status: int, headers: dict[str, str] | None = None
) -> Response:
    """Return an answer in the form of Gradio's errors."""
    return JSONResponse({"detail": message}, status, headers)


def _is_large(body: bytes) -> bool:
    """Return whether a body may have too many values, before they take memory."""
    return sum(body.count(sign) for sign in (b",", b"[", b"{")) > _MOST_VALUES


def _session(body: bytes) -> str | None:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return None
    session = event.get("session_hash") if isinstance(event, dict) else None
    is_name = isinstance(session, str) and _SESSION.fullmatch(session)
    return session if is_name else None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that has been read, and then what comes."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
