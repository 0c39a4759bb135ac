"""`multipart/x-mixed-replace` as cameras send it: bytes in, bodies of parts out. No I/O, bounded memory."""

import re
from typing import Final

from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

PART_LIMIT_BYTES: Final = 32 * 1024 * 1024
_HEADERS_LIMIT_BYTES: Final = 16 * 1024
_JUNK_LIMIT_BYTES: Final = 1024 * 1024
_BOUNDARY = re.compile(r';\s*boundary\s*=\s*(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_LENGTH = re.compile(rb"^content-length[ \t]*:[ \t]*([0-9]{1,12})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
_END_OF_IMAGE: Final = b"\xff\xd9"


def boundary_of(content_type: str) -> bytes:
    """Return the line that separates parts, from a `Content-Type`; dashes in front of the boundary count once.

    Raises:
        SourceError: `corrupt` when there is none.
    """
    match = _BOUNDARY.search(content_type)
    name = ((match[1] or match[2]) if match else "").strip().lstrip("-")
    if not name:
        raise SourceError(FailureReason.CORRUPT, "the camera does not say how its pictures are separated")
    return b"--" + name.encode("latin-1", "replace")


class MultipartParser:
    """Takes a stream apart. A part without a length, or of a camera whose lengths are wrong, ends where the next one begins."""

    def __init__(self, boundary: bytes, limit_bytes: int = PART_LIMIT_BYTES) -> None:
        self._boundary = boundary
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._trusts_lengths = True
        self._is_in_part = False
        self._length: int | None = None
        self._after_length = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the bodies that they complete.

        Raises:
            SourceError: `corrupt` when headers or what is between parts never end, `too_large` when a part does not.
        """
        self._buffer += data
        bodies: list[bytes] = []
        while (self._next_body(bodies)) if self._is_in_part else self._next_headers():
            pass
        return bodies

    def _next_headers(self) -> bool:
        """Get past the next boundary and its headers; returns whether that was possible yet."""
        at = self._buffer.find(self._boundary)
        if at < 0:
            if len(self._buffer) > _JUNK_LIMIT_BYTES:
                raise SourceError(FailureReason.CORRUPT, "the camera's stream has no boundary between its pictures")
            return False
        if self._after_length and bytes(self._buffer[:at]).strip(b"\r\n- "):
            self._trusts_lengths = False
        self._after_length = False
        end = _END_OF_HEADERS.search(self._buffer, at)
        if end is None or end.start() - at > _HEADERS_LIMIT_BYTES:
            if len(self._buffer) - at > _HEADERS_LIMIT_BYTES:
                raise SourceError(FailureReason.CORRUPT, "the headers of the camera's pictures do not end")
            return False
        length = _LENGTH.search(bytes(self._buffer[at : end.start()]))
        self._length = int(length[1]) if length is not None and self._trusts_lengths else None
        if self._length is not None and self._length > self._limit_bytes:
            raise _too_large()
        del self._buffer[: end.end()]
        self._is_in_part, self._searched = True, 0
        return True

    def _next_body(self, bodies: list[bytes]) -> bool:
        end = self._length if self._length is not None else self._find_end()
        if end is None or len(self._buffer) < end:
            if len(self._buffer) > self._limit_bytes:
                raise _too_large()
            return False
        bodies.append(bytes(self._buffer[:end]))
        del self._buffer[:end]
        self._is_in_part, self._after_length = False, self._length is not None
        return True

    def _find_end(self) -> int | None:
        """Find the boundary that ends the part: at the beginning of a line, or right after a picture."""
        while (at := self._buffer.find(self._boundary, self._searched)) >= 0:
            self._searched = at + 1
            before = bytes(self._buffer[max(0, at - 4) : at]).rstrip(b"-")
            if at == 0 or before.endswith((b"\n", _END_OF_IMAGE)):
                return at
        self._searched = max(self._searched, len(self._buffer) - len(self._boundary))
        return None


def _too_large() -> SourceError:
    return SourceError(FailureReason.TOO_LARGE, "a part of the camera's stream is larger than any picture")
