"""Payloads of formats that few cameras send: VP8, VP9, AV1, MPEG-1 and 2, H.263. Pure; never raises."""

from collections.abc import Iterator
from typing import Final

from moodline.services.ingest.camera.input.access_unit import Depacketiser

_SEQUENCE_HEADER: Final = b"\0\0\1\xb3"
_OBU_SEQUENCE_HEADER, _OBU_TEMPORAL_DELIMITER, _OBU_TILE_LIST = 1, 2, 8


class MpegVideoDepacketiser(Depacketiser):
    """MPEG-1 and MPEG-2 (RFC 2250)."""

    def _add(self, payload: bytes, extension: bytes) -> bool:  # noqa: ARG002  # no extension belongs to it
        if len(payload) <= 4:
            return False
        start = 8 if payload[0] & 0x04 else 4
        # An intra picture decodes alone; a sequence header is sent before it.
        self._keyframe |= payload[2] & 0x07 == 1
        return self._keep(payload[start:])


class H263Depacketiser(Depacketiser):
    """H.263 of 1998 and 2000 (RFC 4629)."""

    def _add(self, payload: bytes, extension: bytes) -> bool:  # noqa: ARG002  # no extension belongs to it
        if len(payload) <= 2:
            return False
        begins, has_redundancy, extra = payload[0] & 0x04, payload[0] & 0x02, (payload[0] & 1) << 5 | payload[1] >> 3
        body = payload[2 + bool(has_redundancy) + extra :]
        if begins and not self._parts:
            self._keyframe = _is_h263_intra(body)
        elif not self._parts:
            return False
        return self._keep(b"\0\0" + body if begins else body)


class H263OldDepacketiser(Depacketiser):
    """H.263 of 1996 (RFC 2190): packets may begin and end within a byte."""

    def __init__(self) -> None:
        super().__init__()
        self._end_bits = 0

    def _add(self, payload: bytes, extension: bytes) -> bool:  # noqa: ARG002  # no extension belongs to it
        if not payload:
            return False
        header = (4, 4, 8, 12)[payload[0] >> 6]
        begin_bits, body = payload[0] >> 3 & 7, payload[header:]
        if not body:
            return False
        if not self._parts:
            self._end_bits = payload[0] & 7
            self._keyframe = _is_h263_intra(body[2:])
            return self._keep(body) and body.startswith(b"\0\0")
        fits = (begin_bits + self._end_bits) % 8 == 0
        if begin_bits and fits:
            # Both packets have a part of the byte between them.
            last = self._parts[-1]
            self._parts[-1] = last[:-1] + bytes((last[-1] & 0xFF << self._end_bits | body[0] & 0xFF >> begin_bits,))
            body = body[1:]
        self._end_bits = payload[0] & 7
        return self._keep(body) and fits


class Vp8Depacketiser(Depacketiser):
    """VP8 (RFC 7741)."""

    def _add(self, payload: bytes, extension: bytes) -> bool:  # noqa: ARG002  # no extension belongs to it
        if not payload:
            return False
        begins = payload[0] & 0x10 and not payload[0] & 0x07
        start = 1
        if payload[0] & 0x80 and len(payload) > 1:
            flags = payload[1]
            start = 2
            if flags & 0x80:
                start += 2 if payload[start : start + 1] >= b"\x80" else 1
            start += bool(flags & 0x40) + bool(flags & 0x30)
        body = payload[start:]
        if not body or (not begins and not self._parts):
            return False
        if not self._parts:
            self._keyframe = body[0] & 1 == 0
        return self._keep(body)


class Vp9Depacketiser(Depacketiser):
    """VP9 (RFC 9628), with one spatial layer."""

    def _add(self, payload: bytes, extension: bytes) -> bool:  # noqa: ARG002  # no extension belongs to it
        if not payload:
            return False
        flags = payload[0]
        start = _vp9_header_bytes(payload)
        body = payload[start:]
        if not body or (not flags & 0x08 and not self._parts):
            return False
        if not self._parts:
            self._keyframe = _is_vp9_key(body[0])
        return self._keep(body)


