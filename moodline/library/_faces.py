"""A face and what it shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from moodline.shared.emotions import EMOTIONS, PROBABILITY_SCALE
from moodline.shared.messages import FaceEmotion


class Box(NamedTuple):
    """A face's place, in px of the picture that was given, from its left upper corner."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        """Left, top, width and height, as fer and DeepFace give them."""
        return self.left, self.top, round(self.right - self.left, 2), round(self.bottom - self.top, 2)


@dataclass(frozen=True, slots=True)
class Face:
    """One face in a picture.

    Attributes:
        box: Where it is.
        score: The detector's, 0 to 1.
        emotions: Probability of each of the seven emotions, by name; they sum to 1.
        quality: How well an expression can be read, 0 to 1: size, light, sharpness, and how much of it can be seen.
        readable: Whether the quality is enough (MOODLINE_AGGREGATOR_MIN_QUALITY); where it is not, do not believe `emotions`.
        track: In a video: number of the face, the same over time; else None.
        smoothed: In a video: `emotions`, smoothed over time for the track; None elsewhere, and until the track could be read.
    """

    box: Box
    score: float
    emotions: dict[str, float]
    quality: float
    readable: bool = True
    track: int | None = None
    smoothed: dict[str, float] | None = None

    @property
    def dominant(self) -> str | None:
        """The leading emotion, smoothed where the face is followed through a video; None where none can be read."""
        if not self.readable:
            return None
        seven = self.smoothed or self.emotions
        return max(seven, key=lambda name: seven[name])


def face_of(
    face: FaceEmotion, size_px: tuple[int, int], *, readable: bool, tracked: tuple[int, Sequence[int]] | None = None
) -> Face:
    """Return a face of the pipeline.

    Args:
        face: As the pipeline has it.
        size_px: Width and height of the picture that the box is for.
        readable: Whether its expression can be read.
        tracked: Track, and smoothed probabilities in 1/65535, all 0 as long as the track could not be read.
    """
    (x1, y1, x2, y2), (width, height) = face.box, size_px
    box = Box(*(round(value * side / 65_536, 2) for value, side in ((x1, width), (y1, height), (x2, width), (y2, height))))
    return Face(
        box=box,
        score=round(face.score / PROBABILITY_SCALE, 4),
        emotions=_by_name(face.probabilities),
        quality=round(face.quality / PROBABILITY_SCALE, 4),
        readable=readable,
        track=None if tracked is None else tracked[0],
        smoothed=_by_name(tracked[1]) if tracked is not None and any(tracked[1]) else None,
    )


def _by_name(values: Sequence[int]) -> dict[str, float]:
    return {name: round(value / PROBABILITY_SCALE, 6) for name, value in zip(EMOTIONS, values, strict=True)}
