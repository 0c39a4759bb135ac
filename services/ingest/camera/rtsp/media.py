"""Transport of RTP and RTCP: over the RTSP connection (interleaved), or over a pair of UDP ports."""

import contextlib
import ipaddress
import select
import socket
import time
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from moodline.services.ingest.camera.input.arrival import arrival_of, ask_for_arrival
from moodline.services.ingest.camera.input.egress import Egress
from moodline.services.ingest.camera.rtsp.connection import POLL_S, Connection
from moodline.services.ingest.camera.rtsp.rtp import RtpPacket, receiver_report
from moodline.services.ingest.camera.rtsp.session import Session, transport_ports
from moodline.services.ingest.camera.rtsp.wire import Interleaved, Response
from moodline.shared.errors import SourceError
from moodline.shared.net_policy import Address, is_loopback
from moodline.shared.streams import FailureReason

_BUFFER_BYTES: Final = 2 * 1024 * 1024
_DATAGRAM_BYTES: Final = 65_536
_BATCH_PACKETS: Final = 256
_PORT_TRIES: Final = 64
_ANCILLARY_BYTES: Final = 64
_OTHER_PACKETS: Final = 20
"""After so many packets on another channel, and none on the one that was agreed, that one is taken."""
_PUNCH: Final = b"\x80\0\0\0\0\0\0\0\0\0\0\0"


class Received(NamedTuple):
    """The result of one read: media packets with the wall clock in s of their arrival, RTCP packets, answers to requests."""

    rtp: Sequence[tuple[bytes, float]]
    rtcp: Sequence[bytes]
    responses: Sequence[Response]


class Media(Protocol):
    """The media of one session. `receive` blocks for a moment at most."""

    reorders: bool

    def receive(self) -> Received:
        """Return what has come. Raises `SourceError` when the connection is over."""
        ...

    def has_come(self) -> bool:
        """Return whether media waits to be received."""
        ...

    def send_rtcp(self, data: bytes) -> None:
        """Send a report to the camera."""
        ...

    def trouble(self) -> str:
        """Return why no media may come, where that is known; else ""."""
        ...

    def close(self) -> None:
        """Release ports."""
        ...


class TcpMedia:
    """Interleaved media. Implements `Media`."""

    reorders = False

    def __init__(self, session: Session, deadline_s: float) -> None:
        self._connection: Connection = session.connection
        answer = session.setup("RTP/AVP/TCP;unicast;interleaved=0-1", deadline_s)
        self._rtp, self._rtcp = transport_ports(answer, "interleaved") or (0, 1)
        self._is_proven = False
        self._others: dict[int, int] = {}

    def receive(self) -> Received:
        early = self._connection.early()
        return self._sorted(early or self._connection.receive())

    def has_come(self) -> bool:
        return self._connection.has_early

    def trouble(self) -> str:
        return ""

    def send_rtcp(self, data: bytes) -> None:
        if self._rtcp < 256:
            self._connection.send_packet(self._rtcp, data)

    def close(self) -> None:
        """Nothing is held besides the connection."""

    def _sorted(self, items: Sequence[Interleaved | Response]) -> Received:
        rtp, rtcp, responses = [], [], []
        arrived_s = self._connection.arrived_s
        for item in items:
            if isinstance(item, Response):
                responses.append(item)
            elif item.channel == self._rtp:
                self._is_proven = True
                rtp.append((item.data, arrived_s))
            elif item.channel == self._rtcp:
                rtcp.append(item.data)
            elif not self._is_proven and _is_rtp(item.data):
                # One track is set up, so what comes is its own, whatever channel the answer named.
                self._others[item.channel] = self._others.get(item.channel, 0) + 1
                if self._others[item.channel] >= _OTHER_PACKETS:
                    self._rtp, self._rtcp = item.channel, item.channel ^ 1
        return Received(rtp, rtcp, responses)


