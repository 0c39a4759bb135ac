"""A small HTTP/1.1 client for cameras: GET alone, through the address policy, with limits and time-outs everywhere."""

import ssl
import time
from contextlib import suppress
from socket import socket
from typing import Final

import h11

from moodline.services.ingest.camera.http.cookies import Cookies
from moodline.services.ingest.camera.http.head import HeadCleaner
from moodline.services.ingest.camera.http.inflate import Inflate
from moodline.services.ingest.camera.http.location import Location, location_of
from moodline.services.ingest.camera.input.arrival import ArrivalReader
from moodline.services.ingest.camera.input.authentication import Login, best_challenge
from moodline.services.ingest.camera.input.egress import Egress, close_quietly
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

_REDIRECTS_LIMIT: Final = 5
_HEADERS_LIMIT_BYTES: Final = 64 * 1024
_RECEIVE_BYTES: Final = 64 * 1024
_COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_FAILURES: Final = {
    401: (FailureReason.AUTH, "the camera does not accept the user name and password, or wants some"),
    403: (FailureReason.AUTH, "the camera forbids this user to watch"),
    404: (FailureReason.NOT_FOUND, "the camera has nothing at this path"),
    410: (FailureReason.NOT_FOUND, "the camera has nothing at this path any more"),
}


class HttpConnection:
    """One connection, for one request after the other."""

    def __init__(self, connected: socket, origin: tuple[str, str, int]) -> None:
        self.origin = origin
        self.used = False
        self._connected = connected
        self._reader = ArrivalReader(connected)
        self._head = HeadCleaner(_HEADERS_LIMIT_BYTES)
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEADERS_LIMIT_BYTES)
        self._closed = False

    @property
    def is_reusable(self) -> bool:
        """Return whether another request may follow: the last answer is read to its end, and the server keeps the connection."""
        return not self._closed and self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE

    def request(self, target: str, headers: list[tuple[str, str]], deadline_s: float, body: bytes | None = None) -> h11.Response:
        """Send a GET, or a POST where there is a body, and return the head of its answer."""
        if self.used:
            self._protocol.start_next_cycle()
        self.used = True
        try:
            request = h11.Request(method="GET" if body is None else "POST", target=target, headers=headers)
            events = (request, *([] if body is None else [h11.Data(data=body)]), h11.EndOfMessage())
            data = b"".join(self._protocol.send(event) or b"" for event in events)
        except h11.LocalProtocolError:
            raise SourceError(FailureReason.CORRUPT, "the camera's path or user name cannot be sent over HTTP") from None
        self._head.begin()
        self._send(data, deadline_s)
        while True:
            event = self.receive(deadline_s)
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise _gone()

    def receive(self, deadline_s: float) -> object:
        """Return the next event of the answer. Blocks until `deadline_s`, by the monotonic clock."""
        while True:
            try:
                event = self._protocol.next_event()
                if event is not h11.NEED_DATA:
                    return event
                data = self._receive(deadline_s)
                cleaned = self._head.feed(data)
                if cleaned or not data:
                    self._protocol.receive_data(cleaned)
            except h11.RemoteProtocolError:
                if self._protocol.trailing_data[1]:
                    raise _gone() from None
                raise SourceError(FailureReason.CORRUPT, "the camera's answer is no HTTP") from None

    @property
    def arrived_s(self) -> float:
        """Wall clock in s of the arrival of what was read last."""
        return self._reader.arrived_s

    def close(self) -> None:
        """Close it. Safe to call twice, and from another thread: that one's reading ends with an error."""
        self._closed = True
        close_quietly(self._connected)

    def _send(self, data: bytes, deadline_s: float) -> None:
        try:
            self._connected.settimeout(_remaining_s(deadline_s))
            self._connected.sendall(data)
        except TimeoutError:
            raise _silent() from None
        except OSError:
            raise _gone() from None

    def _receive(self, deadline_s: float) -> bytes:
        try:
            self._connected.settimeout(_remaining_s(deadline_s))
            return self._reader.receive(_RECEIVE_BYTES)
        except TimeoutError:
            raise _silent() from None
        except ssl.SSLEOFError:
            return b""
        except OSError:
            raise _gone() from None


