"""One RTSP 1.0 connection (RFC 2326) of a simulated camera."""

import asyncio
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote, urlsplit

from moodline.services.simulator.auth import Authenticator
from moodline.services.simulator.camera import Camera
from moodline.services.simulator.faults import NO_FAULT, Kind
from moodline.services.simulator.players import TcpPlayer, UdpPlayer, reset_connection
from moodline.services.simulator.quirks import Quirk, answered, described, is_mute
from moodline.services.simulator.sdp import TRACK_NAME, describe

_REQUEST_LIMIT_BYTES: Final = 64 * 1024
_PUBLIC: Final = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, GET_PARAMETER, SET_PARAMETER, TEARDOWN"
_PHRASES: Final = {454: "Session Not Found", 455: "Method Not Valid in This State", 461: "Unsupported Transport"}


@dataclass(frozen=True, slots=True)
class Site:
    """The objects that all connections share: cameras by path, accounts, and the time-out of a silent session in s."""

    cameras: Mapping[str, Camera]
    authenticator: Authenticator
    session_timeout_s: float
    connections: "set[RtspConnection]"


@dataclass(frozen=True, slots=True)
class Request:
    """One request; names of headers are lower-case."""

    method: str
    url: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The camera's path: without slashes around it, query, and track."""
        path = unquote(urlsplit(self.url).path).strip("/")
        return path.removesuffix(TRACK_NAME).strip("/")


