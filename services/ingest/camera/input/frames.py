"""Frames of a camera, and the connection that yields them: the seam between a camera and the process that reads it."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

from moodline.services.ingest.media.frames import BgrImage

_GAPS: Final = 8
_GAPS_BORNE: Final = 2.5


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """One whole, undamaged frame of a camera, in order of presentation.

    Attributes:
        media_s: Time on the camera's media clock in s, of unknown origin. Wraps of its counter are already undone; a reset
            of the clock shows as a jump.
        arrived_s: Wall clock when the last byte of the frame had arrived, seconds since the Unix epoch.
        camera_s: When the camera says it took the frame (RTCP sender report, EXT-X-PROGRAM-DATE-TIME), in s since the Unix
            epoch by its own clock; None where it does not say.
        width, height: In px, upright. May change from frame to frame.
        to_bgr: Converts the picture; costs time, so only called for frames that are analysed. Valid until the next frame but
            one is asked for; may be called from another thread. Raises `ImageError`.
        is_overloaded: It was not decoded, because decoding is slower than the camera sends: it has times, but no picture.
        outlives_next: `to_bgr` stays valid however many frames are asked for after it.
    """

    media_s: Fraction
    arrived_s: float
    camera_s: float | None
    width: int
    height: int
    to_bgr: Callable[[], BgrImage]
    is_overloaded: bool = False
    outlives_next: bool = False


@dataclass(frozen=True, slots=True)
class LiveInfo:
    """Properties of a camera, known after its first frame is decoded. `fps` is what the camera claims, or None."""

    codec: str
    width: int
    height: int
    fps: Fraction | None


@dataclass(slots=True)
class LiveCounts:
    """Counters of one connection, read at any time from another thread.

    Attributes:
        packets: Network packets, or parts of a multipart stream, or segments.
        lost_packets: Packets that never came, by gaps in their numbers.
        decoded: Frames that came out of the decoder.
        damaged: Frames, or pieces of them, that were left out because they or what they build on is damaged.
        overloaded: Frames that were left out because decoding is slower than the camera sends.
        keyframes: Keyframes that came, decoded or not.
        keyframe_gap_s: Media time between the last two of them, in s; None before.
    """

    packets: int = 0
    lost_packets: int = 0
    decoded: int = 0
    damaged: int = 0
    overloaded: int = 0
    keyframes: int = 0
    keyframe_gap_s: float | None = None


class LiveSource(Protocol):
    """One connection to one camera. Used by one thread; ends only by an error or `close`.

    It starts at a keyframe and leaves out what follows a loss until the next keyframe: no grey or smeared frame gets through.
    It reads as fast as the camera sends and never waits for whoever takes the frames.
    """

    info: LiveInfo
    counts: LiveCounts

    def frames(self) -> Iterator[LiveFrame]:
        """Yield frames as they come, indefinitely; may be called once. Blocks between frames.

        Raises:
            SourceError: the connection is over; `reason` is a `FailureReason` (`timeout`: no frame within the read time-out,
                whatever else arrives), the message one fixed sentence without any text from the camera or the URL.
        """
        ...

    def close(self) -> None:
        """Release the connection within a moment, whatever state it is in. Safe to call twice."""
        ...


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """Time-outs in s and limits of one connection.

    Attributes:
        open_timeout_s: For connecting, logging in and describing, until the camera has been told to play.
        read_timeout_s: Longest time without anything from the camera, once frames have come; longer for a camera whose frames
            are farther apart (`FrameGap`).
        max_pixels: Larger pictures are refused.
        first_frame_timeout_s: From then until the first frame, and later until the keyframe after a loss; cameras send
            keyframes seconds apart. None: as `open_timeout_s`.
    """

    open_timeout_s: float = 10.0
    read_timeout_s: float = 5.0
    max_pixels: int = 50_000_000
    first_frame_timeout_s: float | None = None

    @property
    def keyframe_timeout_s(self) -> float:
        """How long frames may fail to come although the camera sends, in s."""
        return self.open_timeout_s if self.first_frame_timeout_s is None else self.first_frame_timeout_s


class FrameGap:
    """How long a camera may be silent: the read time-out, or longer where its frames are known to be far apart."""

    def __init__(self, limits: LiveLimits) -> None:
        self._limits = limits
        self._gaps_s: deque[float] = deque(maxlen=_GAPS)
        self._seen_s: float | None = None

    def frame(self, now_s: float) -> None:
        """Note a frame, by the monotonic clock."""
        if self._seen_s is not None:
            self._gaps_s.append(now_s - self._seen_s)
        self._seen_s = now_s

    @property
    def limit_s(self) -> float:
        """Return the longest silence that is borne. After one frame alone nothing is known of the next."""
        if not self._gaps_s:
            return max(self._limits.read_timeout_s, self._limits.keyframe_timeout_s)
        return max(self._limits.read_timeout_s, _GAPS_BORNE * max(self._gaps_s))
