"""When bytes arrived at this machine, however late they are read: by the kernel's own time stamps where there are some."""

import select
import socket
import ssl
import struct
import sys
import time
from typing import Final

_SO_TIMESTAMPNS: Final = 35
"""Of Linux; Python has no name for it."""
_TIMESPEC = struct.Struct("@ll")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 0


def ask_for_arrival(connected: socket.socket) -> bool:
    """Have the kernel note when data arrives; False where it cannot."""
    if not sys.platform.startswith("linux") or isinstance(connected, ssl.SSLSocket):
        return False
    try:
        connected.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def arrival_of(ancillary: list[tuple[int, int, bytes]]) -> float | None:
    """Return the wall clock in s of the arrival that the kernel noted with a message, or None."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return float(seconds + nanoseconds * 1e-9) if seconds else None
    return None


class ArrivalReader:
    """Reads a stream socket and tells when what it read arrived. Used by one thread.

    Where the kernel tells no time (TLS), what was there before it was asked for counts from when the socket was last empty:
    it may be younger than that, never older.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected
        self._is_stamped = ask_for_arrival(connected)
        self._empty_s = time.time()
        self.arrived_s = self._empty_s
        """Wall clock of the arrival of the last byte read."""

    def receive(self, limit_bytes: int) -> bytes:
        """Read once within the socket's time-out; b"" at the end. Raises what the socket raises."""
        if self._is_stamped:
            data, ancillary, _, _ = self._connected.recvmsg(limit_bytes, _ANCILLARY_BYTES)
            self.arrived_s = arrival_of(ancillary) or time.time()
            return data
        waited = not self._is_ready()
        if waited:
            self._empty_s = time.time()
        data = self._connected.recv(limit_bytes)
        self.arrived_s = time.time() if waited else self._empty_s
        return data

    def _is_ready(self) -> bool:
        if isinstance(self._connected, ssl.SSLSocket) and self._connected.pending():
            return True
        poll = select.poll()
        poll.register(self._connected, select.POLLIN)
        return bool(poll.poll(0))
