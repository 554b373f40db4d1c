"""What is answered and logged where a call is refused or goes wrong."""

import sqlite3
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exception_handlers import (
    http_exception_handler,
    request_validation_exception_handler,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.log import log_error, log_refusal
from training.errors import UserError, printable


async def _refused(request: Request, error: Any) -> Response:
    error.detail = printable(str(error.detail))
    _log(request, error.status_code, error.detail)
    return await http_exception_handler(request, error)


async def _not_valid(request: Request, error: Any) -> Response:
    if not isinstance(error.__cause__, UserError):  # whose refusal is in the log
        what = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        _log(request, HTTPStatus.UNPROCESSABLE_ENTITY, what)
    return await request_validation_exception_handler(request, error)


async def _cannot_be_kept(request: Request, error: Exception) -> Response:
    log_error(f"{request.method} {request.url.path} needs the table of jobs.", error)
    message = printable(f"The table of jobs cannot be used now: {error}.")
    return JSONResponse({"detail": message}, HTTPStatus.INSUFFICIENT_STORAGE)


Handler = Callable[[Request, Exception], Awaitable[Response]]
HANDLERS: dict[type[Exception], Handler] = {
    HTTPException: _refused,
    RequestValidationError: _not_valid,
    sqlite3.DatabaseError: _cannot_be_kept,
}


class Unexpected:
    """Log an error that nobody expected, with its traceback, which no client sees.

    Args:
        app: The application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def sent(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception as error:
            if has_begun:  # uvicorn logs it and ends the connection
                raise
            log_error(f"{scope['method']} {scope['path']} went wrong.", error)
            said = "Something unexpected went wrong; the service's log has it."
            answer = JSONResponse(
                {"detail": said, "error": said}, HTTPStatus.INTERNAL_SERVER_ERROR
            )
            await answer(scope, receive, send)


def _log(request: Request, status: int, reason: str) -> None:
    log_refusal(
        f"{request.method} {request.url.path} is refused with {status}: {reason}"
    )
