"""Payloads of H.264 (RFC 6184: single, STAP-A, FU-A) and H.265 (RFC 7798: single, AP, FU). Pure; never raises.

Where a frame ends is told by the time stamp, and one frame earlier by the marker bit, once that has been seen to be right. Where
either cannot be believed, the coded video itself tells it: the first slice of the next picture, or parameter sets before it.
Cameras put start codes into payloads, several NAL units behind one header, and types that nobody knows: all of that is read.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Final

from moodline.services.ingest.camera.input.access_unit import AccessUnit, Depacketiser, MarkerTrust

START_CODE: Final = b"\0\0\0\1"
_SHORT_START: Final = b"\0\0\1"
_RECOVERY_POINT: Final = 6
_TAIL_BYTES: Final = 5
"""Of a fragment, that may be the beginning of a start code and a header which the next one ends."""
_REPEATS: Final = 8
"""So many pictures seem to begin at one and the same time stamp before that is not believed."""

_JUNK_BYTES: Final = 8
_SEI_LIMIT_BYTES: Final = 4096


class _NalDepacketiser(Depacketiser):
    """The part that both formats share. A unit without slices waits for them: some cameras mark parameter sets as a unit."""

    header_bytes: int
    slice_kinds: frozenset[int]

    def __init__(self, *, by_bitstream: bool = False) -> None:
        """Start with nothing; with `by_bitstream` neither time stamps nor markers are there to go by."""
        super().__init__()
        self._trust = MarkerTrust()
        self._fragment: int | None = None
        self._is_start = False
        self._tail = b""
        self._sliced = False
        self._recovery = 0
        self._is_reference = False
        self._marked = False
        self._is_open_run = False
        self._has_times = False
        self._repeats = _REPEATS if by_bitstream else 0
        self._done: list[AccessUnit] = []

    def push(self, payload: bytes, timestamp: int, marker: bool, lost: bool, extension: bytes = b"") -> Sequence[AccessUnit]:
        if (
            timestamp == self._timestamp
            and not (marker or lost or self._marked or self._is_start)
            and self._fragment in self.slice_kinds
        ):
            # Nearly all packets are the middle of a slice: nothing is to be decided with them.
            piece = self._middle(payload)
            if piece:
                self._damaged |= not self._keep(piece)
                return ()
        if lost:
            # What ended with its marker is whole, whatever was lost behind it.
            self._damaged |= bool(self._parts) and not (self._marked and self._sliced)
            self._fragment = None
        if timestamp != self._timestamp:
            if self._sliced or self._damaged:
                self._end_unit()
                self._trust.begins()
            self._has_times |= self._timestamp is not None
            self._timestamp = timestamp
        elif lost and self._sliced and self._marked:
            self._end_unit()
        self._after_loss |= lost
        self._is_open_run = True
        if not self._add(payload, extension):
            self._damaged = True
        self._trust.packet(marker)
        self._marked = marker
        if marker and (self._trust.is_trusted or self._damaged):
            self._end_unit()
            self._trust.begins()
        done, self._done = self._done, []
        return done

    def idle(self) -> Sequence[AccessUnit]:
        if self._marked and self._sliced:
            self._end_unit()
        done, self._done = self._done, []
        return done

    def _add(self, payload: bytes, extension: bytes) -> bool:  # noqa: ARG002  # no extension belongs to it
        payload = _without_start_code(payload)
        if len(payload) < self.header_bytes:
            return not payload
        return self._take(payload)

    @abstractmethod
    def _middle(self, payload: bytes) -> bytes:
        """Return the piece of a fragment that neither begins nor ends a NAL unit; b"" for all else."""

    @abstractmethod
    def _take(self, payload: bytes) -> bool:
        """Take a payload that has at least a header; return whether it was whole and made sense."""

    @abstractmethod
    def _kind(self, first_byte: int) -> int:
        """Return the kind of a NAL unit."""

    @abstractmethod
    def _is_unknown(self, kind: int, header: bytes) -> bool:
        """Return whether a decoder has to pass over such a NAL unit."""

    def _is_slice(self, kind: int) -> bool:
        """Return whether it is a part of a picture."""
        return kind in self.slice_kinds

    @abstractmethod
    def _is_before_picture(self, kind: int) -> bool:
        """Return whether such a NAL unit, after a slice, begins the next picture."""

    @abstractmethod
    def _is_keyframe(self, kind: int) -> bool:
        """Return whether decoding can begin at such a slice."""

    @abstractmethod
    def _builds(self, kind: int, header: int) -> bool:
        """Return whether other pictures may build on such a slice."""

    @abstractmethod
    def _is_first(self, kind: int, nal: bytes) -> bool:
        """Return whether a slice is the first of its picture."""

    @abstractmethod
    def _recovery_of(self, nal: bytes) -> int:
        """Return what `AccessUnit.recovery` is after this NAL unit, 0 where it says nothing of it."""

    def _whole(self, nal: bytes) -> bool:
        """Take what came in one piece: a NAL unit, or several with start codes between them, which a decoder takes as well."""
        good = self._one(nal)
        if _SHORT_START in nal:
            for one in nal.split(_SHORT_START)[1:]:
                good &= self._inner(one)
        return good

    def _inner(self, nal: bytes) -> bool:
        """Note what a NAL unit says that came behind another."""
        if len(nal) <= self.header_bytes or self._is_unknown(self._kind(nal[0]), nal[: self.header_bytes]):
            return True
        return self._record(self._kind(nal[0]), nal, inner=True)

    def _one(self, nal: bytes) -> bool:
        if len(nal) < self.header_bytes:
            return True
        kind = self._kind(nal[0])
        if self._is_unknown(kind, nal[: self.header_bytes]):
            return True
        if len(nal) == self.header_bytes:
            # End of sequence or stream has nothing but its header; a slice without content is none.
            return not self._is_slice(kind) and self._keep(START_CODE + nal)
        good = self._record(kind, nal)
        return self._keep(START_CODE + nal) and good

    def _record(self, kind: int, nal: bytes, *, inner: bool = False) -> bool:
        """Note what a NAL unit says of its picture; False when slices before it are missing."""
        if not self._is_slice(kind):
            if not inner and self._is_before_picture(kind) and self._may_end():
                self._next_picture()
            else:
                self._continues()
            self._recovery = max(self._recovery, self._recovery_of(nal))
            return True
        first = self._is_first(kind, nal)
        if first and not inner and self._may_end():
            self._next_picture()
        else:
            self._continues()
        whole = first or self._sliced
        self._sliced = True
        self._keyframe |= self._is_keyframe(kind)
        self._is_reference |= self._builds(kind, nal[0])
        return whole

    def _may_end(self) -> bool:
        """Return whether a picture may end here, by what the packets say: they had a marker, or all have one time stamp."""
        if not self._sliced:
            return False
        self._repeats += 1
        return self._marked or (self._repeats > _REPEATS and not self._has_times)

    def _next_picture(self) -> None:
        self._is_open_run = False
        self._end_unit()
        self._trust.begins()

    def _continues(self) -> None:
        """Note, once for each packet, that the picture which began goes on."""
        if self._is_open_run and self._sliced:
            self._trust.goes_on()
        self._is_open_run = False

    def _piece(self, flags: int, header: bytes, piece: bytes) -> bool:
        """Take a fragment: `flags` has the bits of start and end, `header` is that of the NAL unit."""
        kind = self._kind(header[0])
        if self._is_unknown(kind, header):
            return True
        was_start, self._is_start = self._is_start, bool(flags & 0x80)
        if was_start and flags & 0x80 and self._fragment == kind:
            # No NAL unit has a start alone: such a camera sets its bit on every fragment.
            flags &= ~0x80
        if flags & 0x80:
            self._fragment = None if flags & 0x40 else kind
            piece = _without_start_code(piece)
            self._tail = piece[-_TAIL_BYTES:]
            return bool(piece) and self._whole(header + piece)
        fragment = self._fragment
        if fragment is None:
            # Its start is missing: the rest would be taken for data of the NAL unit before.
            return False
        if flags & 0x40:
            self._fragment = None
        self._continues()
        if self._is_slice(fragment):
            return self._keep(piece)
        # Several NAL units may be sent as one, in fragments, beginning with parameter sets.
        joined, self._tail = self._tail + piece, piece[-_TAIL_BYTES:]
        return self._keep(piece) and all(self._inner(one) for one in joined.split(_SHORT_START)[1:])

    def _aggregate(self, payload: bytes, at: int) -> bool:
        """Take several NAL units, each after its length in 2 bytes."""
        end, first = len(payload), at + 2
        while at + 2 <= end:
            start = at + 2
            at = start + (payload[at] << 8 | payload[at + 1])
            if at > end and start > first and end - start < _JUNK_BYTES:
                # Something behind the last one that is too short for any.
                return True
            if at > end or not self._whole(_without_start_code(payload[start:at])):
                return False
        # Zeros at the end are padding that nobody counted.
        return at == end or not any(payload[at:])

    def _end_unit(self) -> None:
        self._done += self._finish()

    def _finish(self) -> list[AccessUnit]:
        if not self._sliced and not self._damaged:
            return []
        recovery, is_reference = self._recovery, self._is_reference
        self._fragment = None
        self._sliced = self._is_reference = self._marked = self._is_start = False
        self._recovery = 0
        return [unit._replace(recovery=recovery, is_reference=is_reference) for unit in super()._finish()]


class H264Depacketiser(_NalDepacketiser):
    """H.264 with packetisation modes 0 and 1 into byte streams (Annex B)."""

    header_bytes = 1
    slice_kinds = frozenset(range(1, 6))

    def _middle(self, payload: bytes) -> bytes:
        is_middle = len(payload) > 2 and payload[0] & 0x1F == 28 and not payload[1] & 0xC0
        return payload[2:] if is_middle else b""

    def _kind(self, first_byte: int) -> int:
        return first_byte & 0x1F

    def _is_unknown(self, kind: int, header: bytes) -> bool:  # noqa: ARG002  # the kind says it
        return not 1 <= kind <= 12

    def _is_before_picture(self, kind: int) -> bool:
        return 6 <= kind <= 9

    def _is_keyframe(self, kind: int) -> bool:
        return kind == 5

    def _builds(self, kind: int, header: int) -> bool:  # noqa: ARG002  # nal_ref_idc says it
        return header & 0x60 != 0

    def _is_first(self, kind: int, nal: bytes) -> bool:
        # Partitions of a slice, 3 and 4: their first bit says something else. They follow partition 2.
        return nal[1] >= 0x80 and kind not in (3, 4)

    def _recovery_of(self, nal: bytes) -> int:
        if self._kind(nal[0]) != 6:
            return 0
        return max((_exp_golomb(body) + 1 for kind, body in _sei(nal[1:]) if kind == _RECOVERY_POINT), default=0)

    def _take(self, payload: bytes) -> bool:
        kind = payload[0] & 0x1F
        if kind == 28 and len(payload) >= 2:
            flags = payload[1]
            return self._piece(flags, bytes((payload[0] & 0xE0 | flags & 0x1F,)), payload[2:])
        self._fragment = None
        if kind == 24:
            return self._aggregate(payload, 1)
        if kind in (25, 26, 27, 29):
            # They hold slices in another order, which only packetisation mode 2 has; many announce it and do not use it.
            self.trouble = "the camera sends H.264 interleaved (packetization-mode 2), which is not supported: set mode 1"
            return True
        return kind != 28 and self._whole(payload)


class H265Depacketiser(_NalDepacketiser):
    """H.265 without decoding order numbers into byte streams (Annex B)."""

    header_bytes = 2
    slice_kinds = frozenset(range(32))

    def _middle(self, payload: bytes) -> bytes:
        is_middle = len(payload) > 3 and payload[0] >> 1 & 0x3F == 49 and not payload[2] & 0xC0
        return payload[3:] if is_middle else b""

    def _kind(self, first_byte: int) -> int:
        return first_byte >> 1 & 0x3F

    def _is_unknown(self, kind: int, header: bytes) -> bool:
        # Reserved types, and layers above the base one.
        layer = (header[0] & 1) << 5 | header[1] >> 3
        return kind > 40 or 10 <= kind <= 15 or 22 <= kind <= 31 or layer > 0

    def _is_before_picture(self, kind: int) -> bool:
        return 32 <= kind <= 35 or kind == 39

    def _is_keyframe(self, kind: int) -> bool:
        return 16 <= kind <= 21

    def _builds(self, kind: int, header: int) -> bool:  # noqa: ARG002  # the kind says it
        return kind > 15 or kind % 2 == 1

    def _is_first(self, kind: int, nal: bytes) -> bool:  # noqa: ARG002  # the same for all
        return nal[2] >= 0x80

    def _recovery_of(self, nal: bytes) -> int:
        if self._kind(nal[0]) != 39:
            return 0
        found = (_exp_golomb(body) for kind, body in _sei(nal[2:]) if kind == _RECOVERY_POINT)
        # A signed count of pictures: odd codes are the positive ones.
        return max(((code + 1) // 2 + 1 if code % 2 or not code else 1 for code in found), default=0)

    def _take(self, payload: bytes) -> bool:
        kind = payload[0] >> 1 & 0x3F
        if kind == 49 and len(payload) >= 3:
            flags = payload[2]
            return self._piece(flags, bytes((payload[0] & 0x81 | (flags & 0x3F) << 1, payload[1])), payload[3:])
        self._fragment = None
        if kind == 48:
            return self._aggregate(payload, 2)
        # 50 wraps another payload, which nobody sends.
        return kind == 50 or (kind != 49 and self._whole(payload))


def _without_start_code(payload: bytes) -> bytes:
    if payload[:1] != b"\0" or not payload.startswith((START_CODE, _SHORT_START)):
        return payload
    return payload[4:] if payload[2] == 0 else payload[3:]


def _sei(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each message, as far as they can be read."""
    data = data[:_SEI_LIMIT_BYTES].replace(b"\0\0\3", b"\0\0")
    at = 0
    while at + 2 < len(data):
        values = []
        for _ in range(2):
            value = 0
            while at < len(data) and data[at] == 0xFF:
                value += 255
                at += 1
            if at >= len(data):
                return
            values.append(value + data[at])
            at += 1
        kind, size = values
        yield kind, data[at : at + size]
        at += size


def _exp_golomb(data: bytes) -> int:
    """Return the unsigned number at the beginning (ITU-T H.264, 9.1), at most 65,535."""
    bits = "".join(f"{byte:08b}" for byte in data[:5])
    zeros = len(bits) - len(bits.lstrip("0"))
    text = bits[zeros : 2 * zeros + 1]
    return min(int(text, 2) - 1, 65_535) if text else 0
