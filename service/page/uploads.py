"""Let callers of the page name files that were uploaded to it, and nothing else.

Gradio's events and routes take paths and URLs from anyone. Mounted in another
application, Gradio copies any file that a caller names into its cache, gives out what
is in the cache, and fetches URLs.
"""

import re
from http import HTTPStatus
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.state_holder import SessionState
from gradio.utils import get_upload_folder, is_in_or_equal
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# What the page asks for in a browser. After `file=`, a path begins with a slash and a
# URL does not.
_ROUTES = re.compile(
    r"/(config|favicon\.ico|login|logout|manifest\.json|robots\.txt|theme\.css)?"
    r"|/(assets|static)/.+"
    r"|/gradio_api/(app_id|queue/(data|join)|upload|upload_progress)"
    r"|/gradio_api/heartbeat/[^/]+"
    r"|/gradio_api/file=/.+"
)


class UploadsOnly(gr.Blocks):
    """A page whose events take no files but those that were uploaded to it.

    Args:
        options: Those of `gr.Blocks`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Gradio compares no path with its upload folder before this is set, and
        # `gr.mount_gradio_app` does not set it.
        self.has_launched = True

    async def preprocess_data(
        self,
        block_fn: BlockFunction,
        inputs: list[Any],
        state: SessionState | None,
        explicit_call: bool = False,
    ) -> list[Any]:
        """Return an event's inputs as its function takes them.

        Raises:
            gr.Error: If one of them names a file that was not uploaded.
        """
        checked = [self._checked(value) for value in inputs]
        return await super().preprocess_data(block_fn, checked, state, explicit_call)

    def _checked(self, value: Any) -> Any:
        """Return a value without URLs, if all files in it were uploaded."""
        if isinstance(value, list):
            return [self._checked(part) for part in value]
        if not isinstance(value, dict):
            return value
        if "path" in value and not self._is_upload(value["path"]):
            raise gr.Error(
                "`path` must be a file that was uploaded to this page. "
                f"Received: path={value['path']!r}. Upload it first.",
                print_exception=False,
            )
        # A browser adds the URL of its upload, which nothing here needs.
        return {
            name: self._checked(part) for name, part in value.items() if name != "url"
        }

    def _is_upload(self, path: Any) -> bool:
        # The upload folder may hold more than uploads, and a link may have taken the
        # place of one.
        return (
            isinstance(path, str)
            and path in self.upload_file_set
            and is_in_or_equal(path, get_upload_folder())
        )


class OwnRoutes:
    """Open only those routes of Gradio that the page itself uses.

    Some of the others fetch URLs or start events in other ways.

    Args:
        app: Gradio's application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that there is no such route."""
        if scope["type"] != "http" or _ROUTES.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
        else:
            detail = f"The page has no such route. Received: {scope['path']!r}."
            answer = JSONResponse({"detail": detail}, HTTPStatus.NOT_FOUND)
            await answer(scope, receive, send)
