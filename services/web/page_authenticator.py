"""Asks for a session in front of the page: nobody gets a page, a script or a web socket of it before a session.

The sign-in page is three small files without any page engine, so that it costs nothing whoever asks for it.
"""

from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from moodline.services.api.context import context_of
from moodline.services.api.errors import error_response, refuse
from moodline.services.web.policy import Scripts
from moodline.services.web.words import sign_in_path
from moodline.shared.errors import MoodlineError, RateLimitedError, UnauthorizedError

SIGN_IN: Final = "/sign-in"
_STATIC: Final = Path(__file__).parent / "static"
_FREE: Final = {
    SIGN_IN: ("sign_in.html", "text/html; charset=utf-8"),
    f"{SIGN_IN}/sign_in.js": ("sign_in.js", "text/javascript; charset=utf-8"),
    f"{SIGN_IN}/moodline.css": ("moodline.css", "text/css; charset=utf-8"),
    "/favicon.ico": ("favicon.svg", "image/svg+xml"),
}
"""The paths that need no session."""
_SIGN_IN_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'"
)
_WAITING_LIMIT: Final = 64
"""Pages that were built and whose browser has not opened its web socket yet; each holds its elements in memory."""


class PageAuthenticator:
    """ASGI application in front of the page's own."""

    def __init__(self, page: ASGIApp) -> None:
        self._page = Scripts(page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._page(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] == "http" and (path in _FREE or _is_page(path)) and scope["method"] not in ("GET", "HEAD"):
            answer = error_response("method_not_allowed", f"{scope['method']} is not possible here")
            answer.headers["allow"] = "GET, HEAD"
            await answer(scope, receive, send)
            return
        if scope["type"] == "http" and path in _FREE:
            await _answered(_free(path), scope, receive, send)
            return
        connection: HTTPConnection = WebSocket(scope, receive, send) if scope["type"] == "websocket" else Request(scope)
        try:
            _require_own_page(connection)
            ctx = context_of(connection)
            caller = await ctx.authenticator.identify(connection)
            limit, who = ctx.settings.quotas.requests_per_key, f"requests of key {caller.name}"
            with ctx.concurrency.hold(who, limit):
                if _is_page(path) and scope.get("method") == "HEAD":
                    # Nothing is built for who only asks whether the page is there.
                    await Response(media_type="text/html; charset=utf-8")(scope, receive, send)
                    return
                if _is_page(path):
                    _require_room()
                await self._page(_without_prefix(scope), receive, send)
        except UnauthorizedError as error:
            if _is_page(path) and scope["type"] == "http":
                await RedirectResponse(sign_in_path(path), 303)(scope, receive, send)
            else:
                await refuse(connection, error, receive, send)
        except _Foreign:
            answer = error_response("forbidden", "a page of another site may not embed this one")
            await answer(scope, receive, send)
        except MoodlineError as error:
            await refuse(connection, error, receive, send)


class _Foreign(Exception):  # noqa: N818 - it is not an error of ours
    """Another site's page asks for something of ours as a part of itself."""


def _require_own_page(connection: HTTPConnection) -> None:
    """Raise `_Foreign` for what another site's page loads as picture, script or frame; following a link is no such thing."""
    headers = connection.headers
    if headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
        return
    if headers.get("sec-fetch-mode") != "navigate" or headers.get("sec-fetch-dest") in ("iframe", "frame", "embed", "object"):
        raise _Foreign


def _is_page(path: str) -> bool:
    return path == "/" or path.startswith("/streams/")


def _require_room() -> None:
    """Raise `RateLimitedError` where many pages were asked for by something that is no browser."""
    from nicegui import Client

    waiting = sum(not client.has_socket_connection for client in Client.instances.values())
    if waiting >= _WAITING_LIMIT:
        raise RateLimitedError("many pages are being opened; try again in a moment", _RETRY_S)


_RETRY_S: Final = 5


def _without_prefix(scope: Scope) -> Scope:
    """Return the scope without the header by which NiceGUI lets a sender put a path into its page."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-prefix"]
    return {**scope, "headers": headers}


async def _answered(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an answer; to HEAD without its body."""

    async def without_body(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    await answer(scope, receive, without_body if scope["method"] == "HEAD" else send)


@cache
def _free(path: str) -> Response:
    name, kind = _FREE[path]
    headers = {"content-security-policy": _SIGN_IN_POLICY, "cache-control": "no-cache"}
    return Response((_STATIC / name).read_bytes(), media_type=kind, headers=headers)
