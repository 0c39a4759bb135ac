"""What users write for a camera, taken apart: an address that may be shown, and what is secret in it.

All of the user information is secret (a user name may be a token), and so is every value of the query whose key is not known to
be harmless. An error never repeats any part of what was given.
"""

import re
import unicodedata
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from shared.camera import CameraAddress
from shared.errors import InvalidStreamError
from shared.streams import LIVE_SCHEMES, StreamSpec

URL_LIMIT: Final = 2048
MASK: Final = "***"
DEFAULT_PORTS: Final = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}

HARMLESS_KEYS: Final = frozenset(
    {
        *("camera", "channel", "codec", "compression", "fps", "height", "profile", "proto", "resolution", "stream", "streamtype"),
        *("subtype", "transportmode", "unicast", "videocodec", "width"),
    }
)
"""Keys of queries whose values are shown: what the common makes of cameras use to choose a picture."""

_HARMLESS_VALUE = re.compile(r"[A-Za-z0-9_.x-]{0,16}", re.ASCII)
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,252})", re.ASCII)
_DEVICE = re.compile(r"(?:[0-9]|[1-5][0-9]|6[0-3])|/dev/[A-Za-z0-9/_.-]{1,128}", re.ASCII)
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\\\u2028\u2029\ud800-\udfff]")


class CameraSecret(msgspec.Struct, frozen=True):
    """What is secret of a camera's URL. `target`: path and query with the secrets in them, None where the shown one is whole."""

    username: str | None = None
    password: str | None = None
    target: str | None = None

    def __repr__(self) -> str:
        return "CameraSecret(…)"


class RegisteredUrl(NamedTuple):
    """A camera's URL as it is kept: `url` may be shown to anybody; `secret` is None where nothing is."""

    url: str
    secret: CameraSecret | None


