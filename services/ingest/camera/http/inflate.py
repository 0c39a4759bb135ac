"""Bodies that a server compresses although nobody asked for it. Comes in bounded pieces."""

import zlib
from typing import Final

from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

_PIECE_BYTES: Final = 256 * 1024
_ANY_FORMAT: Final = 47
"""Both of gzip's and zlib's headers are known by themselves."""


class Inflate:
    """Decompresses gzip and zlib, and deflate without a header."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_ANY_FORMAT)
        self._is_first = True

    def feed(self, data: bytes) -> bytes:
        """Return at most 256 KiB of what these bytes hold; `more` has the rest. Raises `SourceError` `corrupt`."""
        try:
            out = self._inflate.decompress(data, _PIECE_BYTES)
        except zlib.error:
            if not self._is_first:
                raise _broken() from None
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                out = self._inflate.decompress(data, _PIECE_BYTES)
            except zlib.error:
                raise _broken() from None
        self._is_first = self._is_first and not data
        return out

    def more(self) -> bytes:
        """Return the next piece of what was fed; b"" when there is none."""
        if not self._inflate.unconsumed_tail:
            return b""
        return self.feed(self._inflate.unconsumed_tail)

    def require_end(self) -> None:
        """Raise `SourceError` `corrupt` when what was fed is not a whole."""
        if not self._inflate.eof:
            raise _broken()


def inflated(data: bytes, limit_bytes: int) -> bytes:
    """Return the whole content of gzip data. Raises `SourceError` `corrupt`, `too_large`."""
    inflate = Inflate()
    out = bytearray(inflate.feed(data))
    while piece := inflate.more():
        out += piece
        if len(out) > limit_bytes:
            raise SourceError(FailureReason.TOO_LARGE, "the camera's answer is larger than any picture or playlist")
    return bytes(out)


def _broken() -> SourceError:
    return SourceError(FailureReason.CORRUPT, "the camera's compressed answer is damaged")
