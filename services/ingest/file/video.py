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
from datetime import datetime
from fractions import Fraction
from typing import Any, Final, NamedTuple

import av
from av.container import Flags
from av.stream import Discard

from moodline.services.ingest.file.complaints import Complaints, is_of_picture
from moodline.services.ingest.file.container import (
    decoder_limit,
    open_container,
    require_read_kind,
    require_size,
    too_large,
    video_stream,
)
from moodline.services.ingest.file.damage import Damage
from moodline.services.ingest.file.endings import Lengths, Unread, ending_of
from moodline.services.ingest.file.frame_times import MAX_HOLD_DISCONTINUOUS_S, MAX_HOLD_S, FrameTimes, Shown, Stamp, shown
from moodline.services.ingest.file.packets import PacketLimits, Packets, stamp_of
from moodline.services.ingest.file.picture import Pictures
from moodline.services.ingest.file.structure import Structure, structure_of
from moodline.services.ingest.media.frames import BgrImage, Cancelled, DecodedFrame, Ending, SourceInfo
from moodline.services.ingest.media.image_size import HEAD_BYTES, image_size_px
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.streams import FailureReason

_TS_DISCONT: Final = 0x0200
"""FFmpeg's `AVFMT_TS_DISCONT`: the container's clock may begin again."""


def open_video(descriptor: int, max_pixels: int, cancelled: Cancelled) -> "VideoFile":
    """Open the video that a file descriptor is at the beginning of, and decode its first frame; closes the descriptor.

    Args:
        descriptor: Of a regular file.
        max_pixels: Pictures with more are refused, if possible before any memory is taken for them.
        cancelled: Ends decoding early.

    Raises:
        SourceError: `empty`, `no_video`, `codec`, `corrupt` or `too_large`.
    """
    kept = -1
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            raise SourceError(FailureReason.EMPTY, "the file is empty (0 bytes)")
        head = os.pread(descriptor, HEAD_BYTES, 0)
        require_size(image_size_px(head), max_pixels)
        require_read_kind(head, os.pread(descriptor, 64, max(0, size - 64)))
        structure = structure_of(descriptor)
        if structure.is_encrypted:
            raise SourceError(
                FailureReason.CODEC, "the video is encrypted (DRM), so its pictures cannot be read; use a copy that is not"
            )
        with Complaints().heard() as messages:
            container = open_container(descriptor, max_pixels, structure)
        complained = any(name == container.format.name for _, name, _ in messages)
        kept = os.dup(descriptor)
    finally:
        # FFmpeg has made a duplicate of its own.
        os.close(descriptor)
    try:
        return VideoFile(container, max_pixels, cancelled, structure._replace(complained=complained), kept)
    except BaseException:
        container.close()
        os.close(kept)
        raise


class _Decoded(NamedTuple):
    """One frame as it came out of the decoder; None where a packet gave none, because it is damaged."""

    frame: Any
    stamp: Stamp
    is_damaged: bool


