"""The page's content security policy: scripts are those that this server wrote into the page, and nothing comes from elsewhere.

NiceGUI writes inline scripts, so each page gets a number used once, which is put into its script tags. Its browser part evaluates
text that comes over the web socket, so `unsafe-eval` has to stay; the text is this server's own.
"""

import secrets
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob: mediastream:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'"
)
_PERMISSIONS: Final = "camera=(self), microphone=(), geolocation=(), payment=(), usb=()"
_NONCE_BYTES: Final = 16


class Scripts:
    """ASGI middleware that gives every HTML answer its policy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        document = _Document(send)
        headers = scope["headers"]
        if any(name == b"accept" and b"text/html" in value for name, value in headers):
            # It is changed on its way, so it must come as it is.
            headers = [(name, value) for name, value in headers if name != b"accept-encoding"]
        await self._app({**scope, "headers": headers}, receive, document.send)


class _Document:
    """One answer. HTML is held until its end."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_html(message):
            self._start = message
        elif self._start is None or message["type"] != "http.response.body":
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        body = bytes(self._body).replace(b"<script", f'<script nonce="{nonce}"'.encode())
        headers = MutableHeaders(scope=start)
        headers["content-length"] = str(len(body))
        headers["content-security-policy"] = _POLICY.format(nonce=nonce)
        headers["permissions-policy"] = _PERMISSIONS
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _is_html(start: Message) -> bool:
    headers = MutableHeaders(scope=start)
    return headers.get("content-type", "").startswith("text/html") and "content-encoding" not in headers
