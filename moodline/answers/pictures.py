"""Pictures that were classified, and single faces of frames."""

from datetime import datetime

from moodline.answers.base import Answer
from moodline.answers.timelines import Shares


class PictureFace(Answer, frozen=True, kw_only=True):
    """One face in a picture.

    Attributes:
        box: Left, top, right, bottom in px of the upright picture.
        score: The detector's score, 0 to 1.
        quality: How well an expression can be read from it, 0 to 1.
        dominant: The likeliest emotion; None where the quality is too low.
        emotions: Probabilities that sum to 1.
    """

    box: tuple[float, float, float, float]
    score: float
    quality: float
    dominant: str | None = None
    emotions: Shares


class Picture(Answer, frozen=True, kw_only=True):
    """One picture that was classified.

    Attributes:
        name: Name of the file; `picture` for bytes.
        width: In px, upright.
        height: In px, upright.
        model: Name of the model that looked at the faces.
        faces: Best score first; empty where there is none.
        too_small: Faces beside these that are below the least size.
    """

    name: str
    width: int
    height: int
    model: str
    faces: list[PictureFace]
    too_small: int


class Classified(Answer, frozen=True, kw_only=True):
    """The answer to several pictures, in their order."""

    pictures: list[Picture]


class FaceRow(Answer, frozen=True, kw_only=True):
    """One face in one sampled frame; of a frame without a face, `track` and all that follows it is None.

    Attributes:
        frame: Number of the sampled frame: of a file from its start, of a camera since it was connected.
        position_s: Media time of the file, in s; None for live streams.
        time: Wall time: the frame's place on the timeline.
        skipped: Why the frame was not looked at; None where it was.
        model: Name of the model; None where the frame was not looked at.
        track: Number of the face, the same over time.
        box: Left, top, right, bottom in px of the source's picture.
        score: The detector's score, 0 to 1.
        quality: How well an expression can be read from it, 0 to 1.
        readable: Whether it is counted.
        raw: Probabilities as the model gave them.
        smoothed: The same, smoothed over time for the track; None where not readable.
    """

    frame: int
    position_s: float | None = None
    time: datetime
    skipped: str | None = None
    model: str | None = None
    track: int | None = None
    box: tuple[float, float, float, float] | None = None
    score: float | None = None
    quality: float | None = None
    readable: bool | None = None
    raw: Shares | None = None
    smoothed: Shares | None = None


class FacePage(Answer, frozen=True, kw_only=True):
    """Rows in order of time, and the `cursor` of the next page."""

    stream: str
    faces: list[FaceRow]
    next_cursor: str | None = None
