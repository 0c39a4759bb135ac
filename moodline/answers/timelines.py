"""Timelines of streams and of tracked faces."""

from datetime import datetime

import msgspec

from moodline.answers.base import Answer

Shares = dict[str, float]
"""Seven fractions, 0 to 1, by name of the emotion."""


class Point(Answer, frozen=True, kw_only=True):
    """One stretch of a timeline. `empty` says why there are no emotions; emptiness is never neutral.

    Attributes:
        start: Where it begins.
        position_s: The same as media time of the file, in s; None for live streams.
        sampled: Frames sampled: classified ones and every counted skip.
        classified: Frames that were looked at.
        skipped: Frames that were not, by reason.
        coverage: Share of the sampled frames that were looked at, 0 to 1.
        frames_with_faces: Frames with at least one face that could be read.
        faces: Faces over all frames that could be read; all emotions are theirs.
        tracks_begun: Faces read for the first time.
        unreadable: Faces over all frames from which no expression can be read; none of them is in `faces`.
        too_small: Of these, faces below the least size.
        dominant: The emotion that leads most faces; None where there is none.
        shares: Of all faces, the share that each emotion leads.
        smoothed: Mean probabilities, smoothed over time for each tracked face.
        raw: Mean probabilities as the model gave them.
        empty: `no_face`, `unreadable`, `overloaded`, `not_sampled` or `offline`; None where there are emotions.
        models: Names of the models that looked at these frames.
        final: The point will not change any more.
    """

    start: datetime
    position_s: float | None = None
    sampled: int
    classified: int
    skipped: dict[str, int]
    coverage: float
    frames_with_faces: int
    faces: int
    tracks_begun: int
    unreadable: int = 0
    too_small: int = 0
    dominant: str | None = None
    shares: Shares | None = None
    smoothed: Shares | None = None
    raw: Shares | None = None
    empty: str | None = None
    models: list[str] = msgspec.field(default_factory=list)
    final: bool


class Timeline(Answer, frozen=True, kw_only=True):
    """A window of a stream's timeline: one point for every stretch, empty ones included.

    Attributes:
        stream: Id of the stream.
        lane: `file` or `live`.
        recorded_at: Time of a file's first instant; None for live streams.
        start: Start of the window.
        end: End of the window.
        resolution_s: Length of every point, in s.
        level_s: Length of the stored buckets that the points were made of, in s.
        coarser_than_asked: The asked resolution is no longer kept for this window.
        points: In order of time.
        summary: The whole window as one point.
    """

    stream: str
    lane: str
    recorded_at: datetime | None = None
    start: datetime
    end: datetime
    resolution_s: int
    level_s: int
    coarser_than_asked: bool
    points: list[Point]
    summary: Point


class Statistics(Answer, frozen=True, kw_only=True):
    """Statistics of a window.

    Attributes:
        step_s: Length of the stretches that `coverage`, `with_faces` and `missing` count, in s.
        shares: Of all faces, the share that each emotion leads; None without faces.
        dominant: The emotion that leads most faces.
        entropy_bits: Entropy of `shares`, in bits: 0 to 2.807.
        entropy: The same as a part of the largest possible, 0 to 1.
        faces: Faces over all frames.
        coverage: Share of the stretches in which frames were looked at.
        with_faces: Share of the stretches with faces.
        missing: Why the rest is missing: shares of `overloaded`, `not_sampled`, `offline`.
    """

    step_s: int
    shares: Shares | None = None
    dominant: str | None = None
    entropy_bits: float | None = None
    entropy: float | None = None
    faces: int
    coverage: float
    with_faces: float
    missing: dict[str, float]


class ComparedPoint(Answer, frozen=True, kw_only=True):
    """One stretch of a series; fields as in `Point`."""

    start: datetime
    dominant: str | None = None
    shares: Shares | None = None
    smoothed: Shares | None = None
    faces: int
    coverage: float
    empty: str | None = None
    final: bool


class Series(Answer, frozen=True, kw_only=True):
    """One stream, or one group of streams.

    Attributes:
        name: The stream's id, or the label's value.
        streams: Ids of the streams that are in it.
        points: One for every stretch; the same stretches in every series.
        summary: What the window comes to.
    """

    name: str
    streams: list[str]
    points: list[ComparedPoint]
    summary: Statistics


class Comparison(Answer, frozen=True, kw_only=True):
    """Several timelines on one grid of points of `resolution_s` s; merged by a label's key where `group_by` names one."""

    start: datetime
    end: datetime
    resolution_s: int
    group_by: str | None = None
    series: list[Series]


class Summary(Answer, frozen=True, kw_only=True):
    """A window of a stream's timeline as one point, `summary`, and what the `window` comes to."""

    stream: str
    lane: str
    recorded_at: datetime | None = None
    start: datetime
    end: datetime
    summary: Point
    window: Statistics | None = None


class Track(Answer, frozen=True, kw_only=True):
    """One tracked face over its whole life. Who leaves and comes back is a new track: nobody is recognised.

    Attributes:
        track: Its number; counts from 1 in each stream.
        first: Time of the first frame with it.
        last: Time of the last.
        position_s: `first` as media time of the file, in s; None for live streams.
        frames: Frames in which it was seen.
        dominant: The emotion that leads most of these frames.
        shares: Of these frames, the share that each emotion leads.
        smoothed: Mean probabilities, smoothed over time.
        ended: It will not be seen again under this number.
    """

    track: int
    first: datetime
    last: datetime
    position_s: float | None = None
    frames: int
    dominant: str
    shares: Shares
    smoothed: Shares
    ended: bool


class TrackPage(Answer, frozen=True, kw_only=True):
    """Some of a stream's tracks, ordered by number; `next_cursor` leads to the next ones."""

    stream: str
    tracks: list[Track]
    next_cursor: str | None = None


class TrackPoint(Answer, frozen=True, kw_only=True):
    """One stretch of a track's timeline; emotions are None where the face was not seen."""

    start: datetime
    position_s: float | None = None
    frames: int
    dominant: str | None = None
    shares: Shares | None = None
    smoothed: Shares | None = None
    models: list[str] = msgspec.field(default_factory=list)


class TrackTimeline(Answer, frozen=True, kw_only=True):
    """A window of one face's timeline, clipped to the face's life; points of `resolution_s` s."""

    stream: str
    track: Track
    start: datetime
    end: datetime
    resolution_s: int
    points: list[TrackPoint]
