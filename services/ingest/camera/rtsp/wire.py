"""Parser of an RTSP connection (RFC 2326): responses, and media packets between them. Bytes in, items out; no I/O."""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from moodline.services.ingest.camera.input.authentication import text_of, wire_bytes
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

HEADER_LIMIT_BYTES: Final = 32 * 1024
BODY_LIMIT_BYTES: Final = 256 * 1024
_DOLLAR: Final = 0x24
_JUNK_LIMIT_BYTES: Final = 512 * 1024
_ANSWERS: Final = (b"RTSP/", b"RTSP ")
_REQUESTS: Final = (
    b"ANNOU",
    b"DESCR",
    b"GET_P",
    b"OPTIO",
    b"PAUSE",
    b"PLAY ",
    b"PLAY_",
    b"REDIR",
    b"SET_P",
    b"SETUP",
    b"TEARD",
    b"RECOR",
)
_TELLING_BYTES: Final = 5
_OPEN_END_S: Final = 0.7
_SHORT_BODY_S: Final = 3.0
_GOES_ON = re.compile(rb"\$[\x00-\x07][\x00-\xff]{2}[\x80-\xbf]|RTSP/1")
"""A packet of RTP or RTCP (version 2) in its frame, or an answer."""
_GREETING_LIMIT_BYTES: Final = 256
_TEXT = re.compile(rb"[\t\r\n -~]*")
_WEB_SERVER: Final = "a web server answers at this port: RTSP is at another, mostly 554; or the URL begins with http://"
_TLS: Final = "the camera speaks TLS at this port: the URL begins with rtsps://"
_FILLING: Final = b"\r\n\0 \t"
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n|\r\r")
_END_OF_LINE = re.compile(r"\r?\n|\r")
_STATUS = re.compile(r"RTSP(?:/[0-9.]*)?\s*([1-9][0-9]{2})(?![0-9]).*", re.IGNORECASE)
_LENGTH = re.compile(r"\+?([0-9]{1,9})(?![0-9]).*", re.DOTALL)


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
        self._junk_bytes = 0
        self._is_rtsp = False
        self._begun: tuple[int, dict[str, list[str]], int] | None = None
        self.expects_body = False
        """Whether the next answer should have a body: then one that counts none is waited for."""

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
                end = at + 4 + (buffer[at + 2] << 8 | buffer[at + 3]) if held - at >= 4 else held + 1
                if end > held:
                    return None
                self._at = end
                return Interleaved(buffer[at + 1], bytes(buffer[at + 4 : end]))
            if buffer[at] in _FILLING:
                # Some cameras end a body with a line break, or with bytes of 0, that they do not count.
                self._at += 1
                continue
            if not self._is_message(at) and self._skip():
                continue
            message = self._message() if self._is_message(self._at) else None
            if message is None:
                return None
            self._junk_bytes, self._is_rtsp = 0, True
            if message.status:
                return message

    def idle(self, silent_s: float) -> Response | None:
        """Return an answer whose body has no length, or is shorter than announced, when nothing has come for long enough."""
        if self._begun is None:
            return None
        status, headers, start = self._begun
        if silent_s < (_SHORT_BODY_S if _content_length(headers) else _OPEN_END_S):
            return None
        body, self._at, self._begun = bytes(self._buffer[start:]), len(self._buffer), None
        return Response(status, headers, body)

    def _is_message(self, at: int) -> bool:
        """Return whether a message may begin there: an answer, or a request of the camera."""
        begin = bytes(self._buffer[at : at + _TELLING_BYTES]).upper()
        beginnings = _ANSWERS if self._junk_bytes else (*_ANSWERS, *_REQUESTS)
        return any(one.startswith(begin) for one in beginnings)

    def _skip(self) -> bool:
        """Pass over what is no RTSP, to where that may go on: the rest of a body that was counted short, a broken packet.

        Returns whether there is something to look at. Raises `SourceError` where it never ends.
        """
        if not self._is_rtsp and not self._junk_bytes:
            self._check_beginning()
        found = _GOES_ON.search(self._buffer, self._at + 1)
        # The last bytes may be the beginning of what goes on.
        end = max(self._at, len(self._buffer) - _TELLING_BYTES) if found is None else found.start()
        is_found = found is not None
        del found
        self._junk_bytes += end - self._at
        self._at = end
        if self._junk_bytes > (_JUNK_LIMIT_BYTES if self._is_rtsp else _GREETING_LIMIT_BYTES):
            raise _nonsense()
        return is_found

    def _check_beginning(self) -> None:
        """Raise `SourceError` when what comes first is that of something else. A line of greeting is borne."""
        begin = bytes(self._buffer[self._at : self._at + _GREETING_LIMIT_BYTES])
        if begin.startswith(b"HTTP/"):
            raise _other(_WEB_SERVER)
        if begin.startswith((b"\x15\x03", b"\x16\x03")):
            raise _other(_TLS)
        if not _TEXT.fullmatch(begin):
            raise _nonsense()

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
        is_open = self.expects_body and status == 200 and not length
        if is_open or len(self._buffer) < start + (length or 0):
            # What nobody counted ends when nothing comes any more.
            self._begun = status, headers, start
            if is_open and len(self._buffer) - start > BODY_LIMIT_BYTES:
                raise _nonsense()
            return None
        self._begun = None
        self._at = start + (length or 0)
        return Response(status, headers, bytes(self._buffer[start : self._at]))


def parse_head(head: bytes) -> tuple[int, dict[str, list[str]]]:
    """Return status (0 for a request) and headers of a message without its body. Raises `SourceError` `corrupt`."""
    first, *lines = _END_OF_LINE.split(text_of(head))
    words = first.split(None, 2)
    answer = _STATUS.fullmatch(first)
    status = int(answer[1]) if answer else 0
    if answer is None and (len(words) != 3 or not words[2].upper().startswith("RTSP/")):
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
    return wire_bytes("\r\n".join([*lines, "", ""]))


def _content_length(headers: dict[str, list[str]]) -> int | None:
    """Return the length of a body; None where none is given, or what is given is no length. Raises `SourceError`."""
    text = headers.get("content-length", [""])[0]
    match = _LENGTH.fullmatch(text)
    if match is None and not text.isdecimal():
        return None
    if match is None or int(match[1]) > BODY_LIMIT_BYTES:
        raise _nonsense()
    return int(match[1])


def _nonsense() -> SourceError:
    return SourceError(FailureReason.CORRUPT, "what the camera sends is not RTSP, or is too long")


def _other(sentence: str) -> SourceError:
    return SourceError(FailureReason.CORRUPT, sentence)