class HttpResponse:
    """An answer with status 200, or 206 where a part was asked for, whose body is still to be read.

    Attributes:
        status: 200 or 206.
        has_length: Whether the server says where the body ends.
        location: Where it came from, after redirects.
        content_type: As the server wrote it; "" where it did not.
    """

    def __init__(self, connection: HttpConnection, location: Location, status: int, headers: dict[str, str]) -> None:
        self.location = location
        self.status = status
        self.content_type = headers.get("content-type", "")
        self.has_length = "content-length" in headers or "transfer-encoding" in headers
        self._connection = connection
        self._inflate = Inflate() if headers.get("content-encoding", "").strip().lower() in _COMPRESSED else None

    @property
    def arrived_s(self) -> float:
        """Wall clock in s of the arrival of what was read last."""
        return self._connection.arrived_s

    def read(self, deadline_s: float) -> bytes:
        """Return the next piece of the body, b"" at its end. Raises `SourceError` `timeout`, `unreachable` or `corrupt`."""
        while True:
            if self._inflate is not None and (more := self._inflate.more()):
                return more
            event = self._connection.receive(deadline_s)
            if not isinstance(event, h11.Data):
                if self._inflate is not None:
                    self._inflate.require_end()
                return b""
            data = bytes(event.data)
            if self._inflate is not None:
                data = self._inflate.feed(data)
            if data:
                return data

    def read_all(self, limit_bytes: int, deadline_s: float, begun: bytes = b"") -> bytes:
        """Return the whole body, `begun` included. Raises also `SourceError` `too_large`."""
        body = bytearray(begun)
        while piece := self.read(deadline_s):
            body += piece
            if len(body) > limit_bytes:
                self.close()
                raise SourceError(FailureReason.TOO_LARGE, "the camera's answer is larger than any picture or playlist")
        return bytes(body)

    def close(self) -> None:
        """Give up the rest of the body, and with it the connection."""
        self._connection.close()


