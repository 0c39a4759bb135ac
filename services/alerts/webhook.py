"""Sending one webhook: signed, to a checked address, without following redirects.

The signature is HMAC-SHA256, keyed with the rule's secret, over the time of sending, a full stop and the body:

    Moodline-Signature: t=1777636800,v1=<hex of HMAC-SHA256(secret, "1777636800." + body)>

Because the time is signed, a receiver that refuses old times cannot be fooled with a recorded request.
"""

import contextlib
import hmac
import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from moodline.shared.errors import InvalidRuleError, WebhookError
from moodline.shared.net_policy import NetPolicy, net_policy_of
from moodline.shared.settings import AlertsSettings

SIGNATURE_HEADER: Final = "Moodline-Signature"
EVENT_HEADER: Final = "Moodline-Event-Id"
TOLERANCE_S: Final = 300
URL_LIMIT: Final = 2048
_GONE: Final = 410
_PORTS: Final = {"http": 80, "https": 443}
_SIGNATURE: Final = re.compile(r"t=(\d{1,15}),v1=([0-9a-f]{64})", re.ASCII)
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
_LOCAL: Final = frozenset({"localhost"})

Resolver = Callable[[str, int], Sequence[str]]
"""Returns a host's addresses as text. May block; raises `OSError` when there are none."""


class Target(NamedTuple):
    """The parts of a webhook's URL."""

    scheme: str
    host: str
    port: int
    path: str


class Sender(Protocol):
    """Delivers a body."""

    def send(self, url: str, secret: str, body: bytes, event_id: str, now_s: float) -> None:
        """Deliver, or raise `WebhookError`: reason `gone` for what will never be taken, another where a later try may help."""
        ...


def sign(secret: str, body: bytes, now_s: float) -> str:
    """Return the value of the signature's header."""
    sent_s = int(now_s)
    return f"t={sent_s},v1={_digest(secret, sent_s, body)}"


def is_signed(secret: str, body: bytes, header: str, now_s: float, tolerance_s: int = TOLERANCE_S) -> bool:
    """Say whether a body came from who knows the secret, within `tolerance_s` of now. What a receiver does."""
    found = _SIGNATURE.fullmatch(header)
    if found is None or abs(now_s - int(found[1])) > tolerance_s:
        return False
    return hmac.compare_digest(found[2], _digest(secret, int(found[1]), body))


def _digest(secret: str, sent_s: int, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{sent_s}.".encode() + body, sha256).hexdigest()


def checked_target(url: str, policy: NetPolicy) -> Target:
    """Take a webhook's URL apart.

    Raises:
        InvalidRuleError: for field `webhook_url`; never repeats the URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if parts.scheme not in _PORTS or not host or len(url) > URL_LIMIT or not _VISIBLE.fullmatch(url):
        raise InvalidRuleError("webhook_url", "webhook_url is a URL such as https://example.org/hook, in ASCII")
    if parts.username is not None or parts.password is not None:
        raise InvalidRuleError("webhook_url", "webhook_url may not have a user name or password; every call is signed")
    if port == 0:
        raise InvalidRuleError("webhook_url", "webhook_url has no usable port")
    refusal = None
    # Any other name is judged by what it resolves to, whenever it is called.
    with contextlib.suppress(ValueError):
        refusal = policy.refusal(ipaddress.ip_address("127.0.0.1" if host.rstrip(".").lower() in _LOCAL else host))
    if refusal is not None:
        raise InvalidRuleError("webhook_url", f"webhook_url names an address that webhooks may not reach here: {refusal}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], path)


def shown_url(url: str) -> str:
    """Return a webhook's URL for people: what may be a secret in it is masked."""
    parts = urlsplit(url)
    rest = "/***" if parts.path.strip("/") or parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{rest}"


def webhook_policy(settings: AlertsSettings) -> NetPolicy:
    """Return which addresses webhooks may reach. Raises `SettingsError` where the networks are not written as such."""
    return net_policy_of(
        "http,https",
        settings.webhook_allow_loopback,
        settings.webhook_allow_networks,
        settings.webhook_deny_networks,
        allow_private=settings.webhook_allow_private,
        variable="MOODLINE_ALERTS_WEBHOOK",
    )


class HttpSender:
    """Implements `Sender`. A name is resolved once per delivery; only an address that was judged is connected to."""

    def __init__(self, policy: NetPolicy, timeout_s: float, *, resolver: Resolver | None = None) -> None:
        self._policy = policy
        self._timeout_s = timeout_s
        self._resolver = resolver or _resolve

    def send(self, url: str, secret: str, body: bytes, event_id: str, now_s: float) -> None:
        try:
            target = checked_target(url, self._policy)
        except InvalidRuleError:
            raise WebhookError("forbidden", "the address may not be reached by webhooks") from None
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "moodline",
            "Connection": "close",
            EVENT_HEADER: event_id,
            SIGNATURE_HEADER: sign(secret, body, now_s),
        }
        try:
            status = self._post(target, body, headers)
        except TimeoutError:
            raise WebhookError("timeout", "no answer in time") from None
        except ssl.SSLError:
            raise WebhookError("tls", "the TLS handshake fails, or the certificate is not trusted") from None
        except (OSError, http.client.HTTPException):
            raise WebhookError("unreachable", "the connection fails, breaks or takes too long") from None
        if status == _GONE:
            raise WebhookError("gone", "the receiver says that it is gone (410)")
        if not 200 <= status < 300:
            raise WebhookError("status", f"the receiver answered with status {status}; redirects are not followed")

    def _post(self, target: Target, body: bytes, headers: dict[str, str]) -> int:
        """Return the answer's status. Its body is of no interest."""
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.default_port = _PORTS[target.scheme]
        with self._connect(target) as plain, plain.dup() as guarded:
            # Time-outs are per read; whoever answers one byte at a time must not hold us either.
            too_late = threading.Event()
            timer = threading.Timer(self._timeout_s, _cut, (guarded, too_late))
            timer.start()
            try:
                connection.sock = plain if target.scheme == "http" else _with_tls(plain, target.host)
                connection.request("POST", target.path, body, headers)
                status = connection.getresponse().status
                if too_late.is_set():
                    # What was cut off may look like an answer.
                    raise TimeoutError
                return status
            finally:
                timer.cancel()
                connection.close()

    def _connect(self, target: Target) -> socket.socket:
        try:
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in self._resolver(target.host, target.port)]
        except (OSError, UnicodeError):
            raise WebhookError("unreachable", "the host's name is not known") from None
        allowed = [address for address in found if self._policy.refusal(address) is None]
        if not allowed:
            raise WebhookError("forbidden", "the host's address may not be reached by webhooks (MOODLINE_ALERTS_WEBHOOK_ALLOW_*)")
        return socket.create_connection((str(allowed[0]), target.port), self._timeout_s)


def _with_tls(plain: socket.socket, host: str) -> ssl.SSLSocket:
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def _cut(connected: socket.socket, too_late: threading.Event) -> None:
    too_late.set()
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _resolve(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
