"""Let callers of the page name files that were uploaded to it, and nothing else.

Gradio's events take paths and URLs from anyone. Mounted in another application, Gradio
copies any file that a caller names into its cache, and fetches URLs. Its own routes for
uploads and files let callers choose names and leave behind what was not finished.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.state_holder import SessionState
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from service.page.folder import MEDIA_TYPES, Folder
from training.errors import UserError

_MOST_UPLOADS = 8  # at a time
_MOST_SESSIONS = 64  # whose values and answers are kept
_MOST_UNREAD = 16  # events of a session whose answers it has not read
_MOST_WAITING = 64  # events of all sessions
# Whatever a picture holds, it runs nothing.
_HARMLESS = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
}


class UploadsOnly(gr.Blocks):
    """A page whose events take no files but those that were uploaded to it.

    Args:
        folder: Where they are kept, with the pictures that the page shows.
        options: Those of `gr.Blocks`.
    """

    def __init__(self, folder: Folder, **options: Any) -> None:
        super().__init__(**options)
        self.folder = folder
        # Gradio compares no path with its upload folder before this is set, and
        # `gr.mount_gradio_app` does not set it.
        self.has_launched = True
        self.state_session_capacity = _MOST_SESSIONS
        self.queue(max_size=_MOST_WAITING)

    async def admit(self, session: str) -> bool:
        """Return whether a session may have another event; the oldest make room.

        Gradio keeps the name of each session, and answers until they are read.
        """
        queue = self._queue
        sessions = queue.pending_event_ids_session
        if len(sessions.get(session, ())) >= _MOST_UNREAD:
            return False
        sessions[session] = sessions.pop(session, set())  # the newest is the last
        for oldest in list(sessions)[:-_MOST_SESSIONS]:
            await queue.clean_events(session_hash=oldest)
            sessions.pop(oldest, None)
            queue.pending_messages_per_session.pop(oldest, None)
        return True

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
        try:
            return await super().preprocess_data(
                block_fn, checked, state, explicit_call
            )
        finally:
            # Gradio keeps them for links to a state of the page, which are closed.
            for config in state.config_values.values() if state else ():
                config.get("props", {})["value"] = None

    async def postprocess_data(
        self, block_fn: BlockFunction, predictions: Any, state: SessionState | None
    ) -> list[Any]:
        """Return an event's outputs for the browser; older pictures make room."""
        outputs = await super().postprocess_data(block_fn, predictions, state)
        await self._make_room()
        return outputs

    async def keep(self, content: bytes) -> str:
        """Keep an uploaded picture and return its name.

        Raises:
            UserError: If it is no picture that the page takes.
        """
        path = str(await asyncio.to_thread(self.folder.add, content))
        self.upload_file_set.add(path)
        await self._make_room()
        return path

    async def _make_room(self) -> None:
        removed = await asyncio.to_thread(self.folder.trim)
        for files in self.temp_file_sets:
            files.difference_update(removed)

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
        # A link may have taken its place.
        return (
            isinstance(path, str)
            and path in self.upload_file_set
            and self.folder.find(path) is not None
        )


def routes(blocks: UploadsOnly) -> list[Route]:
    """Return the routes that take and give pictures, to stand before Gradio's."""
    under_way = 0

    @contextlib.contextmanager
    def counted() -> Iterator[None]:
        nonlocal under_way
        if under_way >= _MOST_UPLOADS:
            raise HTTPException(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"The page takes {_MOST_UPLOADS} uploads at a time. Try again.",
                {"Retry-After": "1"},
            )
        under_way += 1
        try:
            yield
        finally:
            under_way -= 1

    async def upload(request: Request) -> Response:
        with counted():
            async with request.form(max_files=1, max_fields=1) as form:
                file = form.get("files")
                if file is None or isinstance(file, str):
                    return _refused("An upload must have one file, `files`.")
                try:
                    return JSONResponse([await blocks.keep(await file.read())])
                except UserError as error:
                    return _refused(str(error))
                except OSError as error:
                    message = f"The picture cannot be kept: {error.strerror}."
                    return _refused(message, HTTPStatus.INSUFFICIENT_STORAGE)

    async def file(request: Request) -> Response:
        path = blocks.folder.find(request.path_params["path"])
        if path is None:
            return _refused("The page has no such picture.", HTTPStatus.NOT_FOUND)
        media_type = MEDIA_TYPES[path.suffix]
        return FileResponse(path, media_type=media_type, headers=_HARMLESS)

    return [
        Route("/gradio_api/upload", upload, methods=["POST"]),
        Route("/gradio_api/file={path:path}", file, methods=["GET"]),
    ]


def _refused(
    message: str, status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY
) -> Response:
    return PlainTextResponse(message, status)
