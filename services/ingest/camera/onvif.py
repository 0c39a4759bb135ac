"""ONVIF: which streams a camera offers, and where. `onveef` writes the requests and reads the answers; the network is ours.

A camera's answer is judged before it is used: its length is limited, XML entities are refused, and no address in it is followed
to another host than the one that was asked, so that nobody else gets the log-in.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import h11
from onveef import envelopes, parsers

from moodline.services.ingest.camera.http.client import HttpConnection, HttpResponse
from moodline.services.ingest.camera.http.location import Location
from moodline.services.ingest.camera.input.authentication import Login, best_challenge
from moodline.services.ingest.camera.input.egress import Egress, close_quietly
from moodline.shared.camera import CameraAddress
from moodline.shared.camera_url import corrected_url, endpoint_of, register_url
from moodline.shared.errors import InvalidStreamError, SourceError
from moodline.shared.streams import FailureReason

DEVICE_SERVICE: Final = "/onvif/device_service"
ENOUGH_PX: Final = 360
"""A shorter side with which faces of a room can be read."""
_ANSWER_LIMIT_BYTES: Final = 1024 * 1024
_PROFILES_LIMIT: Final = 32
_TEXT_LIMIT: Final = 64
_SIDE_LIMIT_PX: Final = 32_768
_CONTENT_TYPE: Final = "application/soap+xml; charset=utf-8"
_DENIED: Final = ("notauthorized", "not authorized", "unauthorized", "sender not authorized", "authority failure")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Profile:
    """One stream that a camera offers.

    Attributes:
        name: The camera's name for it.
        codec: As the camera writes it, such as `H264`; "" where it does not say.
        width, height: In px; 0 where it does not say.
        fps: Most frames per second; None where it does not say.
        url: Where it is, without user and password; "" when the camera gives no usable address.
        is_masked: `***` stands in `url` for what may be a secret.
        note: What is to be known of the address; "" when nothing.
    """

    name: str
    codec: str
    width: int
    height: int
    fps: int | None
    url: str
    is_masked: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """A camera. Texts are the camera's own, printable and short; `clock_off_s` is how far its clock is ahead, if it tells."""

    maker: str
    model: str
    firmware: str
    clock_off_s: float | None
    profiles: tuple[Profile, ...]


def device_address(given: str, username: str | None, password: str | None) -> CameraAddress:
    """Return the address of a camera's device service from a host, `host:port` or URL.

    Raises:
        InvalidStreamError: what was given is none of these.
    """
    url = given.strip()
    if "://" not in url:
        url = f"http://{url}"
    registered = register_url(corrected_url(url)[0], username=username, password=password)
    scheme, host, port = endpoint_of(registered.url)
    secret = registered.secret
    if scheme not in ("http", "https"):
        # The port of RTSP says nothing of the port of ONVIF.
        scheme, port = "http", 80
    target = urlsplit(registered.url).path
    return CameraAddress(
        scheme=scheme,
        host=host,
        port=port,
        target=DEVICE_SERVICE if target in ("", "/") or not registered.url.startswith("http") else target,
        username=secret.username if secret else None,
        password=secret.password if secret else None,
    )


def read_device(address: CameraAddress, egress: Egress, timeout_s: float) -> Device:
    """Ask a camera what it is and which streams it offers. Blocks.

    Args:
        address: Of its device service.
        egress: Judges and opens the connections.
        timeout_s: For each request.

    Raises:
        SourceError: `auth`, `corrupt`, `too_large`, `timeout`, `unreachable` or `forbidden_url`.
    """
    client = _Client(address, egress, timeout_s)
    client.learn_clock()
    media, is_second = client.media_service()
    about = client.ask(address.target, envelopes.device_get_information(), parsers.parse_device_information)
    found = client.ask(media, envelopes.media_get_profiles(use_media2=is_second), parsers.parse_profiles)
    if not found:
        raise SourceError(FailureReason.NO_VIDEO, "the camera offers no profiles over ONVIF")
    profiles = tuple(client.profile(media, each, is_second=is_second) for each in found[:_PROFILES_LIMIT])
    texts = (_text(about.get(name, "")) for name in ("Manufacturer", "Model", "FirmwareVersion"))
    return Device(*texts, client.clock_off_s, profiles)


