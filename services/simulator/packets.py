"""Packs coded frames into RTP payloads: H.264 (RFC 6184), H.265 (RFC 7798), JPEG (RFC 2435). Pure functions."""

import re
from typing import Final

from moodline.services.simulator.options import Codec
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

PAYLOAD_LIMIT_BYTES: Final = 1400 - 12
"""A packet of 1400 bytes, with its RTP header."""

_START_CODE: Final = re.compile(b"\x00\x00\x01")
_FU_A: Final = 28
_FU_H265: Final = 49


def split_nals(stream: bytes) -> list[bytes]:
    """Return the NAL units of an Annex B byte stream, without start codes."""
    starts = [match.end() for match in _START_CODE.finditer(stream)]
    ends = [*(start - 3 for start in starts[1:]), len(stream)]
    nals = (stream[start:end].rstrip(b"\x00") for start, end in zip(starts, ends, strict=False))
    return [nal for nal in nals if nal]


def nal_kind(nal: bytes, codec: Codec) -> int:
    """Return nal_unit_type."""
    return nal[0] & 0x1F if codec is Codec.H264 else (nal[0] >> 1) & 0x3F


PARAMETER_SETS: Final = {Codec.H264: (7, 8), Codec.H265: (32, 33, 34)}
"""Their nal_unit_types: SPS and PPS, or VPS, SPS and PPS."""


def parameter_sets(nals: list[bytes], codec: Codec) -> tuple[bytes, ...]:
    """Return the first parameter set of each kind. Raises `SourceError` when one is missing."""
    found = {nal_kind(nal, codec): nal for nal in reversed(nals)}
    try:
        return tuple(found[kind] for kind in PARAMETER_SETS[codec])
    except KeyError:
        raise SourceError(FailureReason.CORRUPT, "the encoded clip lacks its parameter sets") from None


def nal_payloads(nals: list[bytes], codec: Codec, limit: int = PAYLOAD_LIMIT_BYTES) -> tuple[bytes, ...]:
    """Return the payloads of one access unit, each NAL unit whole or in fragments; the last one gets the marker."""
    payloads: list[bytes] = []
    for nal in nals:
        if len(nal) <= limit:
            payloads.append(nal)
        elif codec is Codec.H264:
            head = bytes([nal[0] & 0xE0 | _FU_A])
            payloads += _fragments(head, nal[0] & 0x1F, nal[1:], limit)
        else:
            head = bytes([nal[0] & 0x81 | _FU_H265 << 1, nal[1]])
            payloads += _fragments(head, nal[0] >> 1 & 0x3F, nal[2:], limit)
    return tuple(payloads)


def _fragments(head: bytes, kind: int, body: bytes, limit: int) -> list[bytes]:
    """Cut what follows a NAL unit's header; `kind` goes into each fragment's header, with a bit at the start and the end."""
    room = limit - len(head) - 1
    pieces = [body[at : at + room] for at in range(0, len(body), room)]
    marks = [0x80 * (number == 0) | 0x40 * (number == len(pieces) - 1) for number in range(len(pieces))]
    return [head + bytes([mark | kind]) + piece for mark, piece in zip(marks, pieces, strict=True)]


def jpeg_payloads(jpeg: bytes, limit: int = PAYLOAD_LIMIT_BYTES) -> tuple[bytes, ...]:
    """Return the payloads of one baseline JPEG with 4:2:0 or 4:2:2 sampling, the standard Huffman tables, no restarts.

    Quantisation tables travel with each frame (Q of 255). Raises `SourceError` for any other JPEG.
    """
    tables, kind, blocks, scan = _jpeg_parts(jpeg)
    quantisation = bytes([0, 0]) + len(tables).to_bytes(2, "big") + tables
    payloads: list[bytes] = []
    at = 0
    while at < len(scan):
        head = b"\x00" + at.to_bytes(3, "big") + bytes([kind, 255, *blocks]) + (quantisation if at == 0 else b"")
        piece = scan[at : at + limit - len(head)]
        payloads.append(head + piece)
        at += len(piece)
    return tuple(payloads)


def _jpeg_parts(jpeg: bytes) -> tuple[bytes, int, tuple[int, int], bytes]:
    """Return both quantisation tables, RFC 2435's type, width and height in blocks of 8 px, and the entropy-coded data."""
    tables: dict[int, bytes] = {}
    frame = b""
    at = 2
    while at + 4 <= len(jpeg):
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        body = jpeg[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDB:
            while len(body) >= 65:
                tables[body[0]], body = body[1:65], body[65:]
        elif marker == 0xC0:
            frame = body
        elif marker == 0xDD and body != b"\x00\x00":
            break
        elif marker == 0xDA:
            scan = jpeg[at:].removesuffix(b"\xff\xd9")
            kinds = {0x21: 0, 0x22: 1}
            if len(frame) != 15 or frame[7] not in kinds or any(table not in tables for table in (frame[8], frame[11])):
                break
            blocks = (int.from_bytes(frame[3:5], "big") // 8, int.from_bytes(frame[1:3], "big") // 8)
            return tables[frame[8]] + tables[frame[11]], kinds[frame[7]], blocks, scan
    raise SourceError(FailureReason.CODEC, "this kind of JPEG cannot be sent over RTP")
