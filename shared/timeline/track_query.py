"""Questions about single faces."""

from bisect import bisect_left
from typing import Final

import msgspec

from moodline.shared.errors import QueryError, TrackNotFoundError
from moodline.shared.store.base import TimelineStore
from moodline.shared.timeline.bucket import SECOND_US, TIERS_S
from moodline.shared.timeline.models import ModelLabels, read_models
from moodline.shared.timeline.points import Shares, dominant, means, shares
from moodline.shared.timeline.query import (
    DEFAULT_LIMIT,
    LEAST_POINTS,
    MAX_BUCKET_VALUES,
    TimelineQuery,
    check_count,
    check_points,
    check_window,
    count_in,
    hours_for,
    length_us,
)
from moodline.shared.timeline.tiers import Extent
from moodline.shared.timeline.tracks import (
    TRACK_TIER_S,
    TRACKS_SERIES,
    TRACKS_TIER_S,
    TrackBucket,
    TrackSummary,
    merge_track,
    track_series,
    unpack_track_bucket,
    unpack_track_summary,
)

_TRACK_STOP: Final = 2**53


class TrackReading(msgspec.Struct, frozen=True, kw_only=True):
    """The emotions of one face; fields as in `moodline.shared.timeline.points.Reading`."""

    smoothed: Shares
    shares: Shares
    dominant: str


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """One tracked face.

    Attributes:
        track_id: Counts from 1 in each stream, in the order in which faces came.
        first_us: Event time of the first frame with it, microseconds since the Unix epoch.
        last_us: Event time of the last.
        faces: Frames in which it was seen.
        reading: What it showed over its whole life.
        ended: It will not be seen again under this number.
    """

    track_id: int
    first_us: int
    last_us: int
    faces: int
    reading: TrackReading
    ended: bool


class TrackPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of a track's timeline; `reading` is None, and `models` is empty, where the face was not seen."""

    start_us: int
    faces: int
    reading: TrackReading | None
    models: tuple[str, ...] = ()


class TrackAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A window of a track's timeline.

    Attributes:
        track: The track as a whole.
        from_us: Start of the first point, microseconds since the Unix epoch.
        to_us: End of the last point.
        resolution_s: Length of every point, in s.
        points: One for every stretch of the window within the track's life.
    """

    track: Track
    from_us: int
    to_us: int
    resolution_s: int
    points: list[TrackPoint]


def track_list(
    store: TimelineStore,
    stream_id: str,
    window: Extent | None = None,
    after: int = 0,
    limit: int = DEFAULT_LIMIT,
) -> list[Track]:
    """Return a stream's tracks in order of their ids. Blocks on the store.

    Args:
        store: Where to read.
        stream_id: The stream.
        window: Only tracks that were there at some time in it; None: all.
        after: Only tracks with a larger id: the last one of the page before.
        limit: Most tracks to return.

    Raises:
        QueryError: `after` is negative or `limit` below 1.
        StoreError: a stored value cannot be read.
    """
    if after < 0:
        raise QueryError("after", "after must not be negative")
    if limit < 1:
        raise QueryError("limit", "limit must be at least 1")
    bucket_values = store.read(stream_id, TRACKS_SERIES, TRACKS_TIER_S, after + 1, _TRACK_STOP)
    if window is not None:
        # Ids are given in order of time, so tracks that began after the window are all at the end.
        bucket_values = bucket_values[
            : bisect_left(bucket_values, window.end_us, key=lambda bucket_value: unpack_track_summary(bucket_value[1]).first_us)
        ]
    found: list[Track] = []
    for track_id, value in bucket_values:
        summary = unpack_track_summary(value)
        if window is None or summary.last_us >= window.start_us:
            found.append(_track(track_id, summary))
            if len(found) == limit:
                break
    return found


def track_timeline(
    store: TimelineStore, stream_id: str, track_id: int, query: TimelineQuery, limit: int = DEFAULT_LIMIT
) -> TrackAnswer:
    """Return a window of one face's timeline, clipped to the face's life. Blocks on the store.

    Only seconds are stored; where their retention has passed, points have no reading any more. With
    `max_points` alone the points are as long as the shortest of the tiers, or of whole hours, that gives few enough.

    Raises:
        TrackNotFoundError: the stream has no such track.
        QueryError: the window is empty, or the answer would be too large.
        StoreError: a stored value cannot be read.
    """
    found = store.read(stream_id, TRACKS_SERIES, TRACKS_TIER_S, track_id, track_id + 1) if track_id > 0 else []
    if not found:
        raise TrackNotFoundError(f"stream {stream_id} has no track {track_id}")
    track = _track(track_id, unpack_track_summary(found[0][1]))
    check_points(query, limit)
    window = check_window(query, Extent(track.first_us, track.last_us + 1))
    if window is not None:
        window = Extent(max(window.start_us, track.first_us), min(window.end_us, track.last_us + 1))
    if window is None or window.start_us >= window.end_us:
        return TrackAnswer(
            track=track, from_us=track.first_us, to_us=track.first_us, resolution_s=query.resolution_s or 1, points=[]
        )
    resolution_s = _resolution(query, window, limit)
    step_us = resolution_s * SECOND_US
    start, stop = window.start_us // step_us, -(-window.end_us // step_us)
    if (stop - start) * resolution_s > MAX_BUCKET_VALUES:
        raise QueryError("from", f"the window reads more than {MAX_BUCKET_VALUES} seconds of this face; ask for a shorter one")
    points = _points(store, stream_id, track_id, range(start, stop), resolution_s)
    return TrackAnswer(track=track, from_us=start * step_us, to_us=stop * step_us, resolution_s=resolution_s, points=points)


def _resolution(query: TimelineQuery, window: Extent, limit: int) -> int:
    length = min(length_us(query, window), window.end_us - window.start_us)
    if query.resolution_s is not None:
        check_count(length, query.resolution_s, limit)
        return query.resolution_s
    most = max(LEAST_POINTS, query.max_points or limit)
    for tier_s in TIERS_S:
        if count_in(length, tier_s) <= most:
            return tier_s
    return hours_for(length, most)


def _points(store: TimelineStore, stream_id: str, track_id: int, points: range, resolution_s: int) -> list[TrackPoint]:
    merged: dict[int, TrackBucket] = {}
    bucket_values = store.read(
        stream_id, track_series(track_id), TRACK_TIER_S, points.start * resolution_s, points.stop * resolution_s
    )
    for index, value in bucket_values:
        point = index // resolution_s
        merged[point] = merge_track(merged.get(point, TrackBucket()), unpack_track_bucket(value))
    labels = read_models(store, stream_id, points.start * resolution_s, points.stop * resolution_s)
    return [_point(range(point * resolution_s, (point + 1) * resolution_s), merged.get(point), labels) for point in points]


def _point(seconds: range, bucket: TrackBucket | None, labels: ModelLabels) -> TrackPoint:
    start_us = seconds.start * SECOND_US
    if bucket is None or not bucket.faces:
        return TrackPoint(start_us=start_us, faces=0, reading=None)
    models = labels.between(seconds.start, seconds.stop)
    return TrackPoint(start_us=start_us, faces=bucket.faces, reading=_reading(bucket), models=models)


def _track(track_id: int, summary: TrackSummary) -> Track:
    return Track(
        track_id=track_id,
        first_us=summary.first_us,
        last_us=summary.last_us,
        faces=summary.seen.faces,
        reading=_reading(summary.seen),
        ended=summary.ended,
    )


def _reading(bucket: TrackBucket) -> TrackReading:
    return TrackReading(
        smoothed=means(bucket.smoothed, bucket.faces),
        shares=shares(bucket.leading, bucket.faces),
        dominant=dominant(bucket.leading, bucket.smoothed),
    )