def best_profile(profiles: tuple[Profile, ...], enough_px: int = ENOUGH_PX) -> Profile | None:
    """Return the smallest stream that is large enough, else the largest: decoding costs by the pixel, and faces need few."""
    usable = [profile for profile in profiles if profile.url and profile.width and profile.height]
    enough = [profile for profile in usable if min(profile.width, profile.height) >= enough_px]
    if enough:
        return min(enough, key=_area)
    return max(usable, key=_area, default=None) or next((profile for profile in profiles if profile.url), None)


def _area(profile: Profile) -> int:
    return profile.width * profile.height


class _Client:
    """Asks one camera; each request has a connection of its own."""

    def __init__(self, address: CameraAddress, egress: Egress, timeout_s: float) -> None:
        self._address = address
        self._egress = egress
        self._timeout_s = timeout_s
        self._login = None if address.username is None else Login(address.username, address.password or "")
        self.clock_off_s: float | None = None

    def learn_clock(self) -> None:
        """Note the camera's clock: it refuses log-ins whose time is far from its own."""
        xml = self._post(self._address.target, envelopes.device_get_system_date_time(), with_login=False)
        told = _parsed(parsers.parse_system_datetime, xml).get("UTCDateTime") or {}
        fields = [told.get(name) for name in ("year", "month", "day", "hour", "minute", "second")]
        try:
            moment = datetime(*(int(field) for field in fields), tzinfo=UTC)  # type: ignore[misc, arg-type]
        except (TypeError, ValueError, OverflowError):
            return
        self.clock_off_s = moment.timestamp() - time.time()

    def media_service(self) -> tuple[str, bool]:
        """Return the path of the service that lists profiles, and whether it is the second version."""
        target = self._address.target
        services = self._try(target, envelopes.device_get_services(), parsers.parse_services)
        if not services.get("media2") and not services.get("media"):
            services = self._try(target, envelopes.device_get_capabilities(), parsers.parse_capabilities)
        # The first version is what every camera has, and has the better-tried firmware.
        named, is_second = (services["media"], False) if services.get("media") else (services.get("media2", ""), True)
        return self._path_of(named) or "/onvif/media_service", is_second and bool(named)

    def profile(self, media: str, told: dict[str, Any], *, is_second: bool) -> Profile:
        """Return one stream with its address."""
        encoder = told.get("video_encoder") or {}
        body = envelopes.media_get_stream_uri(profile_token=str(told.get("token", "")), use_media2=is_second)
        try:
            uri = self.ask(media, body, parsers.parse_stream_uri)
        except SourceError as error:
            if error.reason is FailureReason.AUTH:
                raise
            uri = ""
        url, is_masked, note = self._shown(uri)
        fps = encoder.get("fps_limit")
        return Profile(
            name=_text(told.get("name") or told.get("token") or ""),
            codec=_text(encoder.get("encoding", "")),
            width=_side(encoder.get("width")),
            height=_side(encoder.get("height")),
            fps=fps if isinstance(fps, int) and 0 < fps <= 1000 else None,
            url=url,
            is_masked=is_masked,
            note=note,
        )

    def ask(self, target: str, body: str, parse: Callable[[str], Result]) -> Result:
        """Ask with log-in, and return what is understood. Raises `SourceError`."""
        xml = self._post(target, body, with_login=True)
        fault = _parsed(parsers.parse_fault, xml)
        if fault:
            raise _fault_error(fault)
        return _parsed(parse, xml)

    def _try(self, target: str, body: str, parse: Callable[[str], dict[str, str]]) -> dict[str, str]:
        try:
            return self.ask(target, body, parse)
        except SourceError as error:
            # Old firmware knows one of the two requests alone.
            if error.reason is not FailureReason.CORRUPT:
                raise
            return {}

    def _shown(self, uri: str) -> tuple[str, bool, str]:
        """Return a stream's address as it may be shown, whether a part of it is masked, and what is to be known of it."""
        if not uri:
            return "", False, "the camera gives no address for it"
        try:
            shown = register_url(uri).url
            scheme, host, port = endpoint_of(shown)
        except InvalidStreamError:
            return "", False, "the camera gives an address for it that makes no sense"
        if scheme not in ("rtsp", "rtsps", "http", "https"):
            return "", False, "the camera gives an address for it that makes no sense"
        note = ""
        if host != self._address.host:
            # Behind a router a camera knows only its inner address; and no stranger's address is worth a log-in.
            path = shown.partition("://")[2].partition("/")[2]
            ours = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
            shown = register_url(f"{scheme}://{ours}:{port}/{path.replace('***', 'MASKED')}").url.replace("MASKED", "***")
            note = "the camera names another address; the one that was asked stands here"
        return shown, "***" in shown, note

    def _path_of(self, named: str) -> str:
        """Return the path of a service's address; its host may be anything, and is not asked."""
        try:
            parts = urlsplit(named)
        except ValueError:
            return ""
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return path if path.startswith("/") and path.isascii() and path.isprintable() and " " not in path else ""

    def _post(self, target: str, body: str, *, with_login: bool) -> str:
        deadline_s = time.monotonic() + self._timeout_s
        envelope = envelopes.build_envelope(
            body,
            username=(self._address.username or "") if with_login else "",
            password=self._address.password or "",
            clock_offset_s=self.clock_off_s or 0.0,
        ).encode()
        response, connection = self._exchange(target, envelope, deadline_s)
        if response.status_code == 401 and with_login and self._login is not None:
            challenges = [value.decode("latin-1") for name, value in response.headers if name == b"www-authenticate"]
            challenge = best_challenge(challenges)
            if challenge is not None:
                connection.close()
                self._login.accept(challenge)
                response, connection = self._exchange(target, envelope, deadline_s)
        try:
            return self._text_of(response, connection, target, deadline_s)
        finally:
            connection.close()

    def _text_of(self, response: h11.Response, connection: HttpConnection, target: str, deadline_s: float) -> str:
        if response.status_code in (401, 403):
            raise _denied()
        if response.status_code == 404:
            raise SourceError(FailureReason.NOT_FOUND, "nothing answers to ONVIF at the camera's address and port")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        location = Location(self._address.scheme, self._address.host, self._address.port, target)
        answer = HttpResponse(connection, location, response.status_code, headers)
        return answer.read_all(_ANSWER_LIMIT_BYTES, deadline_s).decode("utf-8", "replace")

    def _exchange(self, target: str, envelope: bytes, deadline_s: float) -> tuple[h11.Response, HttpConnection]:
        address = self._address
        connected = self._egress.connect(address.host, address.port, self._timeout_s)
        if address.scheme == "https":
            try:
                connected = self._egress.wrap_tls(connected, address.host, verify=address.tls_verify)
            except SourceError:
                close_quietly(connected)
                raise
        connection = HttpConnection(connected, (address.scheme, address.host, address.port))
        headers = [
            ("Host", address.netloc),
            ("User-Agent", "Moodline"),
            ("Content-Type", _CONTENT_TYPE),
            ("Content-Length", str(len(envelope))),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        login = None if self._login is None else self._login.header("POST", target)
        if login is not None:
            headers.append(("Authorization", login))
        try:
            return connection.request(target, headers, deadline_s, envelope), connection
        except SourceError:
            connection.close()
            raise


def _parsed(parse: Callable[[str], Result], xml: str) -> Result:
    """Return what an answer says. Raises `SourceError` `corrupt`: it is no XML, or has entities or numbers that are refused."""
    try:
        if parsers.parse_xml(xml) is None:
            raise _senseless()
        return parse(xml)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError, AttributeError):
        raise _senseless() from None


def _fault_error(fault: str) -> SourceError:
    said = fault.lower()
    if any(word in said for word in _DENIED):
        return _denied()
    return SourceError(FailureReason.CORRUPT, "the camera refuses what ONVIF asks it")


def _denied() -> SourceError:
    return SourceError(FailureReason.AUTH, "the camera does not accept the user name and password for ONVIF, or wants some")


def _senseless() -> SourceError:
    return SourceError(FailureReason.CORRUPT, "the camera's answer is no ONVIF")


def _side(value: object) -> int:
    return value if isinstance(value, int) and 0 < value <= _SIDE_LIMIT_PX else 0


def _text(value: object) -> str:
    """Return what a camera writes, without what a terminal would act on."""
    return "".join(character if character.isprintable() else "?" for character in str(value)[:_TEXT_LIMIT])
