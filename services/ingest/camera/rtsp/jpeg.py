"""Payloads of JPEG (RFC 2435, types 0 and 1, with and without restart markers) into JPEG files. Pure; never raises."""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from moodline.services.ingest.camera.input.access_unit import Depacketiser

# Tables K.1 and K.2 of ITU-T T.81 in zigzag order, as appendix A of RFC 2435 scales them.
_LUMA: Final = bytes.fromhex(
    "100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763"
)
_CHROMA: Final = bytes.fromhex("11121218151 82f1a1a2f6342384263".replace(" ", "")) + b"\x63" * 49
_HEAD: Final = struct.Struct(">IBBBB")
_ONVIF_PROFILES: Final = (b"\xff\xd8", b"\xff\xff")
"""ONVIF Streaming Specification, 5.1.2: the JPEG's own header segments in an extension of the RTP header."""


class JpegDepacketiser(Depacketiser):
    """Every frame is a keyframe. The decoder knows the usual Huffman tables, which RFC 2435 prescribes.

    Pictures over 2040 px do not say their size in the payload. It is taken from the header segments that ONVIF puts into an
    extension of the RTP header, or from the session description.

    Args:
        size_px: Width and height that the session description names; None when it does not.
    """

    def __init__(self, size_px: tuple[int, int] | None = None) -> None:
        super().__init__()
        self._size_px = size_px
        self._scanned = 0
        self._tables: dict[int, bytes] = {}
        self._segments: dict[int, bytes] = {}

    def _add(self, payload: bytes, extension: bytes) -> bool:
        if len(payload) < 8:
            return False
        if extension[:2] in _ONVIF_PROFILES:
            self._record_segments(extension[2:])
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
            if found is None or self._parts:
                return False
            tables, at = found
            header = self._header(kind, (columns * 8, rows * 8), tables, restart)
            self._scanned = 0
            self._keyframe = True
            if header is None or not self._keep(header):
                return False
        elif offset != self._scanned or not self._parts:
            return False
        self._scanned += len(payload) - at
        return self._keep(payload[at:])

    def _record_segments(self, data: bytes) -> None:
        found: dict[int, bytes] = {}
        for marker, segment in _segments_of(data):
            # There may be several of tables.
            found[marker] = found.get(marker, b"") + segment if marker in (0xDB, 0xC4) else segment
        self._segments.update(found)

    def _header(self, kind: int, header_px: tuple[int, int], tables: bytes, restart: int) -> bytes | None:
        segments = self._segments
        frame = segments.get(0xC0) or segments.get(0xC1) or b""
        size_px = header_px if all(header_px) else self._size_px
        if not _is_frame(frame):
            if size_px is None or kind & ~0x41:
                return None
            frame = _frame(kind & 1, size_px)
        return _header(frame, segments.get(0xDB) or tables, restart, segments.get(0xC4, b""))

    def _quantisation(self, payload: bytes, at: int, quality: int) -> tuple[bytes, int] | None:
        """Return the tables as a segment of a JPEG file, and where the scan begins."""
        if quality < 128:
            return (_segment_of_tables(_scaled(min(max(quality, 1), 99)), 0), at)
        if len(payload) < at + 4:
            return None
        precision = payload[at + 1]
        length = payload[at + 2] << 8 | payload[at + 3]
        at += 4
        if length == 0:
            known = self._tables.get(quality) or (_segment_of_tables(_scaled(50), 0) if 0xDB in self._segments else None)
            return None if known is None else (known, at)
        tables = payload[at : at + length]
        if len(tables) != length:
            return None
        segment = _segment_of_tables(tables, precision)
        if not segment:
            return None
        self._tables[quality] = segment
        return segment, at + length

    def _joined(self) -> bytes:
        data = super()._joined()
        return data if not data or data.endswith(b"\xff\xd9") else data + b"\xff\xd9"


@lru_cache(maxsize=128)
def _scaled(quality: int) -> bytes:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return bytes(min(max((value * scale + 50) // 100, 1), 255) for value in _LUMA + _CHROMA)


def _segments_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and whole segment of the beginning of a JPEG file, up to its scan or the first damage."""
    at = 2 if data.startswith(b"\xff\xd8") else 0
    while len(data) - at >= 4 and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:
            at += 1
            continue
        end = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if end > len(data):
            return
        yield data[at + 1], data[at:end]
        at = end


def _is_frame(segment: bytes) -> bool:
    """Return whether it is the frame header of a picture of three components, with a size."""
    return len(segment) == 19 and segment[5:7] != b"\0\0" != segment[7:9] and segment[9] == 3


def _frame(kind: int, size_px: tuple[int, int]) -> bytes:
    width, height = size_px
    components = bytes((1, 0x22 if kind else 0x21, 0, 2, 0x11, 1, 3, 0x11, 1))
    return struct.pack(">HHBHHB", 0xFFC0, 17, 8, height, width, 3) + components


def _segment_of_tables(tables: bytes, precision: int) -> bytes:
    """Return a DQT segment; b"" when the tables make no sense. One table is used for all components."""
    out, at, number = b"", 0, 0
    while at < len(tables) and number < 4:
        is_wide = precision >> number & 1
        size = 128 if is_wide else 64
        table = tables[at : at + size]
        if len(table) < size:
            return b""
        out += bytes((is_wide << 4 | number,)) + table
        at += size
        number += 1
    if number == 1:
        out += bytes((out[0] | 1,)) + out[1:]
    return b"\xff\xdb" + struct.pack(">H", len(out) + 2) + out if out else b""


@lru_cache(maxsize=8)
def _header(frame: bytes, tables: bytes, restart: int, huffman: bytes) -> bytes:
    """Return all of a JPEG file before its scan; `frame`, `tables` and `huffman` are segments, `huffman` may be empty."""
    scan = b"".join(bytes((frame[10 + 3 * number], 0x11 if number else 0)) for number in range(3))
    return b"".join(
        (
            b"\xff\xd8",
            tables,
            huffman,
            struct.pack(">HHH", 0xFFDD, 4, restart) if restart else b"",
            frame,
            b"\xff\xda\0\x0c\3" + scan + b"\0\x3f\0",
        )
    )