class HttpClient:
    """Fetches from one camera, and from where it sends us. Keeps one connection to use again. Used by one thread."""

    def __init__(self, address: CameraAddress, egress: Egress) -> None:
        self._egress = egress
        self._home = location_of(address)
        self._tls_verify = address.tls_verify
        given = address.username is not None or address.password is not None
        self._login = Login(address.username or "", address.password or "") if given else None
        self._connection: HttpConnection | None = None
        self._cookies = Cookies()
        self._part: tuple[int, int] | None = None
        self._closed = False

    @property
    def schemes(self) -> frozenset[str]:
        """Schemes that the policy allows."""
        return self._egress.policy.schemes

    def get(
        self, location: Location, deadline_s: float, via: str | None = None, part: tuple[int, int] | None = None
    ) -> HttpResponse:
        """Fetch, following redirects.

        Args:
            location: Where.
            deadline_s: By the monotonic clock, for everything until the head of the answer.
            via: The host that named this location, or that answered from there before; None for a camera's first request.
            part: Offset and length in bytes of the part that is wanted; a server may send the whole all the same.

        Raises:
            SourceError: typed as `open_live` says; never any text from the server.
        """
        for _ in range(_REDIRECTS_LIMIT + 1):
            if not self._egress.policy.allows_scheme(location.scheme):
                raise SourceError(FailureReason.FORBIDDEN_URL, "this scheme is not allowed (MOODLINE_INGEST_SCHEMES)")
            self._part = part
            response, connection = self._authorised(location, deadline_s, via)
            headers = _headers(response)
            self._cookies.take(location.host, response.headers)
            if response.status_code in _REDIRECTS and "location" in headers:
                connection.close()
                via, location = location.host, location.join(headers["location"], self.schemes)
                continue
            try:
                _check(response.status_code, headers)
            except SourceError:
                connection.close()
                raise
            return HttpResponse(connection, location, response.status_code, headers)
        raise SourceError(FailureReason.CORRUPT, "the camera redirects more than five times")

    def close(self) -> None:
        """Close the connection; what is being read ends with an error. Safe to call twice, and from another thread."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    def _authorised(self, location: Location, deadline_s: float, via: str | None) -> tuple[h11.Response, HttpConnection]:
        """Ask; where the camera itself wants a log-in, ask again with it, and once more if its nonce was stale."""
        response, connection = self._exchange(location, deadline_s, via)
        for attempt in range(2):
            if response.status_code != 401 or self._login is None or location.origin != self._home.origin:
                break
            challenges = [value.decode("latin-1") for name, value in response.headers if name == b"www-authenticate"]
            challenge = best_challenge(challenges)
            tried = self._login.challenge is not None
            if challenge is None or (tried and not challenge.stale and attempt > 0):
                break
            connection.close()
            self._login.accept(challenge)
            response, connection = self._exchange(location, deadline_s, location.host)
        return response, connection

    def _exchange(self, location: Location, deadline_s: float, via: str | None) -> tuple[h11.Response, HttpConnection]:
        kept = self._connection
        if kept is not None and kept.is_reusable and kept.origin == location.origin:
            # The server may have closed it in the meantime, which is no failure.
            with suppress(SourceError):
                return kept.request(location.target, self._request_headers(location), deadline_s), kept
        if kept is not None:
            kept.close()
        connection = self._connected(location, deadline_s, via)
        try:
            return connection.request(location.target, self._request_headers(location), deadline_s), connection
        except SourceError:
            connection.close()
            raise

    def _connected(self, location: Location, deadline_s: float, via: str | None) -> HttpConnection:
        connected = self._egress.connect(location.host, location.port, _remaining_s(deadline_s), redirected_from=via)
        if location.scheme == "https":
            verify = self._tls_verify or location.origin != self._home.origin
            try:
                connected.settimeout(_remaining_s(deadline_s))
                connected = self._egress.wrap_tls(connected, location.host, verify=verify)
            except SourceError:
                close_quietly(connected)
                raise
        self._connection = HttpConnection(connected, location.origin)
        if self._closed:
            self._connection.close()
        return self._connection

    def _request_headers(self, location: Location) -> list[tuple[str, str]]:
        headers = [
            ("Host", location.authority),
            ("User-Agent", "Moodline"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
        ]
        if self._part is not None:
            headers.append(("Range", f"bytes={self._part[0]}-{self._part[0] + self._part[1] - 1}"))
        cookie = self._cookies.header(location.host)
        if cookie:
            headers.append(("Cookie", cookie))
        if self._login is not None and location.origin == self._home.origin:
            header = self._login.header("GET", location.target)
            if header is not None:
                headers.append(("Authorization", header))
        return headers


def _headers(response: h11.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


def _check(status: int, headers: dict[str, str]) -> None:
    if status in _FAILURES:
        raise SourceError(*_FAILURES[status])
    if status >= 500:
        raise SourceError(FailureReason.UNREACHABLE, "the camera answers that it cannot serve at the moment")
    if status not in (200, 206):
        raise SourceError(FailureReason.CORRUPT, "the camera answers with a status that makes no sense here")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity", *_COMPRESSED):
        raise SourceError(FailureReason.CORRUPT, "the camera compresses its answer in a way that was not asked for")


def _remaining_s(deadline_s: float) -> float:
    remaining_s = deadline_s - time.monotonic()
    if remaining_s <= 0:
        raise _silent()
    return remaining_s


def _silent() -> SourceError:
    return SourceError(FailureReason.TIMEOUT, "the camera does not answer in time")


def _gone() -> SourceError:
    return SourceError(FailureReason.UNREACHABLE, "the camera closes the connection")
