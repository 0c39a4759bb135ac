"""Segments of an HLS stream into frames. FFmpeg gets bytes in memory and can open nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import Any, Final, NoReturn

import av
from av.video.reformatter import VideoReformatter

from moodline.services.ingest.camera.input.frames import LiveCounts
from moodline.services.ingest.media.frames import BgrImage
from moodline.services.ingest.media.pixels import bgr_pixels
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.streams import FailureReason

_SYNC: Final = 0x47
_PACKET_BYTES: Final = 188
_BOXES: Final = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"prft", b"emsg"})
_CODECS: Final = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "av1"})
_STREAMS_LIMIT: Final = 16


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded frame: `at_s` is its presentation time within the stream, `frame` FFmpeg's."""

    at_s: Fraction
    frame: Any
    codec: str


def segment_format(data: bytes) -> str | None:
    """Return the demuxer that a segment, with its header in front, is for; None when it is neither MPEG-TS nor MP4."""
    if data[:1] == bytes([_SYNC]) and (len(data) <= _PACKET_BYTES or data[_PACKET_BYTES] == _SYNC):
        return "mpegts"
    return "mp4" if data[4:8] in _BOXES else None


def decode_segment(data: bytes, max_pixels: int, counts: LiveCounts) -> Iterator[Picture]:
    """Yield a segment's frames in order of presentation, from its first keyframe on, decoding as they are asked for.

    Nothing comes after damage until the next keyframe, nor frames that are shown before the keyframe they follow.

    Raises:
        SourceError: `no_video`, `codec`, `too_large`. A segment that cannot be read at all counts as damaged.
    """
    format_name = segment_format(data)
    if format_name is None:
        counts.damaged += 1
        return
    options = {"protocol_whitelist": "none", "format_whitelist": format_name, "probesize": "1000000", "max_streams": "16"}
    if format_name == "mp4":
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
        options["format_whitelist"] = "mov,mp4,m4a,3gp,3g2,mj2"
    limits = [{"max_pixels": str(2 * max_pixels + 65_536), "threads": "1"}] * _STREAMS_LIMIT
    try:
        container = av.open(
            BytesIO(data), format=format_name, options=options, stream_options=limits, metadata_errors="replace", io_open=_refuse
        )
    except (av.FFmpegError, ValueError):
        # ValueError: the beginning names no streams, to which the limits could be given.
        counts.damaged += 1
        return
    with container:
        try:
            yield from _pictures(container, max_pixels, counts)
        except av.FFmpegError:
            counts.damaged += 1


def to_bgr(frame: Any) -> BgrImage:
    """Convert a decoded frame: uint8 (height, width, 3), BGR. Raises `ImageError`."""
    try:
        return bgr_pixels(VideoReformatter().reformat(frame, format="bgr24", threads=1))
    except av.FFmpegError:
        raise ImageError("the frame cannot be converted") from None


def _pictures(container: Any, max_pixels: int, counts: LiveCounts) -> Iterator[Picture]:
    if not container.streams.video:
        raise SourceError(FailureReason.NO_VIDEO, "the camera's stream has no video")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None or context.name not in _CODECS:
        raise SourceError(FailureReason.CODEC, "the camera's stream is of a codec that is not supported")
    if context.width * context.height > max_pixels:
        raise _too_large()
    context.thread_count, context.thread_type = 1, "NONE"
    gate = _Gate(counts)
    for packet in container.demux(stream):
        if not gate.lets_in(packet):
            continue
        try:
            frames = packet.decode()
        except av.FFmpegError:
            gate.damage()
            context.flush_buffers()
            continue
        for frame in frames:
            if frame.width * frame.height > max_pixels:
                raise _too_large()
            if gate.lets_out(frame):
                counts.decoded += 1
                yield Picture(Fraction(frame.pts) * Fraction(frame.time_base), frame, context.name)


class _Gate:
    """Lets frames through from a keyframe to the next damage."""

    def __init__(self, counts: LiveCounts) -> None:
        self._counts = counts
        self._is_open = False
        self._begin: int | None = None

    def lets_in(self, packet: Any) -> bool:
        """Say whether to decode a packet. The last one is empty: it gets out what is still inside."""
        if packet.size == 0:
            return self._is_open
        if packet.is_corrupt:
            self.damage()
        if not self._is_open and packet.is_keyframe and not packet.is_corrupt:
            self._is_open, self._begin = True, packet.pts
        return self._is_open

    def lets_out(self, frame: Any) -> bool:
        """Say whether a decoded frame is to be seen."""
        if frame.is_corrupt:
            self.damage()
        shown_before = self._begin is not None and frame.pts is not None and frame.pts < self._begin
        return self._is_open and frame.pts is not None and not shown_before

    def damage(self) -> None:
        """Shut until the next keyframe."""
        self._counts.damaged += 1
        self._is_open = False


def _refuse(*_: object) -> NoReturn:
    raise PermissionError("a segment names no other files")


def _too_large() -> SourceError:
    return SourceError(FailureReason.TOO_LARGE, "the camera's picture is over the limit (MOODLINE_INGEST_MAX_PIXELS)")
