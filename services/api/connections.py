"""Limits on connections: how many there are, how long a request's head may take, and what a web socket may send.

Everything here happens before a request is known, so it costs a dictionary entry and a timer.
"""

import asyncio
import ipaddress
import logging
import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from moodline.services.api import PREFIX
from moodline.services.auth.origins import one_host
from moodline.shared.metrics import Metrics
from moodline.shared.settings import ApiSettings

log = logging.getLogger("moodline.api")

MESSAGE_BYTES: Final = 1024 * 1024
"""Largest message of a web socket, but for those that take frames."""
_FRAMES: Final = f"{PREFIX}/streams/"
_DESCRIPTORS_KEPT: Final = 64
"""File descriptors that connections leave to the rest of the process."""
_HEAD_BYTES: Final = 16 * 1024
_FRAGMENTS: Final = 4096
"""Most pieces of one message of a web socket."""
_CHUNKS: Final = 1024
"""Most chunks of a body, unless they hold more than `_CHUNK_BYTES` each on average: a chunk of one byte costs as much as one of
64 KiB."""
_CHUNK_BYTES: Final = 256
_NO_HANDSHAKE: Final = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_STALLED_S: Final = 30.0
"""A reader that takes nothing of its answer for so long is cut off."""
_REST_S: Final = 5.0
"""The rest of a request that has been answered is read for so long."""


@dataclass
class Connections:
    """The open connections of one server. Used from the event loop alone."""

    settings: ApiSettings
    metrics: Metrics
    _waiting: dict[asyncio.BaseTransport, None] = field(default_factory=dict)
    """Those that have not sent a whole head yet, the oldest first."""
    _open: dict[asyncio.BaseTransport, str] = field(default_factory=dict)
    _of_address: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = self.settings.max_connections
        self._most = most if descriptors == resource.RLIM_INFINITY else max(8, min(most, descriptors - _DESCRIPTORS_KEPT))
        parts = filter(None, map(str.strip, self.settings.trusted_proxies.split(",")))
        self._proxies = [ipaddress.ip_network(part) for part in parts]

    def admit(self, transport: asyncio.BaseTransport) -> bool:
        """Take a new connection in; False where it is to be closed at once."""
        host = _address(transport)
        address = one_host(host)
        if self._of_address[address] >= self.settings.max_connections_per_address and not self._is_proxy(host):
            self._refuse("address")
            return False
        if len(self._open) >= self._most and not self._make_room():
            self._refuse("full")
            return False
        self._open[transport] = address
        self._of_address[address] += 1
        self._waiting[transport] = None
        return True

    def waits(self, transport: asyncio.BaseTransport, waits: bool) -> None:
        """Note whether a connection is waiting for a request's head."""
        if not waits:
            self._waiting.pop(transport, None)
        elif transport in self._open:
            self._waiting.setdefault(transport, None)

    def leave(self, transport: asyncio.BaseTransport) -> None:
        """Forget a connection that has ended."""
        self._waiting.pop(transport, None)
        address = self._open.pop(transport, None)
        if address is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def late(self, reason: str) -> None:
        """Count a connection that was closed because nothing came or went in time."""
        self._refuse(reason)

    def _make_room(self) -> bool:
        """Close the connection that has waited longest for its request."""
        oldest = next(iter(self._waiting), None)
        if oldest is None:
            return False
        self._refuse("crowded_out")
        self.leave(oldest)
        cast(asyncio.Transport, oldest).abort()
        return True

    def _refuse(self, reason: str) -> None:
        self.metrics.connections_refused.labels(reason).inc()
        log.warning("connection.refused", extra={"reason": reason})

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed.version == network.version and parsed in network for network in self._proxies)


