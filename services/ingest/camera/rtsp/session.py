"""One RTSP session (RFC 2326): DESCRIBE, SETUP of one video track, PLAY, keep-alive, TEARDOWN."""

import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from moodline.services.ingest.camera.input.authentication import Login
from moodline.services.ingest.camera.input.egress import Egress
from moodline.services.ingest.camera.rtsp.connection import Connection
from moodline.services.ingest.camera.rtsp.locations import clean_url, control_url, redirected
from moodline.services.ingest.camera.rtsp.sdp import Description, parse_sdp
from moodline.services.ingest.camera.rtsp.wire import Response
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

REDIRECTS_MAX: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 305, 307, 308})
_CONNECTIONS: Final = 3
_OTHERWISE: Final = frozenset({400, 404, 405, 451, 454, 455, 456, 457, 459, 460})
"""Refusals of a request that may be put otherwise: with another URL, or without a range."""
_DEFAULT_TIMEOUT_S: Final = 60
_TEARDOWN_S: Final = 0.2
_OPTIONS_S: Final = 2.0
"""Some cameras never answer OPTIONS; nothing depends on it."""
_UNANSWERED_PLAY_S: Final = 0.5
"""Some cameras never answer PLAY; media says that they play."""
_SESSION = re.compile(r"[!-:<-~]{1,256}")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_REFUSED: Final = {
    401: (FailureReason.AUTH, "the camera refuses the user name or password, or needs them"),
    403: (FailureReason.AUTH, "the camera does not allow this user to watch"),
    404: (FailureReason.NOT_FOUND, "the camera has nothing at this path"),
    410: (FailureReason.NOT_FOUND, "the camera has nothing at this path any more"),
    454: (FailureReason.NOT_FOUND, "the camera has nothing at this path"),
    406: (FailureReason.CODEC, "the camera cannot describe its media in a way that is understood"),
    415: (FailureReason.CODEC, "the camera cannot describe its media in a way that is understood"),
    408: (FailureReason.TIMEOUT, "the camera says that a request took too long"),
    461: (FailureReason.UNREACHABLE, "the camera does not send over this transport: set `transport` to the other, tcp or udp"),
}


@dataclass(frozen=True, slots=True)
class Described:
    """A connection on which a camera has described its media; `base` is what its tracks' URLs build on."""

    connection: Connection
    description: Description
    url: str
    base: str
    keep_alive: str


def describe(address: CameraAddress, egress: Egress, deadline_s: float) -> Described:
    """Connect and ask what there is, through redirects. Raises `SourceError`; leaves nothing open then."""
    origin: str | None = None
    for _ in range(REDIRECTS_MAX + 1):
        connection, keep_alive, response = _described(address, egress, deadline_s, origin)
        try:
            if response.status not in _REDIRECTS:
                require_success(response)
                base = clean_url(response.header("content-base")) or clean_url(response.header("content-location"))
                base = base or address.plain_url
                description = parse_sdp(response.body, over_tls=address.scheme == "rtsps")
                return Described(connection, description, address.plain_url, base, keep_alive)
            moved = redirected(address, response.header("location"), egress.policy.schemes)
        except BaseException:
            connection.close()
            raise
        connection.close()
        origin, address = address.host, moved
    raise SourceError(FailureReason.UNREACHABLE, "the camera redirects too often")