class _Parts(NamedTuple):
    scheme: str
    userinfo: str | None
    host: str
    port: int
    target: str

    def shown(self, target: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{target}"


def register_url(given: str, *, username: str | None = None, password: str | None = None) -> RegisteredUrl:
    """Take a camera's URL apart.

    Args:
        given: A URL of one of `LIVE_SCHEMES`.
        username: User where the URL has none, as it is, not percent-encoded.
        password: Password where the URL has none, as it is.

    Raises:
        InvalidStreamError: for field `url`; its message holds nothing of what was given.
    """
    _check_text(given)
    scheme = given.partition(":")[0].lower()
    if scheme == "device":
        return RegisteredUrl(f"device://{_device_of(given, username, password)}", None)
    parts = _split(given, scheme)
    in_url = _credentials(parts.userinfo)
    if in_url is not None and (username is not None or password is not None):
        raise _refuse("credentials are both in the url and beside it; give them once")
    user, word = in_url or (username, password)
    shown = _masked(parts.target)
    secret = CameraSecret(user, word, None if shown == parts.target else parts.target)
    return RegisteredUrl(parts.shown(shown), None if secret == CameraSecret() else secret)


def camera_address(spec: StreamSpec, secret: CameraSecret | None) -> CameraAddress:
    """Return a registered camera's whole address.

    Raises:
        InvalidStreamError: the registered URL is no camera's, or what was masked in it is missing.
    """
    scheme = spec.url.partition(":")[0]
    if scheme == "device":
        return CameraAddress(scheme, _device_of(spec.url, None, None), 0)
    parts, secret = _split(spec.url, scheme), secret or CameraSecret()
    target = parts.target if secret.target is None else secret.target
    if secret.target is None and f"={MASK}" in target:
        raise _refuse("what is secret in the url is lost; change the stream's url to the whole one")
    return CameraAddress(
        scheme=scheme,
        host=parts.host,
        port=parts.port,
        target=target,
        username=secret.username,
        password=secret.password,
        transport=spec.transport,
        tls_verify=spec.tls_verify,
    )


def same_host(one: str, other: str) -> bool:
    """Say whether two registered URLs lead to the same scheme, host and port, so that credentials of one fit the other."""
    try:
        first, second = (_split(url, url.partition(":")[0]) for url in (one, other))
    except InvalidStreamError:
        return False
    return first[0] == second[0] and first[2:4] == second[2:4]


def _check_text(given: str) -> None:
    if not given or len(given) > URL_LIMIT or _UNSAFE.search(given):
        raise _refuse(f"url must have 1 to {URL_LIMIT} characters, without spaces, backslashes and control characters")


def _split(given: str, scheme: str) -> _Parts:
    if scheme not in DEFAULT_PORTS or not given[len(scheme) :].startswith("://"):
        raise _refuse(f"a camera's url begins with {', '.join(f'{known}://' for known in LIVE_SCHEMES)}")
    rest = given[len(scheme) + 3 :]
    authority, target = re.match(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]  # matches anything
    if "@" in target:
        # Perhaps a password with / ? or # in it: taken at its word, a part of it would be shown as host or path.
        raise _refuse(
            "there is an @ after the url's host; percent-encode it there as %40, and / ? # @ in user or password as "
            "%2F %3F %23 %40, or give user and password beside the url"
        )
    if "#" in target:
        raise _refuse("a camera's url has no fragment; percent-encode # as %23, or give user and password beside the url")
    userinfo, at, host_port = authority.rpartition("@")
    host, port = _host_and_port(host_port, scheme)
    path, question, query = target.partition("?")
    return _Parts(scheme, userinfo if at else None, host, port, (path or "/") + question + query)


def _host_and_port(text: str, scheme: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _refuse("the url's host or port is not well-formed; ports are 1 to 65535") from None
    if text.endswith(":") or port == 0:
        raise _refuse("the url's port must be 1 to 65535")
    return _checked_host(host), port or DEFAULT_PORTS[scheme]


def _checked_host(host: str) -> str:
    if ":" in host:
        if re.fullmatch(r"[0-9a-f:.]{2,45}", host):
            return host
        raise _refuse("the url's IPv6 address is not well-formed, or has a zone, which is only for link-local addresses")
    try:
        name = unicodedata.normalize("NFKC", host).encode("idna").decode("ascii").lower() if not host.isascii() else host.lower()
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name) or ".." in name:
        raise _refuse("the url has no host, or one that no name can be")
    return name


def _credentials(userinfo: str | None) -> tuple[str, str | None] | None:
    """Return user and password, decoded; a colon in the password stays in it."""
    if userinfo is None:
        return None
    user, colon, word = userinfo.partition(":")
    decoded = unquote(user), unquote(word) if colon else None
    if any(part and re.search(r"[\x00-\x1f\x7f\ufffd]", part) for part in decoded):
        raise _refuse("user and password may hold no control characters and must be percent-encoded UTF-8")
    return decoded


def _masked(target: str) -> str:
    path, question, query = target.partition("?")
    if not question:
        return target
    return path + question + "&".join(_masked_pair(pair) for pair in query.split("&"))


def _masked_pair(pair: str) -> str:
    key, equals, value = pair.partition("=")
    if not pair:
        return pair
    if not equals:
        # A word of its own may be a token.
        return pair if pair.lower() in HARMLESS_KEYS else MASK
    if key.lower() in HARMLESS_KEYS and _HARMLESS_VALUE.fullmatch(value):
        return pair
    # A key that is long or odd may be part of a token with = in it.
    return f"{key if re.fullmatch(r'[A-Za-z_][A-Za-z0-9_.-]{0,15}', key) else MASK}={MASK}"


def _device_of(given: str, username: str | None, password: str | None) -> str:
    _, _, name = given.partition("://")
    if not _DEVICE.fullmatch(name) or ".." in name:
        raise _refuse("a device is device://0 to device://63, or device:///dev/video0")
    if username or password:
        raise _refuse("a device has no user and no password")
    return name


def _refuse(message: str) -> InvalidStreamError:
    return InvalidStreamError("url", message)
