"""The page's login: who has shown the token."""

import hmac
import re
import secrets
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service.guesses import TOO_MANY, WAIT, Guesses, address_of
from service.page.gates import refused

# What the form that asks for the token consists of.
_OPEN = re.compile(
    r"/(favicon\.ico|login|manifest\.json|robots\.txt|theme\.css)?|/(assets|static)/.+"
)
_MOST_LOGINS = 1000


class LoginFirst:
    """Answer nobody who has not logged in, but with the form for it.

    Gradio itself asks for a login at some of its routes.

    Args:
        app: What is behind it.
        page: Gradio's application, which knows who has logged in.
    """

    def __init__(self, app: ASGIApp, *, page: Any) -> None:
        self._app = app
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on or refuse it."""
        answer = self._app
        if scope["type"] == "http" and not _OPEN.fullmatch(scope["path"]):
            cookie = Request(scope).cookies.get(_cookie(self._page))
            if cookie not in self._page.tokens:
                answer = refused("Log in first, at /.", HTTPStatus.UNAUTHORIZED)
        await answer(scope, receive, send)


def login_route(page: Any, token: str, guesses: Guesses) -> Route:
    """Return the route that takes the token, to stand before Gradio's.

    Gradio's own refuses an empty user name.

    Args:
        page: Gradio's application, which knows who has logged in.
        token: What the password must be.
        guesses: Who has given wrong tokens.
    """

    async def login(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=10) as form:
            user, password = (str(form.get(n, "")) for n in ("username", "password"))
        client = address_of(request.scope)
        if not guesses.may(client):
            return refused(TOO_MANY, HTTPStatus.TOO_MANY_REQUESTS, WAIT)
        given = password.encode(errors="replace")
        if not hmac.compare_digest(given, token.encode()):
            guesses.note(client, "/login")
            return refused("Incorrect credentials.", HTTPStatus.BAD_REQUEST)
        while len(page.tokens) >= _MOST_LOGINS:
            del page.tokens[next(iter(page.tokens))]
        cookie = secrets.token_urlsafe()
        page.tokens[cookie] = user.strip()
        answer = JSONResponse({"success": True})
        answer.set_cookie(_cookie(page), cookie, httponly=True, samesite="lax")
        return answer

    return Route("/login", login, methods=["POST"])


def _cookie(page: Any) -> str:
    return f"access-token-unsecure-{page.cookie_id}"
