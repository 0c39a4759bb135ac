"""Middleware of all requests: metrics, refusal of requests from other sites' pages, limits on bodies."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moodline.services.api import PREFIX
from moodline.services.api.errors import error_response
from moodline.services.auth.origins import host_name, is_address, is_loopback, is_own_page, names_of, origins_of
from moodline.shared.clock import Clock
from moodline.shared.metrics import Metrics
from moodline.shared.settings import ApiSettings

BODY_LIMIT_BYTES: Final = 1024 * 1024
_OWN_LIMITS: Final = re.compile(rf"{PREFIX}/(uploads|classify|streams/[^/]+/frames)")
"""Routes that read their bodies piece by piece, with limits of their own."""
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
    """Keeps web pages of other sites from using a visitor's browser to reach the API, which may ask for no key.

    A change that a page of another origin sends is refused, unless that origin is allowed by a setting. Where no key may be asked
    for, so is a request under a host name that nobody has set, which is how DNS rebinding looks. Address literals cannot be
    rebound.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._may_be_open = settings.access == "open" or (settings.access == "auto" and is_loopback(settings.host))
        self._names = {"localhost", urlsplit(settings.url).hostname, *names_of(settings.hosts)}
        self._origins = origins_of(settings.cors_origins)

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
        if self._may_be_open and not self._is_ours(host_name(headers.get("host", ""))):
            return (
                "the API may be used without a key here, so it does not answer under this host name: add it to "
                "MOODLINE_API_HOSTS, or ask for keys"
            )
        # Browsers let a page of any site open a web socket and read it, so for these every origin counts.
        reads = scope["type"] == "http" and scope["method"] in _READING_METHODS
        if not reads and not is_own_page(headers) and not self._is_allowed(headers["origin"]):
            return "a page of another site may not change anything here"
        return None

    def _is_allowed(self, origin: str) -> bool:
        return origin in self._origins or "*" in self._origins

    def _is_ours(self, name: str) -> bool:
        return not name or name in self._names or is_address(name)


class SecurityHeaders:
    """Adds headers that tell browsers to do nothing with an answer but read it, unless the answer has its own as the page does.

    It is not shown in a frame, not taken for another type, and no address of ours goes to other sites.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, guarded_send)


_SECURITY_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Cors(CORSMiddleware):
    """Lets pages of the origins that are set use the API with a key of their own; cookies do not count for them."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=sorted(_METHODS - {"HEAD", "OPTIONS"}),
            allow_headers=["authorization", "captured-at", "content-type", "if-match", "if-none-match", "last-event-id"],
            expose_headers=["etag", "location", "next-cursor", "retry-after"],
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        return answer if answer.status_code < 400 else error_response("forbidden", "pages of this site may not use the API so")


class LimitBody:
    """Refuses bodies over the limit, announced or not, before they are held in memory."""

    def __init__(self, app: ASGIApp, limit_bytes: int = BODY_LIMIT_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _OWN_LIMITS.fullmatch(scope.get("path", "")):
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
