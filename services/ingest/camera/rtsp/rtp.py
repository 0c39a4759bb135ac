"""RTP and RTCP (RFC 3550): packets, their numbers and their clock. Pure; whatever the bytes are, nothing is raised."""

import struct
from dataclasses import dataclass, field
from typing import Final, NamedTuple

_HEAD = struct.Struct(">BBHII")
_SENDER = struct.Struct(">IQI")
_NTP_TO_UNIX_S: Final = 2_208_988_800
_SENDER_REPORT, _BYE = 200, 203
_JPEG_PROFILES: Final = (b"\xff\xd8", b"\xff\xff")
"""Extensions that hold a part of the picture (ONVIF)."""
_LATE_PACKETS: Final = 128
_JUMP_PACKETS: Final = 3000
_ODD_PACKETS, _ODD_SHARE, _ODD_MOST = 16, 0.4, 2
"""Share of odd numbers among about so many packets; one that was there before weighs more: a gap may be a loss in the camera."""


class RtpPacket(NamedTuple):
    """One packet of media; `payload` without header, extension and padding.

    `extension` is that of ONVIF for JPEG alone, profile and content.
    """

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    extension: bytes = b""


def parse_rtp(data: bytes) -> RtpPacket | None:
    """Return the packet, or None when the bytes are none."""
    end = len(data)
    if end < 12:
        return None
    flags, kind, sequence, timestamp, ssrc = _HEAD.unpack_from(data)
    if flags >> 6 != 2:
        return None
    start = 12
    extension = b""
    if flags & 0x3F:
        start += 4 * (flags & 0x0F)
        if flags & 0x10:
            if end < start + 4:
                return None
            begin, start = start, start + 4 + 4 * (data[start + 2] << 8 | data[start + 3])
            if data[begin : begin + 2] in _JPEG_PROFILES:
                extension = data[begin : begin + 2] + data[begin + 4 : start]
        if flags & 0x20:
            # A count of 0 is no padding: the bit was set by mistake.
            end -= data[end - 1]
        if start > end:
            return None
    return RtpPacket(kind & 0x7F, kind >= 0x80, sequence, timestamp, ssrc, data[start:end], extension)


class SenderReport(NamedTuple):
    """The camera's wall clock at one media time stamp: `unix_s` in s since the Unix epoch."""

    ssrc: int
    unix_s: float
    timestamp: int
    ntp_middle: int


@dataclass(slots=True)
class Rtcp:
    """The used content of one compound packet: sender reports, and the SSRCs that have ended."""

    reports: list[SenderReport] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)


def parse_rtcp(data: bytes) -> Rtcp:
    """Return what can be read, up to the first damage."""
    found = Rtcp()
    at = 0
    while len(data) - at >= 4 and data[at] >> 6 == 2:
        count, kind = data[at] & 0x1F, data[at + 1]
        end = at + 4 + 4 * (data[at + 2] << 8 | data[at + 3])
        if end > len(data):
            break
        if kind == _SENDER_REPORT and end - at >= 20:
            ssrc, ntp, timestamp = _SENDER.unpack_from(data, at + 4)
            if ntp >> 32 > _NTP_TO_UNIX_S:
                unix_s = (ntp >> 32) - _NTP_TO_UNIX_S + (ntp & 0xFFFFFFFF) / 2**32
                found.reports.append(SenderReport(ssrc, unix_s, timestamp, ntp >> 16 & 0xFFFFFFFF))
        elif kind == _BYE:
            last = min(at + 4 + 4 * count, end)
            found.ended += [int.from_bytes(data[place : place + 4], "big") for place in range(at + 4, last, 4)]
        at = end
    return found


@dataclass(slots=True)
class PacketNumbers:
    """Numbers of packets from one sender: tells what is missing, late or twice. `highest` is without wraps."""

    highest: int = -1
    lost: int = 0

    def is_next(self, sequence: int) -> bool:
        """Return whether it is the number that follows."""
        return self.highest >= 0 and sequence == (self.highest + 1) & 0xFFFF

    def follow(self, sequence: int) -> int:
        """Return how many packets are missing before this one; -1 for one that came too late, or again."""
        if self.highest < 0:
            self.highest = sequence + 65536
            return 0
        ahead = (sequence - self.highest) & 0xFFFF
        if ahead == 1:
            self.highest += 1
            return 0
        if ahead == 0 or ahead > 65536 - _LATE_PACKETS:
            return -1
        # Very far ahead, or back, is no gap: the numbers began again.
        missing = ahead - 1 if ahead <= _JUMP_PACKETS else 1
        self.highest += ahead
        self.lost += missing
        return missing


class NumberTrust:
    """Whether numbers of packets that TCP brought count packets. A few cameras number frames, or send whatever was in memory.

    TCP loses nothing, so that nearly every number must be the next one. Where most are not, no number is believed any more.
    """

    def __init__(self) -> None:
        self._odd = 0.0
        self._last: RtpPacket | None = None
        self.is_trusted = True

    def judge(self, missing: int, packet: RtpPacket) -> int:
        """Return what `PacketNumbers.follow` said of a packet, or 0 when that is not believed."""
        last, self._last = self._last, packet
        if not self.is_trusted:
            return -1 if packet == last else 0
        # The same packet once more says nothing of its numbers.
        is_repeated = missing < 0 and packet == last
        if not is_repeated:
            self._odd += (_ODD_MOST * (missing < 0) + (missing != 0) - self._odd) / _ODD_PACKETS
            self.is_trusted = self._odd < _ODD_SHARE
        return missing


@dataclass(slots=True)
class MediaClock:
    """Time stamps of 32 bits without their wraps, and the camera's wall clock at them."""

    rate: int
    _last: int | None = None
    _total: int = 0
    _report: tuple[int, float] | None = None

    def unwrap(self, timestamp: int) -> int:
        """Return the time stamp on a clock that does not wrap; small steps back stay steps back."""
        if self._last is None:
            self._total = timestamp
        else:
            self._total += ((timestamp - self._last + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        self._last = timestamp
        return self._total

    def report(self, unix_s: float, timestamp: int) -> None:
        """Note what the camera's wall clock showed at a time stamp."""
        if self._last is None:
            self._last = self._total = timestamp
        ahead = ((timestamp - self._last + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        self._report = self._total + ahead, unix_s

    def camera_s(self, total: int) -> float | None:
        """Return the camera's wall clock at an unwrapped time stamp, or None before the first report."""
        if self._report is None:
            return None
        return self._report[1] + (total - self._report[0]) / self.rate


class Reception(NamedTuple):
    """The reception statistics for a receiver report; `delay` is in 1/65536 s."""

    ssrc: int
    lost: int
    highest: int
    ntp_middle: int
    delay: int


def receiver_report(own_ssrc: int, reception: Reception | None) -> bytes:
    """Return a compound packet: a receiver report and the name that RFC 3550 asks for."""
    block = b""
    if reception is not None:
        lost = min(max(reception.lost, 0), 0x7FFFFF)
        words = (
            reception.ssrc,
            lost,
            reception.highest,
            0,
            reception.ntp_middle,
            reception.delay,
        )
        block = struct.pack(">6I", *(word & 0xFFFFFFFF for word in words))
    head = struct.pack(">BBHI", 0x81 if block else 0x80, 201, 1 + len(block) // 4, own_ssrc)
    # CNAME of 8 characters, an end mark, padded to words.
    name = struct.pack(">IBB8s2x", own_ssrc, 1, 8, b"moodline")
    return head + block + struct.pack(">BBH", 0x81, 202, len(name) // 4) + name