class VideoFile:
    """The frames of one video file. Implements `Source`."""

    def __init__(
        self, container: Any, max_pixels: int, cancelled: Cancelled, structure: Structure | None = None, descriptor: int = -1
    ) -> None:
        self._corrupt = 0
        self._lost = 0
        self._container = container
        self._cancelled = cancelled
        self._structure = structure or Structure()
        self._descriptor = descriptor
        self._size_bytes = os.fstat(descriptor).st_size if descriptor >= 0 else 0
        self._pictures_end_s: Fraction | None = None
        self._stream = video_stream(container)
        self._sound = container.streams.best("audio")
        require_size((self._stream.codec_context.width, self._stream.codec_context.height), max_pixels)
        self._prepare(max_pixels)
        self._damage = Damage(is_cut_picture=self._structure.is_cut_picture)
        self._complaints = Complaints()
        rate = self._stream.average_rate or self._stream.guessed_rate
        is_discontinuous = bool(container.format.flags & _TS_DISCONT)
        self._start_s = _start_s(container, self._stream)
        max_hold_s = MAX_HOLD_DISCONTINUOUS_S if is_discontinuous else MAX_HOLD_S
        self._max_hold_s = max_hold_s
        limits = PacketLimits(self._structure, self._size_bytes, max_hold_s, cancelled)
        self._packets = Packets(container, (self._stream, self._sound), self._start_s, self._damage, limits)
        self._times = FrameTimes(self._stream.time_base, self._start_s, rate, max_hold_s)
        self._rest = self._decode()
        self._early: list[_Decoded] = []
        first = self._first_frame(max_pixels)
        require_size((first.width, first.height), max_pixels)
        order = [stream.index for stream in container.streams.video].index(self._stream.index)
        aperture = self._structure.apertures.get(self._stream.id if self._structure.is_iso else order)
        self._pictures = Pictures(first, self._stream.sample_aspect_ratio, aperture)
        width, height = self._pictures.size_px(first)
        require_size((width, height), max_pixels)
        self.info = SourceInfo(
            self._stream.codec_context.name,
            width,
            height,
            rate,
            _duration_us(container, self._stream),
            _created_at_us(container, self._stream),
        )

    @property
    def end_s(self) -> Fraction:
        return self._times.end_s

    @property
    def damaged(self) -> int:
        return self._damage.packets

    @property
    def ending(self) -> Ending:
        lengths = Lengths.of(self._container, self._stream)
        grown = os.fstat(self._descriptor).st_size - self._size_bytes if self._descriptor >= 0 else 0
        end_s = self._times.end_s if self._pictures_end_s is None else self._pictures_end_s
        sound_s = self._packets.sound_end_s or Fraction(0)
        return ending_of(
            lengths,
            end_s,
            sound_s,
            Unread(
                self._structure.missing_bytes,
                self._structure.unreadable_bytes,
                grown,
                self._structure.is_cut,
                self._packets.is_torn,
            ),
            self._corrupt + self._damage.unplaced,
            self._lost + self._damage.unplaced,
        )

    def frames(self) -> Iterator[DecodedFrame]:
        before: Any = None
        waiting: Shown[_Decoded] | None = None
        stamped = ((decoded, decoded.stamp) for decoded in self._all())
        for following in shown(stamped, self._times):
            if waiting is not None:
                yield from self._given(before, waiting, following.item.frame)
                before = _if_interlaced(waiting.item.frame)
            waiting = following
        if waiting is not None:
            self._hold_for_the_sound()
            yield from self._given(before, waiting._replace(until_s=self._times.end_s), None)

    def close(self) -> None:
        self._rest.close()
        self._container.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _given(self, before: Any, one: Shown[_Decoded], after: Any) -> Iterator[DecodedFrame]:
        """Yield one frame; its picture is let go of when the next is asked for."""
        if one.item.is_damaged:
            self._corrupt += 1
            self._lost += one.item.frame is None
            yield DecodedFrame(one.from_s, _refuse_damaged, one.until_s)
            return
        held = [(before, one.item.frame, after)]
        yield DecodedFrame(one.from_s, lambda: self._pictures.convert(*held[0]), one.until_s)
        held.clear()

    def _hold_for_the_sound(self) -> None:
        """The last picture stays until the sound has ended."""
        self._pictures_end_s = self._times.end_s
        if (
            self._packets.sound_end_s is not None
            and self._times.end_s < self._packets.sound_end_s <= self._times.end_s + self._max_hold_s
        ):
            self._times.end_s = self._packets.sound_end_s

    def _first_frame(self, max_pixels: int) -> Any:
        """Decode until there is a picture; what cannot be decoded before it is kept."""
        for decoded in self._rest:
            self._early.append(decoded)
            if decoded.frame is not None:
                return decoded.frame
        raise self._nothing(max_pixels)

    def _all(self) -> Iterator[_Decoded]:
        early, self._early = self._early, []
        yield from early
        del early
        yield from self._rest

    def _prepare(self, max_pixels: int) -> None:
        codec = self._stream.codec_context
        # One thread: what a damaged packet does to the frames around it must not depend on timing.
        codec.thread_count = 1
        codec.thread_type = "NONE"
        codec.options = {"max_pixels": decoder_limit(max_pixels)}
        # PyAV lets FFmpeg make up missing time stamps; it reads far ahead for that, and gets B-frames in AVI wrong.
        self._container.flags &= ~Flags.gen_pts.value
        for stream in self._container.streams:
            if stream not in (self._stream, self._sound):
                stream.discard = Discard.all

    def _decode(self) -> Generator[_Decoded, None, None]:
        """Yield what comes out of the decoder, in order of presentation; whatever is damaged is counted and marked."""
        for packet in self._packets.read():
            yield from self._frames_of(packet)
        if self._cancelled():
            return
        yield from self._frames_of(None)
        for stamp in self._damage.lost_at_the_end():
            yield _Decoded(None, stamp, True)

    def _frames_of(self, packet: Any) -> Iterator[_Decoded]:
        codec, damage = self._stream.codec_context, self._damage
        shows = packet is not None and packet.size > 0 and not packet.is_discard
        if shows:
            damage.sent(stamp_of(packet))
        try:
            with self._complaints.heard() as messages:
                frames: list[Any] = codec.decode(packet)
        except av.error.EOFError:
            return
        except av.FFmpegError as error:
            damage.refused(stamp_of(packet) if shows else None)
            if isinstance(error, MemoryError):
                raise SourceError(FailureReason.TOO_LARGE, "the file needs more memory than its reading may take") from None
            return
        if shows and messages:
            damage.complained(stamp_of(packet), is_picture_damaged=is_of_picture(messages))
        for frame in frames:
            stamp = Stamp(frame.pts, frame.dts, frame.duration)
            for lost in damage.lost_before(stamp):
                yield _Decoded(None, lost, True)
            yield _Decoded(frame, stamp, damage.is_damaged(frame))

    def _nothing(self, max_pixels: int) -> SourceError:
        codec = self._stream.codec_context
        if codec.width * codec.height > max_pixels:
            return too_large(codec.width, codec.height, max_pixels)
        if self._packets.count == 0 and self._damage.packets == 0 and self._stream.frames == 0:
            return SourceError(FailureReason.EMPTY, "the file has a video track, but no frame in it")
        if self._structure.missing_bytes:
            return SourceError(
                FailureReason.CORRUPT,
                f"no frame can be decoded: the file is cut, {self._structure.missing_bytes} bytes are missing at its end",
            )
        return SourceError(FailureReason.CORRUPT, f"no frame can be decoded: the file is damaged ({codec.name})")


def _if_interlaced(frame: Any) -> Any:
    return frame if frame is not None and frame.interlaced_frame else None


def _refuse_damaged() -> BgrImage:
    raise ImageError("the frame is damaged")


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


def _created_at_us(container: Any, video: Any) -> int | None:
    """Return `creation_time`, as phones and cameras write it; the year 1904 and before stand for a clock that was not set."""
    text = video.metadata.get("creation_time") or container.metadata.get("creation_time")
    try:
        moment = datetime.fromisoformat(text) if text else None
        at_us = None if moment is None else round(moment.timestamp() * 1_000_000)
    except (ValueError, OverflowError, OSError):
        return None
    return at_us if at_us is not None and at_us > 0 else None