class RtspConnection(asyncio.Protocol):
    """One client. It has at most one session, which ends with the connection."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._transport: asyncio.Transport
        self._buffer = b""
        self._session = ""
        self._camera: Camera | None = None
        self._player: TcpPlayer | UdpPlayer | None = None
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._site.connections.add(self)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._site.connections.discard(self)
        self._end_session()
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._alive()
        self._buffer += data
        while self._buffer and not self._transport.is_closing():
            if self._buffer[:1] == b"$":
                # What the client reports about its reception.
                if len(self._buffer) < 4 or len(self._buffer) < 4 + int.from_bytes(self._buffer[2:4], "big"):
                    return
                self._buffer = self._buffer[4 + int.from_bytes(self._buffer[2:4], "big") :]
                continue
            head, mark, rest = self._buffer.partition(b"\r\n\r\n")
            if not mark:
                if len(self._buffer) > _REQUEST_LIMIT_BYTES:
                    self._transport.close()
                return
            request = _parse(head)
            length = int(request.headers.get("content-length", "0")) if request else 0
            if request is None or length > _REQUEST_LIMIT_BYTES:
                self._transport.write(b"RTSP/1.0 400 Bad Request\r\n\r\n")
                self._transport.close()
                return
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._take(request)

    def _take(self, request: Request) -> None:
        """Answer a request as the camera's fault will have it."""
        camera = self._site.cameras.get(request.path)
        fault = camera.fault if camera else NO_FAULT
        if fault.kind is Kind.HANG:
            return
        quirks = camera.quirks if camera else frozenset()
        if Quirk.REFUSED_KEEP_ALIVE in quirks and self._session and request.method in ("OPTIONS", "GET_PARAMETER"):
            self._reply(request, 454, quirks=quirks)
            return
        if fault.kind is Kind.NOISE:
            self._transport.write(os.urandom(512))
        elif fault.kind is Kind.DROP:
            self._transport.close()
        elif fault.kind is Kind.RESET:
            reset_connection(self._transport)
        elif fault.kind is Kind.SLOW:
            self._loop.call_later(fault.number / 1000, self._answer, request, camera)
        else:
            self._answer(request, camera)

    def _answer(self, request: Request, camera: Camera | None) -> None:
        if self._transport.is_closing():
            return
        fault = camera.fault if camera else NO_FAULT
        if request.method == "OPTIONS":
            self._reply(request, 200, {"Public": _PUBLIC}, quirks=camera.quirks if camera else frozenset())
        elif fault.kind is Kind.UNAUTHORIZED or not self._site.authenticator.admits(
            request.method, request.headers.get("authorization")
        ):
            challenges = "\r\nWWW-Authenticate: ".join(self._site.authenticator.challenges())
            self._reply(request, 401, {"WWW-Authenticate": challenges}, quirks=camera.quirks if camera else frozenset())
        elif camera is None or fault.kind is Kind.MISSING:
            self._reply(request, 404)
        else:
            method = _METHODS.get(request.method)
            if method is None:
                self._reply(request, 501)
            else:
                method(self, request, camera)

    def _describe(self, request: Request, camera: Camera) -> None:
        fault = camera.fault
        if fault.kind is Kind.REDIRECT:
            self._reply(request, 302, {"Location": fault.text})
            return
        big, absurd = fault.kind is Kind.BIG_SDP, fault.kind is Kind.CRASHER
        sdp = describe(camera.track, self._transport.get_extra_info("sockname")[0], big=big, absurd=absurd)
        base = request.url.rstrip("/") + "/"
        sdp = described(sdp, camera.quirks)
        self._reply(request, 200, {"Content-Base": base, "Content-Type": "application/sdp"}, sdp, camera.quirks)

    def _setup(self, request: Request, camera: Camera) -> None:
        if not self._fits(request) and self._session:
            self._reply(request, 454)
            return
        for offered in request.headers.get("transport", "").split(","):
            made = self._make_player(offered.strip())
            if made is not None:
                player, transport = made
                self._end_session()
                self._session, self._camera, self._player = secrets.token_hex(8), camera, player
                self._reply(request, 200, {"Transport": transport}, quirks=camera.quirks)
                return
        self._reply(request, 461)

    def _make_player(self, offered: str) -> tuple[TcpPlayer | UdpPlayer, str] | None:
        if "multicast" in offered:
            return None
        if offered.startswith("RTP/AVP/TCP"):
            numbers = _pair(offered, "interleaved") or (0, 1)
            return TcpPlayer(self._transport, numbers), f"RTP/AVP/TCP;unicast;interleaved={numbers[0]}-{numbers[1]}"
        ports = _pair(offered, "client_port")
        if offered.startswith("RTP/AVP") and ports is not None:
            try:
                player = UdpPlayer(self._transport, ports, self._alive)
            except OSError:
                return None
            ours = "-".join(str(port) for port in player.server_ports)
            return player, f"RTP/AVP;unicast;client_port={ports[0]}-{ports[1]};server_port={ours}"
        return None

    def _play(self, request: Request, camera: Camera) -> None:
        if self._player is None or self._camera is not camera or not self._fits(request):
            self._reply(request, 454)
            return
        track = f"{request.url.rstrip('/').removesuffix('/' + TRACK_NAME)}/{TRACK_NAME}"
        sequence, stamp, report = camera.play(self._player)
        info = {"Range": "npt=now-", "RTP-Info": f"url={track};seq={sequence};rtptime={stamp}"}
        self._reply(request, 200, info, quirks=camera.quirks)
        if report:
            self._player.report(report)

    def _pause(self, request: Request, camera: Camera) -> None:
        if self._player is None or not self._fits(request):
            self._reply(request, 454)
            return
        camera.leave(self._player)
        self._reply(request, 200)

    def _parameter(self, request: Request, _camera: Camera) -> None:
        self._reply(request, 200)

    def _teardown(self, request: Request, _camera: Camera) -> None:
        if not self._fits(request):
            self._reply(request, 454)
            return
        self._reply(request, 200)
        self._end_session()

    def _fits(self, request: Request) -> bool:
        return bool(self._session) and request.headers.get("session", "").partition(";")[0].strip() == self._session

    def _reply(
        self,
        request: Request,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        quirks: frozenset[Quirk] = frozenset(),
    ) -> None:
        if is_mute(request.method, quirks):
            return
        phrase = _PHRASES.get(status) or HTTPStatus(status).phrase
        named = answered({"CSeq": request.headers.get("cseq", "0"), **(headers or {})}, quirks)
        lines = [f"RTSP/1.0 {status} {phrase}", "Server: Moodline camera"]
        if self._session and status == 200:
            lines.append(f"Session: {self._session};timeout={max(1, round(self._site.session_timeout_s))}")
        lines += [f"{name}: {value}" for name, value in named.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        if self._player is not None:
            self._player.finish_packet()
        end_of_line = "\n" if Quirk.LF in quirks else "\r\n"
        head = end_of_line.join([*lines, "", ""]).replace("\r\n", end_of_line)
        self._transport.write(head.encode() + body)

    def _end_session(self) -> None:
        if self._player is not None:
            if self._camera is not None:
                self._camera.leave(self._player)
            self._player.close()
        self._session, self._camera, self._player = "", None, None

    def _alive(self) -> None:
        self._heard_s = self._loop.time()

    def _watch(self) -> None:
        """Close the connection of a client that has said nothing for the session's time-out."""
        left_s = self._heard_s + self._site.session_timeout_s - self._loop.time()
        if left_s <= 0:
            self._transport.close()
        else:
            self._timer = self._loop.call_later(left_s, self._watch)


_METHODS: Final[dict[str, Callable[[RtspConnection, Request, Camera], None]]] = {
    "DESCRIBE": RtspConnection._describe,
    "SETUP": RtspConnection._setup,
    "PLAY": RtspConnection._play,
    "PAUSE": RtspConnection._pause,
    "GET_PARAMETER": RtspConnection._parameter,
    "SET_PARAMETER": RtspConnection._parameter,
    "TEARDOWN": RtspConnection._teardown,
}


def _parse(head: bytes) -> Request | None:
    lines = head.decode("utf-8", "replace").lstrip("\r\n").split("\r\n")
    first = lines[0].split(" ")
    if len(first) != 3 or not first[2].startswith("RTSP/1."):
        return None
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if not headers.get("content-length", "0").isdecimal():
        return None
    try:
        urlsplit(first[1])
    except ValueError:
        return None
    return Request(first[0], first[1], headers)


def _pair(offered: str, name: str) -> tuple[int, int] | None:
    match = re.search(rf"{name}=(\d{{1,5}})(?:-(\d{{1,5}}))?", offered)
    if match is None:
        return None
    first = int(match[1])
    return first, int(match[2] or first + 1)