class Session:
    """A session whose track is set up."""

    def __init__(self, described: Described) -> None:
        self.described = described
        self.connection = described.connection
        self.aggregate_url = control_url(described.base, described.description.control)
        self._id: str | None = None
        self._keep_alive_s = _DEFAULT_TIMEOUT_S / 2
        self._next_keep_alive_s = 0.0

    def setup(self, transport: str, deadline_s: float) -> str:
        """Set the track up; return the answer's `Transport` header, "" without one."""
        response = self._first_accepted("SETUP", [(url, {"Transport": transport}) for url in self._track_urls()], deadline_s)
        name, _, rest = (response.header("session") or "").partition(";")
        self._id = name.strip() if _SESSION.fullmatch(name.strip()) else None
        found = re.search(r"timeout\s*=\s*([0-9]{1,6})", rest, re.IGNORECASE)
        self._keep_alive_s = max(int(found[1]) if found else _DEFAULT_TIMEOUT_S, 2) / 2
        return response.header("transport") or ""

    def play(self, deadline_s: float, media_comes: Callable[[], bool]) -> None:
        """Start the media. Media that comes although PLAY is not answered is as good as an answer."""
        headers = self._headers()
        begin = headers | {"Range": "npt=0.000-"}
        # Some know no ranges, some want the track's URL, and some the one that was described.
        tries = [(self.aggregate_url, begin), (self.aggregate_url, headers)]
        tries += [(url, headers) for url in (self._track_urls()[0], self.described.url)]
        asked_s = time.monotonic()

        def plays() -> bool:
            return time.monotonic() - asked_s >= _UNANSWERED_PLAY_S and media_comes()

        self._first_accepted("PLAY", tries, deadline_s, plays)
        self._next_keep_alive_s = time.monotonic() + self._keep_alive_s

    def keep_alive(self, now_s: float) -> None:
        """Tell the camera that we still watch, when it is time to."""
        if now_s >= self._next_keep_alive_s:
            self._next_keep_alive_s = now_s + self._keep_alive_s
            self.connection.send(self.described.keep_alive, self.aggregate_url, self._headers())

    def answered(self, response: Response) -> None:
        """Take the answer to a keep-alive. A refusal ends nothing: some cameras refuse it, and go on to send."""
        if response.status == 401 and self.connection.challenge(response):
            self.connection.send(self.described.keep_alive, self.aggregate_url, self._headers())

    def teardown(self) -> None:
        """Say good-bye without waiting for an answer. Raises nothing."""
        try:
            self.connection.socket.settimeout(_TEARDOWN_S)
            self.connection.send("TEARDOWN", self.aggregate_url, self._headers())
        except (SourceError, OSError):
            # It is over either way.
            pass

    def _track_urls(self) -> list[str]:
        """Return where the track may be: first as the standard says, then as some servers resolve it."""
        described = self.described
        control = described.description.track.control
        if control in ("", "*"):
            return [self.aggregate_url, described.url]
        return [control_url(described.base, control), control_url(described.url, control), described.url]

    def _first_accepted(
        self,
        method: str,
        tries: Sequence[tuple[str, dict[str, str]]],
        deadline_s: float,
        will_do: Callable[[], bool] | None = None,
    ) -> Response:
        """Request until it is not refused any more for its URL or headers. Raises the first refusal as `SourceError`."""
        refusal: Response | None = None
        sent: list[tuple[str, dict[str, str]]] = []
        for url, headers in tries:
            if (url, headers) in sent:
                continue
            sent.append((url, headers))
            response = self.connection.request(method, url, headers, deadline_s, will_do)
            if response.status not in _OTHERWISE:
                break
            refusal = refusal or response
        if response.status >= 300:
            response = refusal or response
        require_success(response)
        return response

    def _headers(self) -> dict[str, str]:
        return {} if self._id is None else {"Session": self._id}


def require_success(response: Response) -> None:
    """Raise the `SourceError` that a refusal stands for; its text is ours alone."""
    if 200 <= response.status < 300:
        return
    reason, message = _REFUSED.get(response.status, (FailureReason.UNREACHABLE, "the camera refuses the request"))
    if response.status >= 500:
        message = "the camera has an error of its own"
    raise SourceError(reason, message)


def transport_ports(transport: str, name: str) -> tuple[int, int] | None:
    """Return both numbers of a field such as `server_port=6970-6971` or `interleaved=0-1`, or None."""
    for part in transport.split(";"):
        key, _, value = part.partition("=")
        match = _PORTS.fullmatch(value.strip())
        if key.strip().lower() == name and match:
            first = int(match[1])
            return first, int(match[2]) if match[2] else first + 1
    return None


def _connect(address: CameraAddress, egress: Egress, deadline_s: float, origin: str | None, login: Login | None) -> Connection:
    remaining_s = deadline_s - time.monotonic()
    if remaining_s <= 0:
        raise SourceError(FailureReason.TIMEOUT, "the camera does not answer")
    connected: socket.socket = egress.connect(address.host, address.port, remaining_s, redirected_from=origin)
    try:
        if address.scheme == "rtsps":
            connected.settimeout(max(deadline_s - time.monotonic(), 0.05))
            connected = egress.wrap_tls(connected, address.host, verify=address.tls_verify)
        return Connection(connected, login)
    except BaseException:
        connected.close()
        raise


def _described(address: CameraAddress, egress: Egress, deadline_s: float, origin: str | None) -> tuple[Connection, str, Response]:
    """Connect, ask what the camera can do, and for its description; return also the method that keeps the session alive.

    Some cameras hang up when they are asked, and some after they have asked to log in: they are connected to again.
    """
    login = None if address.username is None else Login(address.username, address.password or "")
    for attempt in range(_CONNECTIONS):
        connection = _connect(address, egress, deadline_s, origin, login)
        try:
            keep_alive = "OPTIONS" if attempt else _keep_alive_method(connection, address.plain_url, deadline_s)
            response = connection.request("DESCRIBE", address.plain_url, {"Accept": "application/sdp"}, deadline_s)
            return connection, keep_alive, response
        except SourceError as error:
            connection.close()
            if error.reason != FailureReason.UNREACHABLE:
                raise
            failure = SourceError(*_REFUSED[401]) if connection.is_refused else error
        except BaseException:
            connection.close()
            raise
    raise failure


def _keep_alive_method(connection: Connection, url: str, deadline_s: float) -> str:
    """Ask what the camera can do; any answer will do, for some know no OPTIONS."""
    try:
        response = connection.request("OPTIONS", url, {}, min(deadline_s, time.monotonic() + _OPTIONS_S))
    except SourceError as error:
        if error.reason != FailureReason.TIMEOUT or time.monotonic() >= deadline_s:
            raise
        return "OPTIONS"
    offered = ",".join(response.headers.get("public", [])).upper().replace(" ", "").split(",")
    return "GET_PARAMETER" if "GET_PARAMETER" in offered else "OPTIONS"
