"""Segments of an HLS stream into frames. FFmpeg gets bytes in memory and can open nothing else."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import Any, Final, NoReturn

import av
from av.video.reformatter import VideoReformatter
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from moodline.services.ingest.camera.input.frames import LiveCounts
from moodline.services.ingest.media.frames import BgrImage
from moodline.services.ingest.media.pixels import bgr_pixels
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.streams import FailureReason

_SYNC: Final = 0x47
_PACKET_BYTES: Final = 188
_BOXES: Final = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"prft", b"emsg"})
_CODECS: Final = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "av1", "libdav1d", "vp9"})
_HEX_KEY = re.compile(rb"[0-9a-fA-F]{32}")
_JUNK_LIMIT_BYTES: Final = 4096
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


def without_junk(data: bytes) -> bytes:
    """Return a transport stream from its first whole packet on; anything else as it is."""
    if segment_format(data) is not None:
        return data
    for at in range(min(len(data) - 2 * _PACKET_BYTES, _JUNK_LIMIT_BYTES)):
        if data[at] == data[at + _PACKET_BYTES] == data[at + 2 * _PACKET_BYTES] == _SYNC:
            return data[at:]
    return data


def key_of(data: bytes) -> bytes:
    """Return a key of 16 bytes from what a server sends for it: the bytes, also with a line break behind, or written in hex."""
    text = data.strip()
    if len(data) != 16 and _HEX_KEY.fullmatch(text):
        return bytes.fromhex(text.decode())
    return data if len(data) == 16 else data.rstrip(b"\r\n")


def decrypted(data: bytes, key: bytes, vector: bytes) -> bytes:
    """Return a segment that was encrypted with AES-128 in CBC mode. Raises `SourceError` `corrupt`."""
    if len(key) != 16 or len(data) % 16 or not data:
        raise SourceError(FailureReason.CORRUPT, "the camera's encrypted segment, or its key, has a wrong length")
    opened = Cipher(algorithms.AES(key), modes.CBC(vector)).decryptor()
    plain = opened.update(data) + opened.finalize()
    padding = plain[-1]
    return plain[:-padding] if 1 <= padding <= 16 and plain.endswith(bytes((padding,)) * padding) else plain


class SegmentDecoder:
    """Decodes the segments of one stream, one after the other, as the one piece that they are.

    Nothing comes before the first keyframe, after damage until the next keyframe, nor frames that are shown before the keyframe
    they follow. A segment that begins without a keyframe goes on where the one before ended.

    Attributes:
        begin_s: Presentation time at which the segment that is decoded begins.
    """

    def __init__(self, max_pixels: int, counts: LiveCounts) -> None:
        self.begin_s = Fraction(0)
        self._max_pixels = max_pixels
        self._counts = counts
        self._gate = _Gate(counts)
        self._context: Any = None
        self._time_base = Fraction(1)
        self._like: tuple[str, bytes] = "", b""

    def restart(self) -> None:
        """Begin with the next keyframe: what follows does not build on what was before."""
        self._gate = _Gate(self._counts)
        if self._context is not None:
            self._context.flush_buffers()

    def decode(self, data: bytes) -> Iterator[Picture]:
        """Yield a segment's frames in order of presentation, decoding as they are asked for.

        Raises:
            SourceError: `no_video`, `codec`, `too_large`. A segment that cannot be read at all counts as damaged.
        """
        container = _opened(data, self._max_pixels)
        if container is None:
            self._counts.damaged += 1
            self.restart()
            return
        with container:
            try:
                yield from self._pictures(container)
            except av.FFmpegError:
                self._gate.damage()

    def _pictures(self, container: Any) -> Iterator[Picture]:
        stream = _video(container, self._max_pixels)
        self._time_base = Fraction(stream.time_base)
        self._follow(stream)
        context, gate, begin_s = self._context, self._gate, None
        for packet in container.demux(stream):
            if packet.size == 0 or packet.pts is None:
                continue
            if begin_s is None:
                begin_s = self.begin_s = Fraction(packet.pts) * Fraction(packet.time_base)
            if not gate.lets_in(packet):
                continue
            try:
                frames = context.decode(packet)
            except av.FFmpegError:
                gate.damage()
                context.flush_buffers()
                continue
            yield from self._passed(frames)

    def _passed(self, frames: Iterable[Any]) -> Iterator[Picture]:
        for frame in frames:
            if frame.width * frame.height > self._max_pixels:
                raise _too_large()
            if self._gate.lets_out(frame):
                self._counts.decoded += 1
                yield Picture(Fraction(frame.pts) * self._time_base, frame, self._context.name)

    def drain(self) -> Iterator[Picture]:
        """Yield what is still inside: nothing follows."""
        if self._context is not None:
            with suppress(av.FFmpegError):
                yield from self._passed(self._context.decode(None))
            self.restart()

    def _follow(self, stream: Any) -> None:
        """Keep the decoder while it suits the stream; else begin with another."""
        described = stream.codec_context
        like = described.name, bytes(described.extradata or b"") if not _is_byte_stream(described.extradata) else b""
        if self._context is not None and like == self._like:
            return
        self._like, self._gate = like, _Gate(self._counts)
        self._context = av.CodecContext.create(described.name, "r")
        self._context.extradata = described.extradata
        self._context.thread_count, self._context.thread_type = 1, "NONE"
        self._context.options = {"max_pixels": str(2 * self._max_pixels + 65_536)}
        self._context.open()


def _is_byte_stream(extradata: bytes | None) -> bool:
    """Return whether parameter sets also come with the video, so that a change of them needs no other decoder."""
    return extradata is None or extradata.startswith((b"\0\0\1", b"\0\0\0\1"))


def _opened(data: bytes, max_pixels: int) -> Any:
    """Return a segment's container; None when it cannot be read."""
    data = without_junk(data)
    format_name = segment_format(data)
    if format_name is None:
        return None
    options = {"protocol_whitelist": "none", "format_whitelist": format_name, "probesize": "1000000", "max_streams": "16"}
    if format_name == "mp4":
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
        options["format_whitelist"] = "mov,mp4,m4a,3gp,3g2,mj2"
    limits = [{"max_pixels": str(2 * max_pixels + 65_536), "threads": "1"}] * _STREAMS_LIMIT
    try:
        return av.open(
            BytesIO(data), format=format_name, options=options, stream_options=limits, metadata_errors="replace", io_open=_refuse
        )
    except (av.FFmpegError, ValueError):
        # ValueError: the beginning names no streams, to which the limits could be given.
        return None


def _video(container: Any, max_pixels: int) -> Any:
    if not container.streams.video:
        raise SourceError(FailureReason.NO_VIDEO, "the camera's stream has no video")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None or context.name not in _CODECS:
        raise SourceError(FailureReason.CODEC, "the camera's stream is of a codec that is not supported")
    if context.width * context.height > max_pixels:
        raise _too_large()
    return stream


def to_bgr(frame: Any) -> BgrImage:
    """Convert a decoded frame: uint8 (height, width, 3), BGR. Raises `ImageError`."""
    try:
        return bgr_pixels(VideoReformatter().reformat(frame, format="bgr24", threads=1))
    except av.FFmpegError:
        raise ImageError("the frame cannot be converted") from None


class _Gate:
    """Lets frames through from a keyframe to the next damage."""

    def __init__(self, counts: LiveCounts) -> None:
        self._counts = counts
        self._is_open = False
        self._begin: int | None = None

    def lets_in(self, packet: Any) -> bool:
        """Say whether to decode a packet."""
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
