"""Payloads of JPEG (RFC 2435, types 0 and 1, with and without restart markers) into JPEG files. Pure; never raises."""

import struct
from functools import lru_cache
from typing import Final

from moodline.services.ingest.camera.rtsp.access_unit import Depacketiser

# Tables K.1 and K.2 of ITU-T T.81 in zigzag order, as appendix A of RFC 2435 scales them.
_LUMA: Final = bytes.fromhex(
    "100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763"
)
_CHROMA: Final = bytes.fromhex("11121218151 82f1a1a2f6342384263".replace(" ", "")) + b"\x63" * 49
_HEAD: Final = struct.Struct(">IBBBB")


class JpegDepacketiser(Depacketiser):
    """Every frame is a keyframe. The decoder knows the usual Huffman tables, which RFC 2435 prescribes.

    Args:
        size_px: Width and height to use for pictures over 2040 px, whose size the payload cannot say; None when unknown.
    """

    def __init__(self, size_px: tuple[int, int] | None = None) -> None:
        super().__init__()
        self._size_px = size_px
        self._scanned = 0
        self._tables: dict[int, bytes] = {}

    def _add(self, payload: bytes) -> bool:
        if len(payload) < 8:
            return False
        first, kind, quality, columns, rows = _HEAD.unpack_from(payload)
        offset = first & 0xFFFFFF
        at = 8
        restart = 0
        if 64 <= kind < 128:
            if len(payload) < 12:
                return False
            restart = payload[8] << 8 | payload[9]
            at = 12
        if offset == 0:
            found = self._quantisation(payload, at, quality)
            size_px = (columns * 8, rows * 8) if columns and rows else self._size_px
            if found is None or size_px is None or kind & ~0x41 or self._parts:
                return False
            tables, at = found
            self._scanned = 0
            self._keyframe = True
            if not self._keep(_header(kind & 1, size_px, tables, restart)):
                return False
        elif offset != self._scanned or not self._parts:
            return False
        self._scanned += len(payload) - at
        return self._keep(payload[at:])

    def _quantisation(self, payload: bytes, at: int, quality: int) -> tuple[bytes, int] | None:
        """Return both tables of 64 bytes, and where the scan begins."""
        if quality < 128:
            return (_scaled(quality), at) if 1 <= quality < 100 else None
        if len(payload) < at + 4:
            return None
        precision = payload[at + 1]
        length = payload[at + 2] << 8 | payload[at + 3]
        at += 4
        if length == 0:
            known = self._tables.get(quality)
            return None if known is None else (known, at)
        tables = payload[at : at + length]
        if precision or length not in {64, 128} or len(tables) != length:
            return None
        if length == 64:
            tables += tables
        self._tables[quality] = tables
        return tables, at + length

    def _joined(self) -> bytes:
        data = super()._joined()
        return data if not data or data.endswith(b"\xff\xd9") else data + b"\xff\xd9"


@lru_cache(maxsize=128)
def _scaled(quality: int) -> bytes:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return bytes(min(max((value * scale + 50) // 100, 1), 255) for value in _LUMA + _CHROMA)


@lru_cache(maxsize=8)
def _header(kind: int, size_px: tuple[int, int], tables: bytes, restart: int) -> bytes:
    """Return all of a JPEG file before its scan."""
    width, height = size_px
    sampling = 0x22 if kind else 0x21
    return b"".join(
        (
            b"\xff\xd8",
            b"\xff\xdb\0\x43\0" + tables[:64],
            b"\xff\xdb\0\x43\1" + tables[64:],
            struct.pack(">HHH", 0xFFDD, 4, restart) if restart else b"",
            struct.pack(">HHBHHB", 0xFFC0, 17, 8, height, width, 3),
            bytes((1, sampling, 0, 2, 0x11, 1, 3, 0x11, 1)),
            b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0",
        )
    )
