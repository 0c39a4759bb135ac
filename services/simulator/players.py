"""Sends media to one client: within its RTSP connection, or over UDP."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

BUFFER_LIMIT_BYTES: Final = 4 * 1024 * 1024
"""A client that is behind by more gets no frames until it has caught up."""
_DRIP_BYTES: Final = 2
_PORT_TRIES: Final = 50
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


def reset_connection(transport: asyncio.Transport) -> None:
    """End a TCP connection with RST."""
    connected = transport.get_extra_info("socket")
    if connected is not None:
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    transport.abort()


def interleaved(channel: int, packet: bytes) -> bytes:
    """Return a packet as it goes through an RTSP connection (RFC 2326, 10.12)."""
    return b"$" + bytes([channel]) + len(packet).to_bytes(2, "big") + packet


class TcpPlayer:
    """Media within the RTSP connection."""

    def __init__(self, transport: asyncio.Transport, channels: tuple[int, int]) -> None:
        self.waiting = True
        self._transport, self._channels = transport, channels
        self._head = [b"$" + bytes([channel]) for channel in channels]
        self._rest = b""

    def media(self, packets: list[bytes]) -> bool:
        if self._transport.get_write_buffer_size() > BUFFER_LIMIT_BYTES:
            return False
        head, parts = self._head[0], []
        for packet in packets:
            parts += [head, len(packet).to_bytes(2, "big"), packet]
        self._write(b"".join(parts))
        return True

    def report(self, packet: bytes) -> None:
        self._write(interleaved(self._channels[1], packet))

    def drip(self, packets: list[bytes]) -> None:
        if not self._rest:
            self._rest = b"".join(interleaved(self._channels[0], packet) for packet in packets)
        self._transport.write(self._rest[:_DRIP_BYTES])
        self._rest = self._rest[_DRIP_BYTES:]

    def noise(self, noise: bytes) -> None:
        if self._transport.get_write_buffer_size() <= BUFFER_LIMIT_BYTES:
            self._transport.write(noise)

    def end(self, *, reset: bool) -> None:
        if reset:
            reset_connection(self._transport)
        else:
            self._transport.close()

    def finish_packet(self) -> None:
        """Send what a drip has left over, so that what follows can be told apart."""
        if self._rest:
            self._transport.write(self._rest)
            self._rest = b""

    def close(self) -> None:
        """Nothing is held."""

    def _write(self, chunk: bytes) -> None:
        self.finish_packet()
        self._transport.write(chunk)


class UdpPlayer:
    """Media over a pair of UDP ports; the RTSP connection is only talked over."""

    def __init__(self, transport: asyncio.Transport, ports: tuple[int, int], alive: Callable[[], None]) -> None:
        """Args: `ports` are the client's, for RTP and RTCP; `alive` is called whenever it reports. Raises `OSError`."""
        self.waiting = True
        self._transport = transport
        host, peer = transport.get_extra_info("sockname")[0], transport.get_extra_info("peername")[0]
        self._sockets = _open_pair(host)
        self._targets = [(peer, port) for port in ports]
        self.server_ports = tuple(int(end.getsockname()[1]) for end in self._sockets)
        self._alive = alive
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sockets[1], self._hear)

    def media(self, packets: list[bytes]) -> bool:
        for packet in packets:
            self._send(0, packet)
        return True

    def report(self, packet: bytes) -> None:
        self._send(1, packet)

    def drip(self, packets: list[bytes]) -> None:
        if packets:
            self._send(0, packets[0][: 12 + _DRIP_BYTES])

    def noise(self, noise: bytes) -> None:
        self._send(0, noise)

    def end(self, *, reset: bool) -> None:
        if reset:
            reset_connection(self._transport)
        else:
            self._transport.close()

    def finish_packet(self) -> None:
        """A datagram is always whole."""

    def close(self) -> None:
        """Free the ports. Safe to call twice."""
        if self._sockets[1].fileno() >= 0:
            self._loop.remove_reader(self._sockets[1])
        for end in self._sockets:
            end.close()

    def _send(self, end: int, packet: bytes) -> None:
        # A full buffer, or a client whose port is closed: lost, as datagrams are.
        with contextlib.suppress(OSError):
            self._sockets[end].sendto(packet, self._targets[end])

    def _hear(self) -> None:
        with contextlib.suppress(OSError):
            self._sockets[1].recv(2048)
            self._alive()


def _open_pair(host: str) -> tuple[socket.socket, socket.socket]:
    """Return non-blocking sockets on an even port and the one after it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(_PORT_TRIES):
        first = socket.socket(family, socket.SOCK_DGRAM)
        second = socket.socket(family, socket.SOCK_DGRAM)
        try:
            first.bind((host, 0))
            port = int(first.getsockname()[1])
            if port % 2 == 0:
                second.bind((host, port + 1))
                first.setblocking(False)
                second.setblocking(False)
                return first, second
        except OSError:
            pass
        first.close()
        second.close()
    raise OSError("no pair of UDP ports is free")
