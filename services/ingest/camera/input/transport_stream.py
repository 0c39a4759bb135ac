"""MPEG transport streams (ISO/IEC 13818-1) into coded frames, as RTP carries them (RFC 2250). Pure; never raises.

The first video of the first programme is taken. A frame ends where the next one begins, or where its length says so.
"""

from collections.abc import Iterator
from typing import Final

from moodline.services.ingest.camera.input.access_unit import AccessUnit, Depacketiser

_PACKET_BYTES: Final = 188
_SYNC: Final = 0x47
_TABLE_LIMIT_BYTES: Final = 1024
_STREAM_TYPES: Final = {0x01: "mpeg2video", 0x02: "mpeg2video", 0x10: "mpeg4", 0x1B: "h264", 0x24: "hevc"}
_PICTURE: Final = {"mpeg2video": b"\0\0\1\0", "mpeg4": b"\0\0\1\xb6"}
_START: Final = b"\0\0\1"


class TransportStreamDepacketiser(Depacketiser):
    """Transport streams of H.264, H.265, MPEG-4 part 2, MPEG-1 and MPEG-2.

    Attributes:
        codec: FFmpeg's name, known before the first frame is returned; "" before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.codec = ""
        self._tables = -1
        self._video = -1
        self._left: int | None = None
        self._done: list[AccessUnit] = []

    def push(self, payload: bytes, timestamp: int, marker: bool, lost: bool, extension: bytes = b"") -> list[AccessUnit]:  # noqa: ARG002  # no marker or extension belongs to it
        """Take the next packet; see `Depacketiser.push`. A frame has the time stamp of the packet in which it begins."""
        if lost:
            self._after_loss = True
            self._damaged |= bool(self._parts)
        at = payload.find(_SYNC)
        while 0 <= at <= len(payload) - _PACKET_BYTES:
            if payload[at] == _SYNC:
                self._take(payload[at : at + _PACKET_BYTES], timestamp)
                at += _PACKET_BYTES
            else:
                at = payload.find(_SYNC, at)
        done, self._done = self._done, []
        return done

    def _add(self, payload: bytes, extension: bytes) -> bool:  # noqa: ARG002  # no extension belongs to it
        return self._keep(payload)

    def _take(self, packet: bytes, timestamp: int) -> None:
        number = (packet[1] & 0x1F) << 8 | packet[2]
        begins = bool(packet[1] & 0x40)
        start = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        if not packet[3] & 0x10 or start >= _PACKET_BYTES:
            return
        body = packet[start:]
        if number == self._video:
            self._video_part(body, begins, timestamp)
        elif begins and number == 0:
            self._tables = next((pid for program, pid in _programmes(body) if program), self._tables)
        elif begins and number == self._tables:
            self._choose(body)

    def _choose(self, body: bytes) -> None:
        """Choose the video that the programme's table names first. One that has been chosen stays, as does its codec."""
        streams = list(_streams(body))
        usable = [(_STREAM_TYPES[kind], pid) for kind, pid in streams if kind in _STREAM_TYPES]
        same = [(codec, pid) for codec, pid in usable if self.codec in ("", codec)]
        if same:
            self.codec, self._video = same[0]
        elif streams:
            self.trouble = "the camera's transport stream has no video that can be read: set it to H.264 or H.265"

    def _video_part(self, body: bytes, begins: bool, timestamp: int) -> None:
        if begins:
            self._end_unit()
            if len(body) < 9 or not body.startswith(_START):
                self._damaged = True
                return
            length = body[4] << 8 | body[5]
            start = 9 + body[8]
            self._left = 6 + length - start if length else None
            self._timestamp = timestamp
            body = body[start:]
        elif not self._parts and self._left is None:
            # In the middle of a frame whose beginning is not there.
            return
        self._damaged |= not self._keep(body)
        if self._left is not None:
            self._left -= len(body)
            if self._left <= 0:
                self._end_unit()

    def _end_unit(self) -> None:
        self._left = None
        if self._parts or self._damaged:
            self._keyframe = is_key(b"".join(self._parts), self.codec)
            self._done += self._finish()


def is_key(data: bytes, codec: str) -> bool:
    """Return whether decoding can begin at a coded frame, a byte stream with start codes."""
    if codec in _PICTURE:
        place = data.find(_PICTURE[codec])
        if place < 0 or place + 6 > len(data):
            return False
        return data[place + 5] >> 3 & 7 == 1 if codec == "mpeg2video" else data[place + 4] < 0x40
    at = data.find(_START)
    while 0 <= at < len(data) - 3:
        kind = data[at + 3] & 0x1F if codec == "h264" else data[at + 3] >> 1 & 0x3F
        if codec == "h264" and 1 <= kind <= 5:
            return kind == 5
        if codec == "hevc" and kind < 32:
            return 16 <= kind <= 21
        at = data.find(_START, at + 3)
    return False


def _section(body: bytes) -> bytes:
    """Return the content of a table's section that begins in a packet, without its checksum; b"" where it is no whole one."""
    at = 1 + body[0]
    if at + 3 > len(body):
        return b""
    end = at + 3 + ((body[at + 1] & 0x0F) << 8 | body[at + 2])
    # Tables of cameras fit into one packet; of a longer one the beginning is read.
    return body[at + 8 : min(end - 4, len(body))] if end - at <= _TABLE_LIMIT_BYTES else b""


def _programmes(body: bytes) -> Iterator[tuple[int, int]]:
    section = _section(body)
    for at in range(0, len(section) - 3, 4):
        yield section[at] << 8 | section[at + 1], (section[at + 2] & 0x1F) << 8 | section[at + 3]


def _streams(body: bytes) -> Iterator[tuple[int, int]]:
    section = _section(body)
    if len(section) < 4:
        return
    at = 4 + ((section[2] & 0x0F) << 8 | section[3])
    while at + 5 <= len(section):
        yield section[at], (section[at + 1] & 0x1F) << 8 | section[at + 2]
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