class Av1Depacketiser(Depacketiser):
    """AV1 (RTP payload format of the Alliance for Open Media), into temporal units with sizes."""

    def __init__(self) -> None:
        super().__init__()
        self._fragment = b""

    def _add(self, payload: bytes, extension: bytes) -> bool:  # noqa: ARG002  # no extension belongs to it
        if len(payload) < 2:
            return False
        goes_on, is_cut, count = payload[0] & 0x80, payload[0] & 0x40, payload[0] >> 4 & 3
        elements = list(_av1_elements(payload[1:], count))
        if not elements or bool(goes_on) != bool(self._fragment):
            self._fragment = b""
            return False
        elements[0] = self._fragment + elements[0]
        self._fragment = elements.pop() if is_cut else b""
        return all(self._unit(obu) for obu in elements)

    def _unit(self, obu: bytes) -> bool:
        if not obu:
            return False
        kind, has_extension, has_size = obu[0] >> 3 & 15, obu[0] & 4, obu[0] & 2
        if kind in (_OBU_TEMPORAL_DELIMITER, _OBU_TILE_LIST):
            return True
        self._keyframe |= kind == _OBU_SEQUENCE_HEADER
        if has_size:
            return self._keep(obu)
        head = 2 if has_extension else 1
        if len(obu) < head:
            return False
        return self._keep(bytes((obu[0] | 2,)) + obu[1:head] + _leb128(len(obu) - head) + obu[head:])


def _is_h263_intra(body: bytes) -> bool:
    """Return whether a picture is intra, by its header without the first two bytes (ITU-T H.263, 5.1)."""
    if len(body) < 6:
        return False
    bits = int.from_bytes(body[:6], "big")
    if bits >> 26 & 7 != 7:
        return bits >> 25 & 1 == 0
    # PLUSPTYPE: with UFEP of 1, 18 bits come before the picture's type.
    kind = bits >> 2 & 7 if bits >> 23 & 7 == 1 else bits >> 20 & 7
    return kind == 0


def _vp9_header_bytes(payload: bytes) -> int:
    flags, at = payload[0], 1
    if flags & 0x80:
        at += 2 if payload[at : at + 1] >= b"\x80" else 1
    if flags & 0x20:
        at += 1 if flags & 0x10 else 2
    if flags & 0x10 and flags & 0x40:
        for _ in range(3):
            at += 1
            if not payload[at - 1 : at] or not payload[at - 1] & 1:
                break
    if flags & 0x02 and len(payload) > at:
        structure = payload[at]
        at += 1 + (4 * ((structure >> 5) + 1) if structure & 0x10 else 0)
        if structure & 0x08 and len(payload) > at:
            groups, at = payload[at], at + 1
            for _ in range(groups):
                at += 1 + (payload[at] >> 2 & 3 if len(payload) > at else 0)
    return at


def _is_vp9_key(first: int) -> bool:
    """Return whether a frame is a keyframe, by the first byte of its uncompressed header."""
    profile = (first >> 5 & 1) | (first >> 4 & 1) << 1
    shift = 1 if profile == 3 else 0
    shows_existing, inter = first >> (3 - shift) & 1, first >> (2 - shift) & 1
    return not shows_existing and not inter


def _av1_elements(data: bytes, count: int) -> Iterator[bytes]:
    """Yield the elements; the last one of a known count has no size before it."""
    at, number = 0, 0
    while at < len(data):
        number += 1
        if number == count:
            yield data[at:]
            return
        size, shift = 0, 0
        while at < len(data) and shift < 35:
            size |= (data[at] & 0x7F) << shift
            at += 1
            shift += 7
            if data[at - 1] < 0x80:
                break
        if at + size > len(data):
            return
        yield data[at : at + size]
        at += size


def _leb128(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))
