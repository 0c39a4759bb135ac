"""The parts of a timeline answer."""

from enum import StrEnum

import msgspec

from moodline.shared.emotions import EMOTIONS, PROBABILITY_SCALE
from moodline.shared.messages import StreamClass
from moodline.shared.timeline.bucket import CORRUPT_AT, DROP_REASONS, Bucket, Seven

Shares = tuple[float, ...]
"""Seven fractions, 0 to 1, in the order of `EMOTIONS`."""


class EmptyReason(StrEnum):
    """The reasons for which an interval has no emotions. An empty interval is never neutral."""

    NO_FACE = "no_face"
    """Frames were looked at, and none showed a face."""
    UNREADABLE = "unreadable"
    """Frames were looked at; faces were there, and no expression could be read from any of them."""
    CORRUPT = "corrupt"
    """Frames were sampled, none could be looked at, and most of them because they are damaged."""
    OVERLOADED = "overloaded"
    """Frames were sampled, and none could be looked at, for other reasons."""
    NOT_SAMPLED = "not_sampled"
    """Nothing was sampled of the file here: sparse sampling, a gap in the file, outside of it, or not read yet."""
    OFFLINE = "offline"
    """Nothing came from the camera."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The emotions of some faces.

    Attributes:
        raw: Mean probabilities as the model gave them.
        smoothed: Mean smoothed probabilities.
        shares: Of all faces, the share that each emotion leads (by smoothed probability).
        dominant: The emotion with the largest share; of equal shares the one with the larger smoothed mean.
    """

    raw: Shares
    smoothed: Shares
    shares: Shares
    dominant: str


class TimelinePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of a stream's timeline.

    Attributes:
        start_us: Where it begins, microseconds since the Unix epoch.
        sampled: Frames sampled: classified ones and every counted skip.
        classified: Frames that were looked at.
        skipped: Frames that were not, by reason; every reason is there.
        frames_with_faces: Frames with at least one face that could be read.
        faces: Faces over all frames that could be read.
        tracks_begun: Faces read for the first time.
        coverage: Share of the sampled frames that were looked at, 0 to 1; 0 where nothing was sampled.
        reading: What the faces showed; None exactly when `empty` is set.
        empty: Why there is no reading; None where there is one.
        final: The point will not change any more.
        models: Names of the models that looked at its frames, in order; empty where none was looked at.
        unreadable: Faces over all frames from which no expression can be read; none of them is in `faces`.
        too_small: Of these, faces below the detector's least width.
    """

    start_us: int
    sampled: int
    classified: int
    skipped: dict[str, int]
    frames_with_faces: int
    faces: int
    tracks_begun: int
    coverage: float
    reading: Reading | None
    empty: EmptyReason | None
    final: bool
    models: tuple[str, ...] = ()
    unreadable: int = 0
    too_small: int = 0


class TimelineAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A window of a stream's timeline.

    Attributes:
        from_us: Start of the first point, microseconds since the Unix epoch.
        to_us: End of the last point.
        resolution_s: Length of every point, in s.
        tier_s: Length of the stored buckets that the points were made of, in s.
        coarser_than_asked: The asked resolution is no longer kept for this window, so points are longer.
        points: One for every stretch of the window, empty ones included, in order of time.
        summary: The whole window as one point.
    """

    from_us: int
    to_us: int
    resolution_s: int
    tier_s: int
    coarser_than_asked: bool
    points: list[TimelinePoint]
    summary: TimelinePoint


def make_point(bucket: Bucket, start_us: int, lane: StreamClass, models: tuple[str, ...] = ()) -> TimelinePoint:
    """Return what a bucket says, for people; `models` are those that looked at frames from its start to its end."""
    classified = bucket.classified
    return TimelinePoint(
        start_us=start_us,
        sampled=bucket.sampled,
        classified=classified,
        skipped={reason.value: count for reason, count in zip(DROP_REASONS, bucket.skipped, strict=True)},
        frames_with_faces=bucket.frames_with_faces,
        faces=bucket.faces,
        tracks_begun=bucket.tracks_begun,
        coverage=classified / bucket.sampled if bucket.sampled else 0.0,
        reading=_reading(bucket) if bucket.faces else None,
        empty=None if bucket.faces else _empty_reason(bucket, lane),
        final=bucket.final,
        models=models if classified else (),
        unreadable=bucket.unreadable,
        too_small=bucket.too_small,
    )


def _reading(bucket: Bucket) -> Reading:
    return Reading(
        raw=means(bucket.raw, bucket.faces),
        smoothed=means(bucket.smoothed, bucket.faces),
        shares=shares(bucket.leading, bucket.faces),
        dominant=dominant(bucket.leading, bucket.smoothed),
    )


def means(sums: Seven, faces: int) -> Shares:
    """Return mean probabilities of at least one face."""
    return tuple(total / (faces * PROBABILITY_SCALE) for total in sums)


def shares(leading: Seven, faces: int) -> Shares:
    """Return the share of the faces, at least one, that each emotion leads."""
    return tuple(count / faces for count in leading)


def dominant(leading: Seven, smoothed: Seven) -> str:
    """Return the emotion that leads most faces; of equals the larger smoothed sum, then the order of `EMOTIONS`."""
    best = max(range(len(EMOTIONS)), key=lambda emotion: (leading[emotion], smoothed[emotion], -emotion))
    return EMOTIONS[best]


def _empty_reason(bucket: Bucket, lane: StreamClass) -> EmptyReason:
    if bucket.classified:
        return EmptyReason.UNREADABLE if bucket.unreadable else EmptyReason.NO_FACE
    if bucket.sampled:
        is_damaged = 2 * bucket.skipped[CORRUPT_AT] > bucket.sampled
        return EmptyReason.CORRUPT if is_damaged else EmptyReason.OVERLOADED
    return EmptyReason.OFFLINE if lane is StreamClass.LIVE else EmptyReason.NOT_SAMPLED
