"""Splits a camera's URL into what may be shown and what is secret, and puts both together again to connect. Pure.

Secret are: user and password, however they are written; every value of the query but those of a few harmless camera
parameters; and the rest of a path from where it names a user, password or token (`/user=admin_password=…`). Errors never
repeat any part of what was given.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import quote, unquote

import msgspec

from moodline.shared.camera import CameraAddress
from moodline.shared.camera_url_correction import corrected_url
from moodline.shared.errors import InvalidStreamError
from moodline.shared.streams import LIVE_SCHEMES, StreamSpec

__all__ = [
    "MASK",
    "URL_LIMIT",
    "CameraSecret",
    "RegisteredUrl",
    "camera_address",
    "checked_credentials",
    "corrected_url",
    "endpoint_of",
    "register_url",
]

URL_LIMIT: Final = 2048
MASK: Final = "***"
_CREDENTIAL_LIMIT: Final = 1024
_DEFAULT_PORTS: Final = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_HARMLESS: Final = frozenset(
    {
        "action",
        "camera",
        "camid",
        "ch",
        "channel",
        "chn",
        "codec",
        "compression",
        "fps",
        "framerate",
        "h",
        "height",
        "id",
        "inst",
        "media",
        "mode",
        "profile",
        "profileid",
        "proto",
        "protocol",
        "quality",
        "rate",
        "res",
        "resolution",
        "size",
        "stream",
        "streamid",
        "streamtype",
        "subtype",
        "track",
        "trackid",
        "transportmode",
        "type",
        "unicast",
        "video",
        "videocodec",
        "w",
        "width",
    }
)
_HARMLESS_VALUE = re.compile(r"[A-Za-z0-9_.,-]{0,16}", re.ASCII)
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}", re.ASCII)
_TELLING_PATH = re.compile(
    r"(user|usr|login|account|pass|pwd|pw|token|key|auth|secret|sig)[a-z0-9%._-]{0,12}(=|%3d)", re.IGNORECASE
)
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.ASCII | re.DOTALL)
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_DEVICE = re.compile(r"[0-9]{1,3}|/dev/(video[0-9]{1,3}|v4l/by-(id|path)/[A-Za-z0-9_.:+-]{1,200})", re.ASCII)
# Characters that may stand in a request as they are. Quotation marks are not among them: they would end a header's value.
_WIRE_SAFE: Final = "!#$%&'()*+,/:;=?@[]^_`{|}~"


class CameraSecret(msgspec.Struct, frozen=True):
    """The secret parts of a camera's URL; its `repr` shows nothing.

    Attributes:
        username, password: Decoded; None where there is none. A user name alone may be a token.
        target: Path and query as they go over the wire, where a part of them is secret; else None.
    """

    username: str | None = None
    password: str | None = None
    target: str | None = None

    def __repr__(self) -> str:
        return "CameraSecret()"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []

    @property
    def has_credentials(self) -> bool:
        """Return whether there is a user or a password."""
        return self.username is not None or self.password is not None


@dataclass(frozen=True, slots=True)
class RegisteredUrl:
    """A URL in its two parts: `url` is canonical and free of secrets; `secret` is None where nothing was secret.

    `hint` says what was corrected in what was given; "" when nothing was.
    """

    url: str
    secret: CameraSecret | None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class _Parts:
    """A URL taken apart. `path` begins with `/`; `query` has no `?`, and is None where there is none."""

    scheme: str
    host: str
    port: int
    userinfo: str = field(default="", repr=False)
    path: str = field(default="/", repr=False)
    query: str | None = field(default=None, repr=False)

    def url(self, target: str) -> str:
        if self.scheme == "device":
            return f"device://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{target}"

    @property
    def target(self) -> str:
        return self.path if self.query is None else f"{self.path}?{self.query}"


def register_url(given: str, *, username: str | None = None, password: str | None = None) -> RegisteredUrl:
    """Split what a user gave for a camera.

    Args:
        given: A URL of one of `LIVE_SCHEMES`. In it, special characters of user and password are percent-encoded.
        username: As a separate field, not encoded, instead of in the URL; empty and without a password: none.
        password: Likewise.

    Raises:
        InvalidStreamError: for field `url`, `username` or `password`; says what to do, and never repeats what was given.
    """
    given, hint = corrected_url(given)
    parts = _parse(given)
    user, word = _userinfo(parts.userinfo)
    if username is not None or password is not None:
        if user is not None or word is not None:
            _refuse("credentials are given twice: leave them out of the url, or out of username and password")
        user, word = checked_credentials(given, username, password)
    if parts.scheme == "device":
        return RegisteredUrl(parts.url(""), None, hint)
    shown = _masked(parts)
    if MASK in parts.target:
        _refuse(f"url holds {MASK}, which stands for a masked value; give the true one")
    target = None if shown == parts.target else _wire(parts.target)
    secret = CameraSecret(username=user, password=word, target=target)
    return RegisteredUrl(parts.url(shown), None if secret == CameraSecret() else secret, hint)


def camera_address(spec: StreamSpec, secret: CameraSecret | None) -> CameraAddress:
    """Return where a registered camera is and how to log in.

    Raises:
        InvalidStreamError: the stream's URL is none of a camera, or what was masked in it is missing.
    """
    parts = _parse(spec.url)
    secret = secret or CameraSecret()
    if secret.target is None and MASK in parts.target:
        _refuse("what is secret in the url is missing; change the stream's url to the whole one")
    return CameraAddress(
        scheme=parts.scheme,
        host=parts.host,
        port=parts.port,
        target=_wire(parts.target) if secret.target is None else secret.target,
        username=secret.username,
        password=secret.password,
        transport=spec.transport,
        tls_verify=spec.tls_verify,
    )


def checked_credentials(url: str, username: str | None, password: str | None) -> tuple[str | None, str | None]:
    """Return user name and password for a camera's URL, as they were given in separate fields.

    Raises:
        InvalidStreamError: for field `url`, `username` or `password`.
    """
    if (username or password is not None) and _parse(url).scheme == "device":
        _refuse("a device takes no user name and no password")
    if password is None or (username == "" and not password):
        return (_usable(username, "username") if username else None), None
    if username is None:
        raise InvalidStreamError("username", "a password needs its user name; give an empty one if the camera knows none")
    return _usable(username, "username"), _usable(password, "password")


def endpoint_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a camera's URL: who would get its password. Raises `InvalidStreamError`."""
    parts = _parse(url)
    return parts.scheme, parts.host, parts.port