def _address(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else "-"


class _Timer:
    """One time-out of a connection."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, late: Any, *arguments: Any) -> None:
        """Start, unless it runs already."""
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(seconds, late, *arguments)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class _CountedChunks(h11.Connection):
    """h11's connection, which takes a body in many tiny chunks for no HTTP."""

    def __init__(self, max_incomplete_event_size: int, on_refused: Callable[[], None]) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size)
        self._on_refused = on_refused
        self._chunks = self._bytes = 0
        self._is_first = True

    def receive_data(self, data: bytes) -> None:
        # How the network cuts a large chunk into pieces is not the sender's doing.
        self._is_first = True
        super().receive_data(data)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += not self._is_first
            self._bytes += len(event.data)
            self._is_first = False
            if self._chunks > _CHUNKS + self._bytes // _CHUNK_BYTES:
                self._on_refused()
                raise h11.RemoteProtocolError("the body's chunks are too small")
        return event


class LimitedHttp(H11Protocol):
    """uvicorn's HTTP/1.1 with time-outs for the head, for the rest of an answered request, and for readers that do not read."""

    limits: Connections

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head, self._rest, self._reader = _Timer(), _Timer(), _Timer()
        self.conn = _CountedChunks(_HEAD_BYTES, partial(self.limits.late, "fragments"))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        if self.limits.admit(transport):
            self._head.start(self.limits.settings.head_timeout_s, self._late, "head")
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if isinstance(self.transport.get_protocol(), LimitedHttp):
            self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self._watch(idle=True)

    def _watch(self, *, idle: bool = False) -> None:
        waits = self.conn.their_state is h11.IDLE
        self.limits.waits(self.transport, waits)
        if not waits:
            self._head.stop()
        elif not idle:
            # Between two requests uvicorn's own time-out counts, which ends with the first byte.
            self._head.start(self.limits.settings.head_timeout_s, self._late, "head")
        if self.conn.their_state is h11.SEND_BODY and self.cycle is not None and self.cycle.response_complete:
            self._rest.start(_REST_S, self._late, "rest")
        else:
            self._rest.stop()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            # The answer has been given, or begun: no other can be.
            self.transport.abort()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._head.stop()
        self.limits.waits(self.transport, waits=False)
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.start(_STALLED_S, self._late, "reader")

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._rest, self._reader):
            timer.stop()
        self.limits.leave(self.transport)
        super().connection_lost(exc)

    def _late(self, reason: str) -> None:
        self.limits.late(reason)
        self.transport.abort()


def limited_http(limits: Connections) -> type[H11Protocol]:
    """Return the protocol class of one server."""
    return type("LimitedHttpOfServer", (LimitedHttp,), {"limits": limits})


def limited_web_socket(limits: Connections, frame_bytes: int) -> type[asyncio.Protocol]:
    """Return the protocol class of one server's web sockets; those that take frames take up to `frame_bytes` a message."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    from websockets.frames import Frame
    from websockets.http11 import Request

    class LimitedWebSocket(WebSocketsSansIOProtocol):
        """uvicorn's web socket. Uncompressed, so that a message is never larger than what came over the wire."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._reader = _Timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self.handshake_initiated:
                # The whole head has come, and it is no handshake, as of a POST. Nobody else would answer it, ever.
                self.transport.write(_NO_HANDSHAKE)
                self.transport.close()

        def handle_connect(self, event: Request) -> None:
            if event.path.startswith(_FRAMES):
                self.conn.max_message_size = frame_bytes
            super().handle_connect(event)

        def handle_cont(self, event: Frame) -> None:
            super().handle_cont(event)
            if len(self.frames) > _FRAGMENTS:
                # Empty ones are never too large, however many they are.
                limits.late("fragments")
                self.transport.abort()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reader.start(_STALLED_S, self._late)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._reader.stop()

        def connection_lost(self, exc: Exception | None) -> None:
            self._reader.stop()
            limits.leave(self.transport)
            super().connection_lost(exc)

        def _late(self) -> None:
            limits.late("reader")
            self.transport.abort()

    return LimitedWebSocket
