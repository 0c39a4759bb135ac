"""What happens around every request: measuring, refusing other sites' pages, and limiting bodies."""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.errors import error_response
from shared.clock import Clock
from shared.metrics import Metrics
from shared.settings import ApiSettings

BODY_LIMIT_BYTES: Final = 1024 * 1024
_READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS: Final = frozenset({*_READING_METHODS, "POST", "PUT", "PATCH", "DELETE"})


class Measure:
    """Times every request by route template, and marks answers as not to be stored by caches unless they say otherwise."""

    def __init__(self, app: ASGIApp, metrics: Metrics, clock: Clock) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = self._clock.monotonic_s(), 500

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            labels = (_route_template(scope), method, f"{status // 100}xx")
            self._metrics.http_seconds.labels(*labels).observe(self._clock.monotonic_s() - started)


def _route_template(scope: Scope) -> str:
    """Return e.g. `/api/v1/streams/{stream_id}`; a path as sent would make as many series as there are streams."""
    return getattr(scope.get("route"), "path", "unmatched")


class SameSite:
    """Keeps web pages of other sites from using a browser on this machine to reach the API, which asks for no password.

    A change that a page of another origin sends is refused. While the API listens on loopback only, so is a request under a
    host name that is not this machine's, which is how DNS rebinding looks. Address literals cannot be rebound.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._loopback_only = _is_loopback(settings.host)
        self._names = {"localhost", urlsplit(settings.url).hostname}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(scope) if scope["type"] in ("http", "websocket") else None
        if problem is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            # Closed before it is accepted, the handshake is answered with 403.
            await send({"type": "websocket.close", "code": 1008, "reason": problem})
        else:
            await error_response("forbidden", problem)(scope, receive, send)

    def _problem(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._loopback_only and not self._is_ours(_split_host(host)):
            return "the API listens on this machine only and does not answer under this host name; see MOODLINE_API_URL"
        # Browsers let a page of any site open a web socket and read it, so for these every origin counts.
        reads = scope["type"] == "http" and scope["method"] in _READING_METHODS
        if origin is not None and not reads and _netloc(origin) != host:
            return "a page of another site may not change anything here"
        return None

    def _is_ours(self, name: str) -> bool:
        return not name or name in self._names or _is_address(name)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _split_host(header: str) -> str:
    """Return the host of a `Host` header without port and brackets, or the header itself where it is none."""
    try:
        return urlsplit(f"//{header}").hostname or header
    except ValueError:
        return header


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


class LimitBody:
    """Refuses bodies over the limit, announced or not, before they are held in memory."""

    def __init__(self, app: ASGIApp, limit_bytes: int = BODY_LIMIT_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._limit_bytes:
            message = f"the body is larger than {self._limit_bytes} bytes"
            await error_response("body_too_large", message)(scope, receive, send)
            return
        received = 0

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit_bytes:
                raise HTTPException(413)
            return message

        await self._app(scope, limited_receive, send)
