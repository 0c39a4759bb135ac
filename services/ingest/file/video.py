"""Video files and pictures, decoded by FFmpeg through PyAV.

PyAV or OpenCV was decided by `bench/decode.py`. One decoder thread is as fast in both, for they call the same decoders: 329 and
329 frames per CPU-second at 1280 x 720, 1,550 and 1,633 at 640 x 360. What differs is what is right. PyAV gives exact fractions
for times, and what is needed to place every frame; OpenCV gives milliseconds as a float, counts from the first frame instead of
the file's start (0.4 s off where the sound begins first), goes back by 0.76 s in an AVI with B-frames, and ignores mirroring.
PyAV also says why a file cannot be read, counts damaged packets, and limits containers and protocols per file; OpenCV has one
environment variable for the whole process.

A file is untrusted. FFmpeg gets an open file descriptor instead of a name and may use the `fd` protocol alone, so nothing in
the file can make it open another file or an address; only containers that hold their own media are let in, so no playlist,
script or session description; and the size of a picture is checked before it is unpacked.
"""

import os
from collections.abc import Generator, Iterator
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import Any, Final

import av
from av.container import Flags
from av.stream import Discard, Disposition
from av.video.reformatter import VideoReformatter

from moodline.services.ingest.file.frame_times import FrameTimes
from moodline.services.ingest.file.orientation import Orientation, orientation_of, turn_upright
from moodline.services.ingest.media.frames import BgrImage, Cancelled, DecodedFrame, SourceInfo
from moodline.services.ingest.media.image_size import HEAD_BYTES, image_size_px
from moodline.services.ingest.media.pixels import bgr_pixels
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.streams import FailureReason

CONTAINERS: Final = (
    "amv,apng,asf,av1,avi,dirac,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,mjpeg,mjpeg_2000,mov,mpeg,mpegts,mpegvideo,"
    "mxf,nsv,nut,obu,ogg,rm,vc1,vvc,wtv,yuv4mpegpipe,"
    "bmp_pipe,jpeg_pipe,jpegxl_pipe,pam_pipe,pbm_pipe,pgm_pipe,png_pipe,ppm_pipe,tiff_pipe,webp_pipe,"
    "aac,ac3,aiff,amr,eac3,flac,mp3,w64,wav"
)
"""FFmpeg's names of the demuxers that are let in: containers and pictures that hold their own media. Those without video are
here so that an audio file is told to be one."""

_BAD_READS_LIMIT: Final = 16
_NOT_VIDEO: Final = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent
"""Covers, previews, and tiles or layers that are no picture of their own (HEIC photos, stereo video)."""


def open_video(descriptor: int, max_pixels: int, cancelled: Cancelled) -> "VideoFile":
    """Open the video that a file descriptor is at the beginning of, and decode its first frame; closes the descriptor.

    Args:
        descriptor: Of a regular file.
        max_pixels: Pictures with more are refused, if possible before any memory is taken for them.
        cancelled: Ends decoding early.

    Raises:
        SourceError: `empty`, `no_video`, `codec`, `corrupt` or `too_large`.
    """
    try:
        if os.fstat(descriptor).st_size == 0:
            raise SourceError(FailureReason.EMPTY, "the file is empty (0 bytes)")
        _require_size(image_size_px(os.pread(descriptor, HEAD_BYTES, 0)), max_pixels)
        container = _open_container(descriptor, max_pixels)
    finally:
        # FFmpeg has made a duplicate of its own.
        os.close(descriptor)
    try:
        return VideoFile(container, max_pixels, cancelled)
    except BaseException:
        container.close()
        raise


