"""`multipart/x-mixed-replace` as cameras send it: bytes in, bodies of parts out. No I/O, bounded memory.

Cameras write their boundary otherwise than they announce it, or not at all, count lengths wrongly, and forget blank lines. What
never lies is the picture: a JPEG begins with its marker, and its segments say how far it goes. So parts are read by their
headers where these are right, and by their pictures where they are not.
"""

import re
from typing import Final

from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

PART_LIMIT_BYTES: Final = 32 * 1024 * 1024
_HEADERS_LIMIT_BYTES: Final = 16 * 1024
_JUNK_LIMIT_BYTES: Final = 1024 * 1024
_BOUNDARY = re.compile(r';\s*boundary\s*=\s*(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_LENGTH = re.compile(rb"^[ \t]*content-?length[ \t]*:?[ \t]*([0-9]{1,12})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_BEGIN_OF_IMAGE: Final = b"\xff\xd8\xff"
_END_OF_IMAGE: Final = b"\xff\xd9"
_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""In a scan, a byte of ff is followed by 0, by a restart marker or by another ff; all else ends it."""


def boundary_of(content_type: str) -> bytes:
    """Return what separates parts, from a `Content-Type`; dashes in front of the boundary count once. b"" when it names none."""
    match = _BOUNDARY.search(content_type)
    name = ((match[1] or match[2]) if match else "").strip().lstrip("-")
    return b"--" + name.encode("latin-1", "replace") if name else b""


class MultipartParser:
    """Takes a stream apart. A part whose length is wrong or not given ends with its picture, or where the next one begins."""

    def __init__(self, boundary: bytes = b"", limit_bytes: int = PART_LIMIT_BYTES) -> None:
        self._boundary = boundary
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._trusts_lengths = True
        self._scan = _JpegScan()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the pictures that they complete.

        Raises:
            SourceError: `corrupt` when what is between pictures never ends, `too_large` when a picture does not.
        """
        self._buffer += data
        bodies: list[bytes] = []
        while (body := self._next()) is not None:
            bodies.append(body)
        return bodies

    def _next(self) -> bytes | None:
        begin = self._buffer.find(_BEGIN_OF_IMAGE)
        if begin < 0:
            self._check_junk()
            return None
        length = self._length(begin)
        end = self._scan.end(self._buffer, begin) if length is None else self._end_by_length(begin, length)
        if end is None and len(self._buffer) - begin > self._limit_bytes:
            raise _too_large()
        return None if end is None else self._cut(begin, end)

    def _end_by_length(self, begin: int, length: int) -> int | None:
        """Return where a picture ends whose length is given; when that is wrong, where its markers say."""
        end = begin + length
        if length > self._limit_bytes:
            raise _too_large()
        if len(self._buffer) < end:
            return None
        if bytes(self._buffer[max(begin, end - 64) : end]).rstrip(b"\r\n\0").endswith(_END_OF_IMAGE):
            return end
        if len(self._buffer) < end + len(self._boundary or b"--") + 2:
            return None
        if self._is_next_part(end):
            return end
        # From now on the pictures say how long they are.
        self._trusts_lengths = False
        return self._scan.end(self._buffer, begin)

    def _check_junk(self) -> None:
        """Raise `SourceError` when what is not a picture goes on for too long."""
        lengths = _LENGTH.findall(bytes(self._buffer[-_HEADERS_LIMIT_BYTES:]))
        if lengths and int(lengths[-1]) > self._limit_bytes:
            raise _too_large()
        if len(self._buffer) <= min(self._limit_bytes, _JUNK_LIMIT_BYTES):
            return
        if _END_OF_HEADERS.search(self._buffer):
            raise _too_large()
        raise SourceError(FailureReason.CORRUPT, "the camera's stream has no pictures in it")

    def _cut(self, begin: int, end: int) -> bytes:
        body = bytes(self._buffer[begin:end])
        if not body.rstrip(b"\r\n\0").endswith(_END_OF_IMAGE):
            # The camera went on to the next part, so the picture is all there; its end mark was left out.
            body += _END_OF_IMAGE
        del self._buffer[:end]
        self._scan = _JpegScan()
        return body

    def _length(self, begin: int) -> int | None:
        """Return what the headers before a picture say of its length."""
        if not self._trusts_lengths:
            return None
        found = _LENGTH.findall(bytes(self._buffer[max(0, begin - _HEADERS_LIMIT_BYTES) : begin]))
        return int(found[-1]) or None if found else None

    def _is_next_part(self, at: int) -> bool:
        """Return whether a part may end here although its picture has no end."""
        after = bytes(self._buffer[at : at + 200]).lstrip(b"\r\n")
        return after.startswith(self._boundary or b"--")


class _JpegScan:
    """Finds the end of one picture in a buffer that grows; goes on where it was."""

    def __init__(self) -> None:
        self._at = 0
        self._in_scan = False

    def end(self, buffer: bytearray, begin: int) -> int | None:
        """Return where the picture ends that begins there, or None while it is not all there.

        A picture without an end mark ends where a line with dashes follows in its scan, or where another picture begins.
        """
        at = max(self._at, begin + 2)
        while at + 4 <= len(buffer):
            if self._in_scan:
                found = _SCAN.search(buffer, at)
                if found is None:
                    self._at = max(at, len(buffer) - 1)
                    return self._without_end(buffer, begin)
                self._at = at = found.start()
                del found
                self._in_scan = False
                # A marker's length may not have come yet.
                continue
            if buffer[at] != 0xFF:
                return at
            kind = buffer[at + 1]
            if kind == 0xD9:
                return at + 2
            if kind == 0xD8:
                place = buffer.rfind(b"\r\n--", begin, at)
                return place if place > begin else at
            if kind == 0xFF:
                at += 1
            elif kind in _STANDALONE:
                at += 2
            else:
                at += 2 + (buffer[at + 2] << 8 | buffer[at + 3])
                self._in_scan = kind == 0xDA
            self._at = at
        if len(buffer) >= at + 2 and buffer[at : at + 2] == _END_OF_IMAGE:
            return at + 2
        return None

    def _without_end(self, buffer: bytearray, begin: int) -> int | None:
        place = buffer.rfind(b"\r\n--", begin)
        if place < 0:
            return None
        head = bytes(buffer[place : place + 200]).lower()
        return place if b"content-" in head else None


def _too_large() -> SourceError:
    return SourceError(FailureReason.TOO_LARGE, "a part of the camera's stream is larger than any picture")
