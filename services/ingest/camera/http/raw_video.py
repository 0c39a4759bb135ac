"""Cameras that send H.264 or H.265 as it is (Annex B) over HTTP, without times: a frame is taken when it arrives."""

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from moodline.services.ingest.camera.http.client import HttpClient, HttpResponse
from moodline.services.ingest.camera.input.decoder import KeyframeDecoder, UnitTimes
from moodline.services.ingest.camera.input.frames import FrameGap, LiveCounts, LiveFrame, LiveInfo, LiveLimits
from moodline.services.ingest.camera.input.nal import H264Depacketiser, H265Depacketiser
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

_START: Final = b"\0\0\1"
_NAL_LIMIT_BYTES: Final = 16 * 1024 * 1024
_HEVC_HEADS: Final = frozenset({0x40, 0x42, 0x44, 0x46, 0x4E, 0x26, 0x28, 0x2A})
"""First bytes of H.265's parameter sets, delimiters, messages and keyframes."""


def is_raw_video(begun: bytes) -> bool:
    """Return whether a body begins with a start code."""
    return begun.lstrip(b"\0").startswith(b"\1") and begun.startswith(b"\0\0")


class RawVideoSource:
    """One stream. Implements `LiveSource`."""

    def __init__(self, client: HttpClient, response: HttpResponse, begun: bytes, limits: LiveLimits, deadline_s: float) -> None:
        self.counts = LiveCounts()
        self._client = client
        self._response = response
        self._limits = limits
        self._deadline_s = deadline_s
        head = begun.lstrip(b"\0")[1:2]
        is_hevc = bool(head) and head[0] in _HEVC_HEADS
        self._units = H265Depacketiser(by_bitstream=True) if is_hevc else H264Depacketiser(by_bitstream=True)
        self._decoder = KeyframeDecoder("hevc" if is_hevc else "h264", b"", limits.max_pixels, self.counts)
        self._buffer = bytearray(begun)
        self._rest = self._read()
        self._first: LiveFrame | None = next(self._rest)
        self.info = LiveInfo(self._decoder.codec_name, self._first.width, self._first.height, None)

    def frames(self) -> Iterator[LiveFrame]:
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._rest

    def close(self) -> None:
        self._client.close()

    def _read(self) -> Iterator[LiveFrame]:
        gap = FrameGap(self._limits)
        while True:
            for nal in self._nals():
                self.counts.packets += 1
                for unit in self._units.push(nal, 0, False, False):
                    arrived_s = self._response.arrived_s
                    times = UnitTimes(Fraction(time.monotonic_ns(), 1_000_000_000), arrived_s, None)
                    for frame in self._decoder.decode(unit.data, unit.keyframe, times, unit.recovery):
                        gap.frame(time.monotonic())
                        yield frame
                        self._deadline_s = time.monotonic() + gap.limit_s
            data = self._response.read(self._deadline_s)
            if not data:
                raise SourceError(FailureReason.UNREACHABLE, "the camera ends its stream")
            self._buffer += data
            if len(self._buffer) > _NAL_LIMIT_BYTES:
                raise SourceError(FailureReason.TOO_LARGE, "a part of the camera's stream is larger than any picture")

    def _nals(self) -> Iterator[bytes]:
        """Yield what is whole: a NAL unit is, when the next one begins."""
        begin = self._buffer.find(_START)
        while begin >= 0:
            end = self._buffer.find(_START, begin + 3)
            if end < 0:
                break
            yield bytes(self._buffer[begin + 3 : end]).rstrip(b"\0")
            begin = end
        if begin > 0:
            del self._buffer[:begin]