class UdpMedia:
    """Media over UDP, taken from the camera's own address, and from the one that it announces (`source`), if that is allowed.

    Implements `Media`.
    """

    reorders = True

    def __init__(self, session: Session, egress: Egress, deadline_s: float) -> None:
        self._connection = session.connection
        self._peer = egress.peer_address(self._connection.socket)
        self._trusted: str | None = None
        self._source: Address | None = None
        self._strangers = 0
        self._rtp, self._rtcp = _bind_pair(self._connection.socket)
        try:
            port = self._rtp.getsockname()[1]
            answer = session.setup(f"RTP/AVP;unicast;client_port={port}-{port + 1}", deadline_s)
            self._remote = transport_ports(answer, "server_port")
            self._source = _announced_source(answer, self._peer, egress)
            self._poll = select.poll()
            for one in (self._rtp, self._rtcp, self._connection.socket):
                self._poll.register(one, select.POLLIN)
            self._punch()
        except BaseException:
            self.close()
            raise

    def receive(self) -> Received:
        try:
            ready = {descriptor for descriptor, _ in self._poll.poll(POLL_S * 1000)}
            rtp = self._datagrams(self._rtp) if self._rtp.fileno() in ready else []
            rtcp = [data for data, _ in self._datagrams(self._rtcp)] if self._rtcp.fileno() in ready else []
        except OSError:
            raise SourceError(FailureReason.UNREACHABLE, "the connection to the camera broke") from None
        responses = []
        if self._connection.socket.fileno() in ready:
            responses = [item for item in self._connection.receive() if isinstance(item, Response)]
        return Received(rtp, rtcp, responses)

    def has_come(self) -> bool:
        return bool(select.select([self._rtp], [], [], 0)[0])

    def trouble(self) -> str:
        if not self._strangers:
            return ""
        return "the camera sends its media from another address than it announces, which is not taken: set `transport` to tcp"

    def send_rtcp(self, data: bytes) -> None:
        self._send(self._rtcp, data, 1)

    def close(self) -> None:
        self._rtp.close()
        self._rtcp.close()

    def _punch(self) -> None:
        """Send a packet each way, so that a firewall or NAT between us lets the media in."""
        self._send(self._rtp, _PUNCH, 0)
        self._send(self._rtcp, receiver_report(0, None), 1)

    def _send(self, sender: socket.socket, data: bytes, which: int) -> None:
        port = self._remote[which] if self._remote else 0
        if 0 < port < 65536:
            # A report that cannot be sent is no reason to stop watching.
            with contextlib.suppress(OSError):
                sender.sendto(data, (str(self._source or self._peer), port))

    def _datagrams(self, receiver: socket.socket) -> list[tuple[bytes, float]]:
        found = []
        for _ in range(_BATCH_PACKETS):
            try:
                data, ancillary, _, sender = receiver.recvmsg(_DATAGRAM_BYTES, _ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except ConnectionError:
                # Our report met a closed port.
                continue
            if sender[0] == self._trusted or self._is_peer(sender[0]):
                found.append((data, arrival_of(ancillary) or time.time()))
            else:
                self._strangers += 1
        return found

    def _is_peer(self, text: str) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if (mapped or address) not in (self._peer, self._source):
            return False
        self._trusted = text
        return True


class Reorder:
    """Puts datagrams back in order: a packet that is early waits until the gap is filled, or until enough have come after it."""

    LIMIT: Final = 32

    def __init__(self) -> None:
        self._next: int | None = None
        self._held: dict[int, RtpPacket] = {}

    def push(self, packet: RtpPacket) -> Sequence[RtpPacket]:
        """Return the packets that are next in turn."""
        sequence = packet.sequence
        if self._next is None or sequence == self._next:
            self._next = (sequence + 1) & 0xFFFF
            return (packet, *self._following()) if self._held else (packet,)
        ahead = (sequence - self._next) & 0xFFFF
        if ahead >= 0x8000:
            # Late or a duplicate: the receiver decides by sequence numbers.
            return (packet,)
        self._held[sequence] = packet
        return self._skip() if len(self._held) > self.LIMIT or ahead > 1024 else ()

    def expire(self) -> Sequence[RtpPacket]:
        """Return what is held: nothing more has come for a while."""
        return self._skip() if self._held else ()

    def _skip(self) -> list[RtpPacket]:
        start = self._next or 0
        self._next = min(self._held, key=lambda sequence: (sequence - start) & 0xFFFF)
        return self._following()

    def _following(self) -> list[RtpPacket]:
        found = []
        while self._next in self._held:
            found.append(self._held.pop(self._next))
            self._next = (self._next + 1) & 0xFFFF
        return found


def _is_rtp(data: bytes) -> bool:
    """Return whether it looks like a packet of RTP, and not of RTCP (RFC 5761, 4)."""
    return len(data) > 12 and data[0] >> 6 == 2 and not 64 <= data[1] & 0x7F < 96


def _announced_source(transport: str, peer: Address, egress: Egress) -> Address | None:
    """Return the address that an answer to SETUP names as the media's source, when it is another than the camera's.

    Raises:
        SourceError: `forbidden_url` when the policy does not allow that address.
    """
    fields = dict(part.strip().partition("=")[::2] for part in transport.split(";"))
    try:
        source = ipaddress.ip_address(fields.get("source", "").strip())
    except ValueError:
        return None
    if source == peer or source.is_unspecified:
        return None
    refusal = egress.policy.refusal(source, redirected=not is_loopback(peer))
    if refusal is not None:
        raise SourceError(FailureReason.FORBIDDEN_URL, f"the camera sends its media from another address: {refusal}")
    return source


def _bind_pair(connected: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Bind an even port and the next, on the address that we talk to the camera from."""
    host = connected.getsockname()[0]
    for _ in range(_PORT_TRIES):
        with contextlib.ExitStack() as undo:
            first = undo.enter_context(_bound(connected.family, host, 0))
            port = first.getsockname()[1]
            if port % 2:
                continue
            try:
                second = undo.enter_context(_bound(connected.family, host, port + 1))
            except OSError:
                continue
            undo.pop_all()
            return first, second
    raise SourceError(FailureReason.UNREACHABLE, "no free pair of UDP ports for the camera's media")


def _bound(family: int, host: str, port: int) -> socket.socket:
    one = socket.socket(family, socket.SOCK_DGRAM)
    try:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        ask_for_arrival(one)
        one.bind((host, port))
    except BaseException:
        one.close()
        raise
    return one
