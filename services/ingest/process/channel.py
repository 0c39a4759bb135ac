"""Records over a socket pair: a length of 4 bytes, big-endian, then MessagePack. The parser is pure; `Channel` adds the socket.

Neither side trusts the other with memory or time: a length over the limit ends the connection, and waiting has a time-out.
"""

import select
import socket
import struct
import time
from typing import Final, Generic, TypeVar

import msgspec

from moodline.shared.errors import MoodlineError

RECORD_LIMIT_BYTES: Final = 64 * 1024 * 1024
_LENGTH: Final = struct.Struct("!I")
_CHUNK_BYTES: Final = 256 * 1024
_ENCODER: Final = msgspec.msgpack.Encoder()

In = TypeVar("In")


class ChannelError(MoodlineError):
    """The data on the socket are no record: too long, or of an unknown form. The connection cannot be used any more."""

    code = "channel"


class ChannelClosedError(MoodlineError):
    """The other side is gone, or this one was closed."""

    code = "channel_closed"


def encode_record(record: msgspec.Struct, limit_bytes: int = RECORD_LIMIT_BYTES) -> tuple[bytes, bytes]:
    """Return the length and the body of a record as they go over the socket. Raises `ChannelError` when it is too long."""
    body = _ENCODER.encode(record)
    if len(body) > limit_bytes:
        raise ChannelError(f"a record of {len(body)} bytes is over the limit of {limit_bytes}")
    return _LENGTH.pack(len(body)), body


class RecordParser(Generic[In]):
    """Bytes in, records out; bytes may come in pieces of any size. Pure."""

    def __init__(self, kind: "type[In]", limit_bytes: int = RECORD_LIMIT_BYTES) -> None:
        """Start at the first byte of a connection.

        Args:
            kind: Type, or union of types, of what may come.
            limit_bytes: Most bytes of one record.
        """
        self._decoder: msgspec.msgpack.Decoder[In] = msgspec.msgpack.Decoder(kind)
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        self._buffer += data

    def next(self) -> In | None:
        """Return the next whole record, or None when more bytes are needed.

        Raises:
            ChannelError: the length is over the limit, or the bytes are no such record.
        """
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > self._limit_bytes:
            raise ChannelError(f"a record of {length} bytes is over the limit of {self._limit_bytes}")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(memoryview(self._buffer)[_LENGTH.size : end])
        del self._buffer[:end]
        try:
            return self._decoder.decode(body)
        # Not chained: the error quotes what it found, which may be a secret.
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ChannelError("what came is not a record") from None


class Channel(Generic[In]):
    """One end of the socket pair. One thread receives and one sends; `shut` may come from any."""

    def __init__(self, connected: socket.socket, kind: "type[In]") -> None:
        """Take over a connected stream socket.

        Args:
            connected: The socket; closed by `close`.
            kind: Type, or union of types, of the records that the other side sends.
        """
        self._socket = connected
        self._socket.setblocking(True)
        self._parser: RecordParser[In] = RecordParser(kind)

    def send(self, record: msgspec.Struct) -> None:
        """Send one record; blocks until the socket took it whole.

        Raises:
            ChannelClosedError: the other side is gone.
            ChannelError: the record is too long; nothing was sent.
        """
        length, body = encode_record(record)
        try:
            if len(body) < _CHUNK_BYTES:
                self._socket.sendall(length + body)
            else:
                self._socket.sendall(length)
                self._socket.sendall(body)
        except OSError:
            raise ChannelClosedError("the other side is gone") from None

    def receive(self, timeout_s: float | None) -> In | None:
        """Return the next record, or None when it is not whole in time; what has come so far is kept.

        Args:
            timeout_s: Longest wait in s; None waits indefinitely.

        Raises:
            ChannelClosedError: the other side is gone, or `shut` was called.
            ChannelError: what came is no record.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while (record := self._parser.next()) is None:
            if not self._wait(deadline_s):
                return None
            self._parser.feed(self._read())
        return record

    def wait_closed(self) -> None:
        """Block until the other side is gone; what it sends meanwhile is dropped."""
        while True:
            try:
                self._read()
            except ChannelClosedError:
                return

    def shut(self) -> None:
        """End the connection in both directions; wakes whoever waits on it, here and on the other side."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # The other side was quicker, or it is closed.

    def close(self) -> None:
        """Close the socket. Only when nobody else uses it any more."""
        self._socket.close()

    def _wait(self, deadline_s: float | None) -> bool:
        # poll, not select: a worker with many cameras has file descriptors above 1023.
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLIN)
        except (OSError, ValueError):
            raise ChannelClosedError("the socket is closed") from None
        wait_ms = None if deadline_s is None else max(0.0, (deadline_s - time.monotonic()) * 1000)
        return bool(poll.poll(wait_ms))

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except OSError:
            raise ChannelClosedError("the other side is gone") from None
        if not data:
            raise ChannelClosedError("the other side is gone")
        return data