def _parse(given: str) -> _Parts:
    if not 1 <= len(given) <= URL_LIMIT:
        _refuse(f"url must have 1 to {URL_LIMIT} characters")
    if "\\" in given or " " in given or not given.isprintable():
        _refuse("url holds a space, a backslash or a character that cannot be printed; percent-encode it")
    match = _SCHEME.fullmatch(given)
    scheme = match["scheme"].lower() if match else ""
    if match is None or scheme not in LIVE_SCHEMES:
        _refuse("a camera's url looks like rtsp://host/path, rtsps://, http://, https:// or device://0")
    if scheme == "device":
        return _device(match["rest"])
    authority = re.split(r"[/?#]", match["rest"], maxsplit=1)[0]
    rest = match["rest"][len(authority) :]
    if "@" in rest:
        _refuse(
            "url holds an @ after its host; percent-encode / ? # and @ in user and password (%2F %3F %23 %40), or give them "
            "in the fields username and password; write an @ of a path or query as %40"
        )
    if "#" in rest:
        _refuse("url holds a #; write it as %23")
    userinfo, _, place = authority.rpartition("@")
    host, port = _place(place)
    path, mark, query = rest.partition("?")
    return _Parts(scheme, host, port or _DEFAULT_PORTS[scheme], userinfo, path or "/", query if mark else None)


def _device(rest: str) -> _Parts:
    if not _DEVICE.fullmatch(rest):
        _refuse("a device's url looks like device://0 or device:///dev/video0")
    return _Parts("device", str(int(rest)) if rest.isdigit() else rest, 0)


def _place(place: str) -> tuple[str, int | None]:
    """Return host and port, None where it names no port."""
    if place.startswith("["):
        name, bracket, rest = place[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            _refuse("url has an IPv6 address that is not closed with ]")
        return _ipv6(name), _port(rest[1:]) if rest else None
    name, colon, port = place.partition(":")
    if ":" in port:
        _refuse("url has more than one : in its host; write an IPv6 address in brackets")
    return _host(name), _port(port) if colon else None


def _ipv6(name: str) -> str:
    try:
        address = ipaddress.IPv6Address(name)
    except ValueError:
        address = None
    if address is None or address.scope_id is not None:
        _refuse("url has no valid IPv6 address between its brackets; zone ids are not supported")
    return str(address)


def _host(name: str) -> str:
    if not name:
        _refuse("url names no host")
    try:
        ascii_name = (name if name.isascii() else name.encode("idna").decode("ascii")).lower()
    except UnicodeError:
        ascii_name = ""
    if len(ascii_name) > 254 or not _HOST.fullmatch(ascii_name):  # 253 and a final dot, RFC 1035
        _refuse("url has a host that is neither a name nor an address")
    return ascii_name


def _port(text: str) -> int:
    port = int(text) if _PORT.fullmatch(text) else 0
    if not 1 <= port <= 65_535:  # a port has 16 bits
        _refuse(
            "url has a port that is not a number from 1 to 65535; if it is a part of the password, percent-encode that, or use "
            "the fields username and password"
        )
    return port


def _userinfo(text: str) -> tuple[str | None, str | None]:
    if not text:
        return None, None
    user, colon, word = text.partition(":")
    return _decoded(user), _decoded(word) if colon else None


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        _refuse("url has a user name or password that is not UTF-8 once percent-decoded")
    return _usable(decoded, "url")


def _usable(text: str, name: str) -> str:
    if len(text) > _CREDENTIAL_LIMIT or re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text):
        raise InvalidStreamError(
            name, f"a user name or password has at most {_CREDENTIAL_LIMIT} characters and no control characters"
        )
    return text


def _masked(parts: _Parts) -> str:
    telling = _TELLING_PATH.search(parts.path)
    path = parts.path[: telling.end()] + MASK if telling else parts.path
    if parts.query is None:
        return path
    return f"{path}?{'&'.join(_masked_part(part) for part in parts.query.split('&'))}"


def _masked_part(part: str) -> str:
    key, equals, value = part.partition("=")
    if not part:
        return part
    if equals and key.lower() in _HARMLESS and _HARMLESS_VALUE.fullmatch(value):
        return part
    # A word that looks like a key may be a token in base64, which ends with =.
    return f"{key}={MASK}" if value.strip("=") and _KEY.fullmatch(key) else MASK


def _wire(target: str) -> str:
    return quote(target, safe=_WIRE_SAFE)


def _refuse(message: str) -> NoReturn:
    raise InvalidStreamError("url", message) from None