class VideoFile:
    """The frames of one video file. Implements `Source`."""

    def __init__(self, container: Any, max_pixels: int, cancelled: Cancelled) -> None:
        self.damaged = 0
        self._container = container
        self._cancelled = cancelled
        self._packets = 0
        self._stream = _video_stream(container)
        _require_size((self._stream.codec_context.width, self._stream.codec_context.height), max_pixels)
        self._prepare(max_pixels)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self._times = FrameTimes(self._stream.time_base, _start_s(container, self._stream), rate)
        self._reformatter = VideoReformatter()
        self._rest = self._decode()
        self._first = next(self._rest, None)
        if self._first is None:
            raise self._nothing(max_pixels)
        _require_size((self._first.width, self._first.height), max_pixels)
        width, height = self._first.width, self._first.height
        self._turned = self._first.rotation, orientation_of(self._first)
        if self._turned[1].transposed:
            width, height = height, width
        self.info = SourceInfo(self._stream.codec_context.name, width, height, rate, _duration_us(container, self._stream))

    @property
    def end_s(self) -> Fraction:
        return self._times.end_s

    def frames(self) -> Iterator[DecodedFrame]:
        first, self._first = self._first, None
        for frame in chain((first,), self._rest):
            pts_s = self._times.place(frame.pts, frame.dts, frame.duration)
            yield DecodedFrame(pts_s, partial(self._to_bgr, frame))

    def close(self) -> None:
        self._rest.close()
        self._container.close()

    def _prepare(self, max_pixels: int) -> None:
        codec = self._stream.codec_context
        # One thread: what a damaged packet does to the frames around it must not depend on timing.
        codec.thread_count = 1
        codec.thread_type = "NONE"
        codec.options = {"max_pixels": _decoder_limit(max_pixels)}
        # PyAV lets FFmpeg make up missing time stamps; it reads far ahead for that, and gets B-frames in AVI wrong.
        self._container.flags &= ~Flags.gen_pts.value
        for stream in self._container.streams:
            if stream is not self._stream:
                stream.discard = Discard.all

    def _decode(self) -> Generator[Any, None, None]:
        """Yield `av.VideoFrame`s; whatever is damaged is counted and left out."""
        bad_reads = 0
        while bad_reads <= _BAD_READS_LIMIT:
            try:
                for packet in self._container.demux(self._stream):
                    if self._cancelled():
                        return
                    self._packets += packet.size > 0
                    bad_reads = 0
                    yield from self._frames_of(packet)
            except av.FFmpegError:
                # Most demuxers find their way back after damage; where one does not, the file ends.
                self.damaged += 1
                bad_reads += 1
            else:
                return
        yield from self._frames_of(None)

    def _frames_of(self, packet: Any) -> list[Any]:
        try:
            frames: list[Any] = self._stream.codec_context.decode(packet)
        except av.error.EOFError:
            return []
        except av.FFmpegError:
            self.damaged += 1
            return []
        return frames

    def _to_bgr(self, frame: Any) -> BgrImage:
        try:
            picture = self._reformatter.reformat(frame, format="bgr24", threads=1)
        except av.FFmpegError as error:
            raise ImageError(f"the frame cannot be converted: {error.strerror}") from None
        return turn_upright(bgr_pixels(picture), self._orientation(frame))

    def _orientation(self, frame: Any) -> Orientation:
        """Return how to turn a frame. Its angle tells whether that has changed; see `bgr_pixels` for why not to ask for more."""
        if frame.rotation != self._turned[0]:
            self._turned = frame.rotation, orientation_of(frame)
        return self._turned[1]

    def _nothing(self, max_pixels: int) -> SourceError:
        if self._packets == 0 and self.damaged == 0 and self._stream.frames == 0:
            return SourceError(FailureReason.EMPTY, "the file has a video track, but no frame in it")
        return SourceError(
            FailureReason.CORRUPT, f"no frame can be decoded: the file is damaged, or its picture has more than {max_pixels} px"
        )


def _open_container(descriptor: int, max_pixels: int) -> Any:
    options = {
        "fd": str(descriptor),
        "protocol_whitelist": "fd",
        "format_whitelist": CONTAINERS,
        "max_pixels": _decoder_limit(max_pixels),
    }
    try:
        return av.open("fd:", options=options, metadata_errors="replace")
    except av.error.ArgumentError:
        raise SourceError(
            FailureReason.CODEC,
            "the file is of a kind that is not read: it must be a video container or a picture, no playlist or script",
        ) from None
    except av.error.MemoryError:
        raise SourceError(FailureReason.TOO_LARGE, "the file needs more memory than there is") from None
    except av.FFmpegError as error:
        raise SourceError(FailureReason.CORRUPT, f"the file is no video, or damaged: {error.strerror}") from None


def _video_stream(container: Any) -> Any:
    tracks = [stream for stream in container.streams.video if not stream.disposition & _NOT_VIDEO]
    if not tracks:
        raise SourceError(FailureReason.NO_VIDEO, "the file has no video track")
    best = container.streams.best("video")
    track = best if best in tracks else tracks[0]
    if track.codec_context is None:
        raise SourceError(FailureReason.CODEC, "the file's video codec is not supported")
    return track


def _decoder_limit(max_pixels: int) -> str:
    """Return the limit for FFmpeg's decoders, which round sizes up to whole blocks before they compare."""
    return str(2 * max_pixels + 65_536)


def _require_size(size_px: tuple[int, int] | None, max_pixels: int) -> None:
    if size_px is not None and size_px[0] * size_px[1] > max_pixels:
        width, height = size_px
        raise SourceError(
            FailureReason.TOO_LARGE,
            f"a picture of {width} x {height} px is over the limit of {max_pixels} px (MOODLINE_INGEST_MAX_PIXELS)",
        )


def _start_s(container: Any, video: Any) -> Fraction | None:
    """Return the time stamp of the file's first instant, in s: that of its picture or sound, whichever begins first."""
    if video.start_time is None:
        return None
    start_s = Fraction(video.start_time * video.time_base)
    for stream in container.streams.audio:
        if stream.start_time is not None:
            # Sound before 0 is what a codec needs to get going; nobody hears it.
            audible_s = max(stream.start_time * stream.time_base, Fraction(0))
            start_s = min(start_s, audible_s)
    return start_s


def _duration_us(container: Any, video: Any) -> int | None:
    if container.duration is not None:
        return int(container.duration)
    return None if video.duration is None else int(video.duration * video.time_base * 1_000_000)
