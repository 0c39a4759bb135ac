"""A face and what it shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from moodline.services.report.faces import face_quality
from moodline.shared.emotions import EMOTIONS, PROBABILITY_SCALE
from moodline.shared.messages import FaceEmotion


class Box(NamedTuple):
    """Where a face is, in px of the picture that was given, from its left upper corner."""

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
        quality: How good a picture of a face it is, 0 to 1: the score, times how much of 48 px the face has.
        track: In a video: number of the face, the same over time; else None.
        smoothed: In a video: `emotions`, smoothed over time for the track; else None.
    """

    box: Box
    score: float
    emotions: dict[str, float]
    quality: float
    track: int | None = None
    smoothed: dict[str, float] | None = None

    @property
    def dominant(self) -> str:
        """The leading emotion; smoothed, where the face is followed through a video."""
        seven = self.smoothed or self.emotions
        return max(seven, key=lambda name: seven[name])


def face_of(
    face: FaceEmotion,
    size_px: tuple[int, int],
    searched_px: tuple[int, int],
    tracked: tuple[int, Sequence[int]] | None = None,
) -> Face:
    """Return a face of the pipeline.

    Args:
        face: As the pipeline has it.
        size_px: Width and height of the picture that the box is for.
        searched_px: Width and height of the picture that was searched.
        tracked: Track, and smoothed probabilities in 1/65535.
    """
    (x1, y1, x2, y2), (width, height) = face.box, size_px
    box = Box(*(round(value * side / 65_536, 2) for value, side in ((x1, width), (y1, height), (x2, width), (y2, height))))
    return Face(
        box=box,
        score=round(face.score / PROBABILITY_SCALE, 4),
        emotions=_by_name(face.probabilities),
        quality=face_quality(face.box, face.score, searched_px),
        track=None if tracked is None else tracked[0],
        smoothed=None if tracked is None else _by_name(tracked[1]),
    )


def _by_name(values: Sequence[int]) -> dict[str, float]:
    return {name: round(value / PROBABILITY_SCALE, 6) for name, value in zip(EMOTIONS, values, strict=True)}
