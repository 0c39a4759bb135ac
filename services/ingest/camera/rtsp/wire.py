"""Parser of an RTSP connection (RFC 2326): responses, and media packets between them. Bytes in, items out; no I/O."""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

HEADER_LIMIT_BYTES: Final = 32 * 1024
BODY_LIMIT_BYTES: Final = 256 * 1024
_DOLLAR: Final = 0x24
_FILLING: Final = b"\r\n\0 \t"
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n|\r\r")
_END_OF_LINE = re.compile(r"\r?\n|\r")


class Interleaved(NamedTuple):
    """A packet of RTP or RTCP that came over the RTSP connection itself; never over 65,535 bytes."""

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. Header names are lower-case; of a name that came several times all values are kept, in order."""

    status: int
    headers: dict[str, list[str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first value of a header, or None."""
        values = self.headers.get(name)
        return values[0] if values else None


class Wire:
    """Takes an RTSP connection's bytes apart. Memory is bounded by the limits of header, body and packet."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Add bytes as they came. Items must be taken until there are none before more is fed."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def next_item(self) -> Interleaved | Response | None:
        """Return the next whole item, or None when more bytes are needed. Requests of the camera are passed over.

        Raises:
            SourceError: `corrupt` when it is not RTSP, or over the limits.
        """
        buffer = self._buffer
        while True:
            at, held = self._at, len(buffer)
            if at >= held:
                return None
            if buffer[at] == _DOLLAR:
                if held - at < 4:
                    return None
                end = at + 4 + (buffer[at + 2] << 8 | buffer[at + 3])
                if end > held:
                    return None
                self._at = end
                return Interleaved(buffer[at + 1], bytes(buffer[at + 4 : end]))
            if buffer[at] in _FILLING:
                # Some cameras end a body with a line break, or with bytes of 0, that they do not count.
                self._at += 1
                continue
            if not chr(buffer[at]).isalpha() or not buffer[at] < 0x80:
                raise _nonsense()
            message = self._message()
            if message is None:
                return None
            if message.status:
                return message

    def _message(self) -> Response | None:
        found = _END_OF_HEAD.search(self._buffer, self._at, self._at + HEADER_LIMIT_BYTES)
        if found is None:
            if len(self._buffer) - self._at >= HEADER_LIMIT_BYTES:
                raise _nonsense()
            return None
        end, start = found.span()
        del found  # it holds the buffer, which could not grow
        status, headers = parse_head(bytes(self._buffer[self._at : end]))
        length = _content_length(headers)
        if len(self._buffer) < start + length:
            return None
        self._at = start + length
        return Response(status, headers, bytes(self._buffer[start : self._at]))


def parse_head(head: bytes) -> tuple[int, dict[str, list[str]]]:
    """Return status (0 for a request) and headers of a message without its body. Raises `SourceError` `corrupt`."""
    first, *lines = _END_OF_LINE.split(head.decode("utf-8", "replace"))
    words = first.split(None, 2)
    if len(words) < 2:
        raise _nonsense()
    status = 0
    if words[0].upper().startswith("RTSP/"):
        if not (len(words[1]) == 3 and words[1].isascii() and words[1].isdigit()) or words[1] < "100":
            raise _nonsense()
        status = int(words[1])
    elif len(words) != 3 or not words[2].upper().startswith("RTSP/"):
        raise _nonsense()
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if line[:1] in (" ", "\t") and headers:
            # A header goes on in the next line (RFC 2326, 4.2).
            values = headers[next(reversed(headers))]
            values[-1] = f"{values[-1]} {line.strip()}"
        elif colon:
            headers.setdefault(name.strip().lower(), []).append(value.strip())
    return status, headers


def format_request(method: str, url: str, headers: dict[str, str]) -> bytes:
    """Return a request without a body. Nothing in it may hold a line break."""
    lines = [f"{method} {url} RTSP/1.0", *(f"{name}: {value}" for name, value in headers.items())]
    assert not any("\r" in line or "\n" in line for line in lines), "a line break in a request"
    return "\r\n".join([*lines, "", ""]).encode()


def _content_length(headers: dict[str, list[str]]) -> int:
    text = headers.get("content-length", [""])[0] or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 9) or int(text) > BODY_LIMIT_BYTES:
        raise _nonsense()
    return int(text)


def _nonsense() -> SourceError:
    return SourceError(FailureReason.CORRUPT, "what the camera sends is not RTSP, or is too long")
