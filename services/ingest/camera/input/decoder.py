"""Access units of a camera into whole frames. FFmpeg is used as a decoder alone: it opens no address and no file."""

import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from functools import partial
from typing import Any, Final, NamedTuple

import av
from av.codec.context import Flags
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from moodline.services.ingest.camera.input.frames import LiveCounts, LiveFrame
from moodline.services.ingest.media.frames import BgrImage
from moodline.services.ingest.media.pixels import bgr_pixels
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.streams import FailureReason

WITHOUT_KEYFRAME_S: Final = 2.0
"""How long a keyframe is waited for before a plain intra frame will do; a few cameras never send a keyframe."""

LAST_RESORT_S: Final = 20.0
"""How long a picture is refreshed bit by bit before it is taken to be whole, where the camera says nothing of it."""

_WAITING_LIMIT: Final = 64


class UnitTimes(NamedTuple):
    """The times of one access unit; see `LiveFrame`."""

    media_s: Fraction
    arrived_s: float
    camera_s: float | None


class KeyframeDecoder:
    """Decodes one camera's video; used by one thread.

    A gate lets nothing through before the first keyframe, and after a loss nothing until the next. While it is shut, units are
    not even decoded. Where a camera refreshes its pictures bit by bit instead (gradual refresh), the gate opens when a picture
    is whole: by the camera's own word (a recovery point), or after `LAST_RESORT_S` where no keyframe was ever seen. A change of
    resolution goes on at its keyframe.

    Args:
        codec: FFmpeg's name.
        extradata: Parameter sets as a byte stream, put in front of the first keyframe; may be empty.
        max_pixels: Larger pictures are refused.
        counts: `decoded` and `damaged` are counted there.
        monotonic_s: For tests.
    """

    def __init__(
        self,
        codec: str,
        extradata: bytes,
        max_pixels: int,
        counts: LiveCounts,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._codec = _open_codec(codec, max_pixels)
        self._extradata = extradata
        self._joins_headers = codec == "mpeg4"
        self._max_pixels = max_pixels
        self._counts = counts
        self._monotonic_s = monotonic_s
        self._reformatter = VideoReformatter()
        self._open = False
        self._lost = False
        self._shut_since_s: float | None = None
        self._tried = False
        self._until_whole: int | None = None
        self._keyframe_seen = False
        self._is_lenient = False
        self._number = 0
        self._times: dict[int, UnitTimes] = {}

    @property
    def codec_name(self) -> str:
        """FFmpeg's name of the codec."""
        return str(self._codec.name)

    def lose(self) -> None:
        """Shut the gate: something is missing, so what follows builds on frames that are not there."""
        self._lost = True
        if self._open or self._tried:
            self._shut()

    def decode(self, data: bytes, keyframe: bool, times: UnitTimes, recovery: int = 0) -> list[LiveFrame]:
        """Take one whole access unit and return the frames that come out, in order of presentation: mostly one, or none.

        Args:
            data: The unit.
            keyframe: Whether decoding can begin here.
            times: Of the unit; its frame gets them, however late it comes out.
            recovery: As in `AccessUnit`.

        Raises:
            SourceError: `too_large`.
        """
        if not self._open and not self._enter(keyframe, recovery):
            return []
        if self._extradata and self._joins_headers:
            data, self._extradata = self._extradata + data, b""
        self._number += 1
        self._times[self._number] = times
        if len(self._times) > _WAITING_LIMIT:
            del self._times[next(iter(self._times))]
        packet = av.Packet(data)
        packet.pts = packet.dts = self._number
        try:
            frames = self._codec.decode(packet)
        except av.FFmpegError as error:
            if self._is_over_limit(error, keyframe):
                raise self._too_large() from None
            self._damage()
            return []
        return self._passed(frames) if frames else []

    def _enter(self, keyframe: bool, recovery: int) -> bool:
        """Return whether to decode this unit although the gate is shut; a keyframe opens it, and so does a whole picture."""
        now_s = self._monotonic_s()
        if self._shut_since_s is None:
            self._shut_since_s = now_s
        waited_s = now_s - self._shut_since_s
        if keyframe:
            if self._tried:
                self._flush()
            self._is_lenient, self._keyframe_seen = False, True
            self._enter_whole()
        elif self._until_whole is not None:
            self._until_whole -= 1
            if self._until_whole <= 0:
                self._enter_whole()
        elif recovery:
            self._tried, self._until_whole = True, recovery - 1
            if recovery == 1:
                self._enter_whole()
        elif waited_s >= LAST_RESORT_S and not self._keyframe_seen:
            # Frames of which the decoder itself is not sure are its only ones.
            self._codec.flags |= Flags.output_corrupt
            self._is_lenient = True
            self._enter_whole()
        elif waited_s >= WITHOUT_KEYFRAME_S:
            self._tried = True
        if (self._open or self._tried) and self._extradata and not self._joins_headers:
            self._decode_headers()
        if not self._open:
            self._counts.damaged += self._lost
        return self._open or self._tried

    def _enter_whole(self) -> None:
        self._open, self._tried, self._lost, self._until_whole = True, False, False, None

    def _decode_headers(self) -> None:
        headers, self._extradata = self._extradata, b""
        # Parameter sets alone are no frame, of which some decoders complain; they have noted them.
        with suppress(av.FFmpegError):
            self._codec.decode(av.Packet(headers))

    def _passed(self, frames: list[Any]) -> list[LiveFrame]:
        passed: list[LiveFrame] = []
        for frame in frames:
            if frame.width * frame.height > self._max_pixels:
                raise self._too_large()
            times = self._times.pop(frame.pts, None)
            if times is None or (frame.is_corrupt and not self._is_lenient):
                self._damage()
                return passed
            if not self._open:
                if frame.pict_type != PictureType.I or self._until_whole is not None:
                    continue
                self._enter_whole()
            self._counts.decoded += 1
            passed.append(LiveFrame(*times, frame.width, frame.height, partial(self._to_bgr, frame)))
        return passed

    def _damage(self) -> None:
        if self._open:
            self._counts.damaged += 1
            self._lost = True
            self._shut()

    def _shut(self) -> None:
        self._open = self._tried = False
        self._shut_since_s = self._until_whole = None
        self._flush()

    def _flush(self) -> None:
        self._codec.flush_buffers()
        self._times.clear()

    def _to_bgr(self, frame: Any) -> BgrImage:
        try:
            return bgr_pixels(self._reformatter.reformat(frame, format="bgr24", threads=1))
        except av.FFmpegError:
            raise ImageError("the frame cannot be converted") from None

    def _is_over_limit(self, error: av.FFmpegError, keyframe: bool) -> bool:
        """Decoders say this each in their own way: some note the size that they refuse, others forget it."""
        if self._codec.width * self._codec.height > self._max_pixels or isinstance(error, av.error.MemoryError):
            return True
        return keyframe and isinstance(error, av.error.ArgumentError)

    def _too_large(self) -> SourceError:
        return SourceError(
            FailureReason.TOO_LARGE,
            "the camera's picture is over the limit (MOODLINE_INGEST_MAX_PIXELS)",
        )


def _open_codec(codec: str, max_pixels: int) -> Any:
    context = av.CodecContext.create(codec, "r")
    # One thread: more would hold frames back, and there is a process per camera.
    context.thread_count = 1
    context.thread_type = "NONE"
    # Decoders round sizes up to whole blocks before they compare.
    context.options = {"max_pixels": str(2 * max_pixels + 65_536)}
    context.open()
    return context
