"""Payloads of H.264 (RFC 6184: single, STAP-A, FU-A) and H.265 (RFC 7798: single, AP, FU). Pure; never raises."""

from abc import abstractmethod
from typing import Final

from moodline.services.ingest.camera.rtsp.access_unit import AccessUnit, Depacketiser

START_CODE: Final = b"\0\0\0\1"


class _NalDepacketiser(Depacketiser):
    """The part that both formats share. A unit without slices waits for them: some cameras mark parameter sets as a unit."""

    header_bytes: int

    def __init__(self) -> None:
        super().__init__()
        self._fragment = False
        self._sliced = False

    @abstractmethod
    def _note(self, kind: int, first: bool) -> bool:
        """Note the kind of a NAL unit and whether it is the first slice of a picture; False when slices before it are missing."""

    def _slice(self, keyframe: bool, first: bool) -> bool:
        whole = first or self._sliced
        self._sliced = True
        self._keyframe |= keyframe
        return whole

    def _whole(self, kind: int, nal: bytes) -> bool:
        """Take a NAL unit that came in one piece."""
        head = self.header_bytes
        if len(nal) <= head:
            # End of sequence or stream has nothing but its header; nothing else is empty.
            return len(nal) == head and self._keep(START_CODE + nal)
        whole = self._note(kind, nal[head] >= 0x80)
        return self._keep(START_CODE + nal) and whole

    def _piece(self, flags: int, kind: int, header: bytes, piece: bytes) -> bool:
        """Take a fragment: `flags` has the bits of start and end."""
        if flags & 0x80:
            self._fragment = not flags & 0x40
            return bool(piece) and self._keep(START_CODE + header + piece) and self._note(kind, piece[0] >= 0x80)
        if not self._fragment:
            # Its start is missing: the rest would be taken for data of the NAL unit before.
            return False
        self._fragment = not flags & 0x40
        return self._keep(piece)

    def _aggregate(self, payload: bytes, at: int) -> bool:
        """Take several NAL units, each after its length in 2 bytes."""
        end = len(payload)
        while at + 2 <= end:
            start = at + 2
            at = start + (payload[at] << 8 | payload[at + 1])
            if at > end or not self._whole(self._kind(payload[start]) if start < at else -1, payload[start:at]):
                return False
        return at == end

    @abstractmethod
    def _kind(self, first_byte: int) -> int:
        """Return the kind of a NAL unit."""

    def _finish(self) -> list[AccessUnit]:
        if not self._sliced and not self._damaged:
            return []
        self._fragment = self._sliced = False
        return super()._finish()


class H264Depacketiser(_NalDepacketiser):
    """H.264 with packetisation modes 0 and 1 into byte streams (Annex B)."""

    header_bytes = 1

    def _kind(self, first_byte: int) -> int:
        return first_byte & 0x1F

    def _note(self, kind: int, first: bool) -> bool:
        # 2 to 4 are partitions of a slice: their first bit says something else.
        return self._slice(kind == 5, first or 2 < kind < 5) if 1 <= kind <= 5 else True

    def _add(self, payload: bytes) -> bool:
        if not payload:
            return False
        kind = payload[0] & 0x1F
        if 1 <= kind <= 23:
            self._fragment = False
            return self._whole(kind, payload)
        if kind == 28 and len(payload) >= 2:
            flags = payload[1]
            header = bytes((payload[0] & 0xE0 | flags & 0x1F,))
            return self._piece(flags, flags & 0x1F, header, payload[2:])
        if kind == 24:
            self._fragment = False
            return self._aggregate(payload, 1)
        return False


class H265Depacketiser(_NalDepacketiser):
    """H.265 without decoding order numbers into byte streams (Annex B)."""

    header_bytes = 2

    def _kind(self, first_byte: int) -> int:
        return first_byte >> 1 & 0x3F

    def _note(self, kind: int, first: bool) -> bool:
        return self._slice(16 <= kind <= 23, first) if 0 <= kind < 32 else True

    def _add(self, payload: bytes) -> bool:
        if len(payload) < 2:
            return False
        kind = payload[0] >> 1 & 0x3F
        if kind < 48:
            self._fragment = False
            return self._whole(kind, payload)
        if kind == 49 and len(payload) >= 3:
            flags = payload[2]
            header = bytes((payload[0] & 0x81 | (flags & 0x3F) << 1, payload[1]))
            return self._piece(flags, flags & 0x3F, header, payload[3:])
        if kind == 48:
            self._fragment = False
            return self._aggregate(payload, 2)
        return False
