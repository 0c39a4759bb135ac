"""Frames that are pushed to Moodline instead of read by it: the interface between the API and the part that takes them."""

from dataclasses import dataclass
from typing import Protocol

from moodline.shared.streams import StreamSpec


@dataclass(frozen=True, slots=True)
class Pushed:
    """The result of one pushed frame.

    Attributes:
        sampled: Whether it is analysed; else `sample_fps` leaves it out.
        replaced: It took the place of a frame that was still waiting; that one is counted as `overloaded`.
        event_time_us: Its place on the timeline.
        wait_ms: A frame that comes within this time, in ms, would be left out, or take another's place.
    """

    sampled: bool
    replaced: bool
    event_time_us: int
    wait_ms: int


class Pushes(Protocol):
    """Takes frames. Thread-safe."""

    def push(self, spec: StreamSpec, jpeg: bytes, captured_at_s: float | None = None) -> Pushed:
        """Take one frame of a stream. Blocks for the store only, and that only when the stream's first frame comes.

        Args:
            spec: The stream as it is registered now.
            jpeg: Whole JPEG.
            captured_at_s: When it was taken by the sender's clock, in s since the Unix epoch; None where that is unknown.

        Raises:
            NotPushedError, StreamPausedError: the stream takes no frames.
            FrameTooLargeError, FrameError: the frame cannot be used.
            StreamTakenError: another process has the stream.
            TooBusyError: too many streams.
            StreamNotFoundError, StoreUnavailableError, BusUnavailableError: the stream could not be acquired.
        """
        ...
