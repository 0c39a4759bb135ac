"""Decoded frames, and the source that yields them: the seam between what a stream's URL names and the reader."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

from moodline.shared.streams import FailureReason

BgrImage = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), blue-green-red, row-major."""


Cancelled = Callable[[], bool]
"""Asked often while a source works; when it says True the source ends as soon as it can."""


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One frame in order of presentation.

    Attributes:
        pts_s: Exact time of presentation in s, from the content's first instant; never below that of the frame before.
        to_bgr: Converts the picture to `BgrImage`, as a player shows it; costs time, so only called for frames that are sampled.
            Valid until the next frame is asked for. Raises `ImageError`, also for a frame that is damaged.
        until_s: When the next frame takes its place, or the content ends; None where that is not known.
    """

    pts_s: Fraction
    to_bgr: Callable[[], BgrImage]
    until_s: Fraction | None = None


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Properties of the content, known once it is open.

    Attributes:
        codec: FFmpeg's name of the codec, or the name of a synthetic scene.
        width, height: In px, upright.
        fps: Nominal frame rate, exact, or None.
        duration_us: Nominal length, or None.
        created_at_us: When it was recorded by its own metadata, microseconds since the Unix epoch, UTC; None where not said.
    """

    codec: str
    width: int
    height: int
    fps: Fraction | None
    duration_us: int | None
    created_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a content ended.

    Attributes:
        reason: `truncated`: before its declared length, cut, or still being written; `corrupt`: damaged frames; None: well.
        detail: One sentence for people; empty when all is well.
        corrupt: Frames that are damaged: flagged by the decoder, or built on such, or not decoded at all.
        lost: Of these, frames that did not come out of the decoder.
    """

    reason: FailureReason | None = None
    detail: str = ""
    corrupt: int = 0
    lost: int = 0


class Source(Protocol):
    """Decoded frames of one finite or endless content. Not thread-safe: used and closed by one thread."""

    info: SourceInfo

    @property
    def end_s(self) -> Fraction:
        """End of the last frame that `frames` gave, in s from the content's first instant."""
        ...

    @property
    def damaged(self) -> int:
        """Return the number of damaged packets that were dropped so far."""
        ...

    @property
    def ending(self) -> Ending:
        """Return how the content ended, as far as it was read."""
        ...

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield all frames from the start; may be called once. Two sources of the same content yield the same frames.

        Raises:
            SourceError: the content cannot be read any further. Damage in its middle or a missing end is no error.
        """
        ...

    def close(self) -> None:
        """Release the content. Safe to call twice."""
        ...


def never() -> bool:
    """Never cancel."""
    return False
