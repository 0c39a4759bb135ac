"""HTTP's own rules for answers that routes need not know: HEAD, validators (RFC 9110), and compression."""

import hashlib
import re
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware, IdentityResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moodline.services.api import PREFIX

_OWN: Final = (f"{PREFIX}/", "/openapi.json", "/metrics", "/docs")
"""Paths of the API; those of the page are its own business."""
_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
_DIGEST_BYTES: Final = 9
_ONE_PACKET: Final = 1400
_LEVEL: Final = 5
_INCOMPRESSIBLE: Final = (
    *DEFAULT_EXCLUDED_CONTENT_TYPES,
    "image/*",
    "multipart/x-mixed-replace",
    "application/vnd.apache.parquet",
)
_KEPT_WITHOUT_BODY: Final = frozenset({b"etag", b"cache-control", b"vary", b"date", b"content-location", b"expires"})


def _is_ours(scope: Scope) -> bool:
    return bool(scope["type"] == "http" and scope["path"].startswith(_OWN))


class Head:
    """Answers HEAD as GET, without the body. An answer that would go on without end is ended after its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (not _is_ours(scope) and scope.get("path") not in ("/healthz", "/readyz")) or scope.get("method") != "HEAD":
            await self._app(scope, receive, send)
            return
        is_sent = False

        async def without_body(message: Message) -> None:
            nonlocal is_sent
            if message["type"] == "http.response.body":
                if not is_sent:
                    is_sent = True
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            elif not is_sent:
                await send(message)

        async def until_sent() -> Message:
            return {"type": "http.disconnect"} if is_sent else await receive()

        # The same scope: what the router writes into it is read by who measures.
        scope["method"] = "GET"
        try:
            await self._app(scope, until_sent, without_body)
        finally:
            scope["method"] = "HEAD"


class Conditional:
    """Gives answers of GET an `ETag`, and answers 304 where the client has that one already.

    The tag is a digest of the content. Where a route gave one that names a revision, the digest follows it, because more than
    the revision may have changed: `"3-tk2m…"`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_ours(scope) or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        wanted = Headers(scope=scope).getlist("if-none-match")
        held: Message | None = None

        async def validated(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_whole(message):
                held = message
                return
            if held is not None and message["type"] == "http.response.body":
                start, held = held, None
                if not message.get("more_body", False):
                    message = _validate(start, message, ",".join(wanted))
                await send(start)
            await send(message)

        await self._app(scope, receive, validated)


def _is_whole(start: Message) -> bool:
    """Return whether an answer has all of its content in one piece."""
    return bool(start["status"] == 200 and "content-length" in Headers(scope=start))


def _validate(start: Message, body: Message, wanted: str) -> Message:
    """Give an answer its tag, in place; make it a 304 where that tag is among the wanted ones. Return the body."""
    headers = MutableHeaders(scope=start)
    digest = hashlib.blake2b(body.get("body", b""), digest_size=_DIGEST_BYTES).hexdigest()
    given = _TAG.fullmatch(headers.get("etag", ""))
    tag = f"{given[2]}-{digest}" if given else digest
    headers["etag"] = f'"{tag}"'
    if wanted.strip() != "*" and tag not in {found for _, found in _TAG.findall(wanted)}:
        return body
    start["status"] = 304
    start["headers"] = [(name, value) for name, value in start["headers"] if name.lower() in _KEPT_WITHOUT_BODY]
    return {"type": "http.response.body", "body": b"", "more_body": False}


class Compress(GZipMiddleware):
    """Compresses answers that are larger than a packet for clients that take it. The tag of such an answer is a weak one.

    Part of the server, not of the application: whoever asks the application in process wants no compression.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, minimum_size=_ONE_PACKET, compresslevel=_LEVEL, exclude_content_types=_INCOMPRESSIBLE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_ours(scope):
            await self.app(scope, receive, send)
            return

        async def weakened(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                tag = headers.get("etag", "")
                if "content-encoding" in headers and tag.startswith('"'):
                    headers["etag"] = f"W/{tag}"
            await send(message)

        if _takes_gzip(Headers(scope=scope)):
            await super().__call__(scope, receive, weakened)
        else:
            plain = IdentityResponder(self.app, self.minimum_size, exclude_content_types=self.exclude_content_types)
            await plain(scope, receive, send)


def _takes_gzip(headers: Headers) -> bool:
    for part in ",".join(headers.getlist("accept-encoding")).split(","):
        coding, _, quality = part.replace(" ", "").lower().partition(";q=")
        if coding == "gzip":
            return quality.strip("0.") != "" or not quality
    return False
