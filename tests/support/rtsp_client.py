"""A plain RTSP client over a socket, for looking at what a server really sends."""

import re
import socket
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Rtp:
    """One RTP packet."""

    marker: bool
    kind: int
    sequence: int
    stamp: int
    payload: bytes


@dataclass(frozen=True)
class Report:
    """One RTCP sender report. `ntp_s` is since the Unix epoch."""

    ntp_s: float
    stamp: int


class ClosedError(Exception):
    """The server closed the connection."""


class RtspClient:
    """One connection. A context manager; waits at most `timeout_s` (else TimeoutError)."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        parts = urlsplit(url)
        self.url, self.session = url, ""
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout_s)
        self._buffer, self._taken, self._number = b"", b"", 0
        self.packets: list[Rtp | Report] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, method: str, url: str | None = None, **headers: str) -> Answer:
        self._number += 1
        lines = [f"{method} {url or self.url} RTSP/1.0", f"CSeq: {self._number}"]
        if self.session:
            lines.append(f"Session: {self.session}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while True:
            answer = self._read()
            if isinstance(answer, Answer):
                assert answer.headers["cseq"] == str(self._number)
                return answer
            if answer is not None:
                self.packets.append(answer)

    def play(self) -> Answer:
        """SETUP and PLAY over TCP."""
        answer = self.ask("SETUP", f"{self.url}/trackID=0", Transport="RTP/AVP/TCP;unicast;interleaved=0-1")
        assert answer.status == 200
        self.session = answer.headers["session"].partition(";")[0]
        return self.ask("PLAY", self.url, Range="npt=0.000-")

    def packet(self) -> Rtp | Report:
        """Return the next packet; those before the answer to the last request come first."""
        while True:
            if self.packets:
                return self.packets.pop(0)
            got = self._read()
            if got is not None and not isinstance(got, Answer):
                return got

    def collect(self, seconds: float) -> tuple[list[Rtp], list[Report]]:
        """Return what comes within this time."""
        ends_s, got = time.monotonic() + seconds, []
        while time.monotonic() < ends_s:
            got.append(self.packet())
        return [one for one in got if isinstance(one, Rtp)], [one for one in got if isinstance(one, Report)]

    def silent_for(self, seconds: float) -> bool:
        """Say whether not a byte comes for this long, after what is on its way has been thrown away."""
        self._socket.settimeout(0.3)
        try:
            while self._socket.recv(65536):
                pass
        except TimeoutError:
            pass
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(1) is None
        except TimeoutError:
            return True

    def raw(self, count: int) -> bytes:
        """Return so many bytes as they come."""
        while len(self._buffer) < count:
            self._fill()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        self._taken += taken
        return taken

    def _read(self) -> Answer | Rtp | Report | None:
        """Read one thing whole; what there is of it stays for the next time when the rest does not come in time."""
        self._taken = b""
        try:
            return self._read_one()
        except TimeoutError:
            self._buffer = self._taken + self._buffer
            raise

    def _read_one(self) -> Answer | Rtp | Report | None:
        first = self.raw(1)
        if first == b"$":
            channel, length = struct.unpack(">BH", self.raw(3))
            return _packet(channel, self.raw(length))
        head = first
        while not head.endswith(b"\r\n\r\n"):
            head += self.raw(1)
        lines = head.decode().split("\r\n")
        match = re.fullmatch(r"RTSP/1\.0 (\d{3}) .+", lines[0])
        assert match, f"no RTSP: {lines[0]!r}"
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return Answer(int(match[1]), headers, self.raw(int(headers.get("content-length", "0"))))

    def _fill(self) -> None:
        chunk = self._socket.recv(65536)
        if not chunk:
            raise ClosedError
        self._buffer += chunk


def _packet(channel: int, packet: bytes) -> Rtp | Report | None:
    if channel == 0:
        first, second, sequence, stamp, _ssrc = struct.unpack(">BBHII", packet[:12])
        assert first == 0x80
        return Rtp(bool(second & 0x80), second & 0x7F, sequence, stamp, packet[12:])
    if packet[1] != 200:
        return None
    ntp, stamp = struct.unpack(">QI", packet[8:20])
    return Report(ntp / 2**32 - 2_208_988_800, stamp)
