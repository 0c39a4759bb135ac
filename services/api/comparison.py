"""Several timelines on one grid: streams beside each other, or groups of streams merged exactly."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final, NamedTuple

import msgspec

from moodline.shared.errors import QueryError
from moodline.shared.messages import StreamClass
from moodline.shared.store.base import TimelineStore
from moodline.shared.timeline.bucket import NOTHING, SECOND_US, TIERS_S, Bucket, merge, merge_all
from moodline.shared.timeline.points import TimelinePoint, make_point
from moodline.shared.timeline.query import (
    LEAST_POINTS,
    FoundValues,
    TimelineQuery,
    count_in,
    extent,
    find_bucket_values,
    hours_for,
    merged_buckets,
)
from moodline.shared.timeline.tiers import Extent

MAX_STREAMS: Final = 100
"""Most streams that one comparison reads."""

MAX_POINTS: Final = 10_000
"""Most points in one comparison, of all series together."""


class Member(NamedTuple):
    """A stream in a comparison."""

    stream_id: str
    lane: StreamClass


class Series(NamedTuple):
    """A line of a comparison: one stream, or several that are merged."""

    name: str
    members: tuple[Member, ...]


class ComparedSeries(msgspec.Struct, frozen=True, kw_only=True):
    """One series of a comparison; `points` has one entry for each interval, also for empty ones."""

    name: str
    streams: tuple[str, ...]
    lane: StreamClass
    points: list[TimelinePoint]
    summary: TimelinePoint


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Several timelines on one grid.

    Attributes:
        from_us: Start of the first point, microseconds since the Unix epoch.
        to_us: End of the last point.
        resolution_s: Length of every point, in s.
        series: In the order in which they were asked for.
    """

    from_us: int
    to_us: int
    resolution_s: int
    series: list[ComparedSeries]


def compare(store: TimelineStore, asked: Sequence[Series], window: Extent | None, max_points: int) -> Comparison:
    """Return several timelines at one resolution. Blocks on the store, twice or so for every stream.

    The resolution is the finest stored tier that gives at most `max_points` for each series and is still kept of every
    stream for this window. Buckets of a group are added up, so that its point is what one stream with all of its frames has.

    Args:
        store: Where to read.
        asked: The series, each with at least one stream.
        window: Event time; None: from where the first timeline begins to where the last one ends.
        max_points: Most points of each series.

    Raises:
        QueryError: too many streams or points are asked for.
        StoreError: a stored value cannot be read.
    """
    streams = {member.stream_id for series in asked for member in series.members}
    if len(streams) > MAX_STREAMS:
        raise QueryError("stream", f"{len(streams)} streams are more than {MAX_STREAMS}, which one comparison may read")
    most = max(LEAST_POINTS, min(max_points, MAX_POINTS // max(1, len(asked))))
    window = window or _covered(store, streams)
    if window is None or not streams:
        edges = window or Extent(0, 0)
        nothing = [_series(each, {}) for each in asked]
        return Comparison(from_us=edges.start_us, to_us=edges.end_us, resolution_s=TIERS_S[0], series=nothing)
    found = _find(store, sorted(streams), window, most)
    plan = next(iter(found.values())).plan
    step_us = plan.resolution_s * SECOND_US
    return Comparison(
        from_us=plan.start * step_us,
        to_us=plan.stop * step_us,
        resolution_s=plan.resolution_s,
        series=[_series(each, found) for each in asked],
    )


def _covered(store: TimelineStore, streams: set[str]) -> Extent | None:
    extents = [found for stream in streams if (found := extent(store, stream)) is not None]
    if not extents:
        return None
    return Extent(min(each.start_us for each in extents), max(each.end_us for each in extents))


def _find(store: TimelineStore, streams: Sequence[str], window: Extent, most: int) -> dict[str, FoundValues]:
    """Read all streams at one resolution: a coarser one as long as the one tried is no longer kept of some stream."""
    resolution_s = _resolution(window, most)
    found: dict[str, FoundValues] = {}
    while True:
        for stream in streams:
            if stream not in found or found[stream].plan.resolution_s != resolution_s:
                query = TimelineQuery(from_us=window.start_us, to_us=window.end_us, resolution_s=resolution_s)
                bucket_values = find_bucket_values(store, stream, query, most)
                assert bucket_values is not None, "a window with both ends is never open"
                found[stream] = bucket_values
        coarsest_s = max(each.plan.resolution_s for each in found.values())
        if coarsest_s == resolution_s:
            return found
        resolution_s = coarsest_s


def _resolution(window: Extent, most: int) -> int:
    length = window.end_us - window.start_us
    for tier_s in TIERS_S:
        if count_in(length, tier_s) <= most:
            return tier_s
    return hours_for(length, most)


def _series(asked: Series, found: dict[str, FoundValues]) -> ComparedSeries:
    # Time without samples counts as an absence if one of the streams is a camera.
    lane = StreamClass.LIVE if any(member.lane is StreamClass.LIVE for member in asked.members) else StreamClass.FILE
    parts = [found[member.stream_id] for member in asked.members if member.stream_id in found]
    columns = [merged_buckets(part) for part in parts]
    points, buckets = [], []
    for row in zip_longest(*columns):
        start_us, bucket = row[0][0], merge_all(bucket for _, bucket in row)
        start_s = start_us // SECOND_US
        stop_s = start_s + parts[0].plan.resolution_s
        points.append(make_point(bucket, start_us, lane, _models(parts, row, start_s, stop_s)))
        buckets.append(bucket)
    whole = Bucket() if not buckets else NOTHING
    for bucket in buckets:
        whole = merge(whole, bucket)
    names = tuple(dict.fromkeys(name for point in points for name in point.models))
    summary = make_point(whole, points[0].start_us if points else 0, lane, names)
    return ComparedSeries(
        name=asked.name, streams=tuple(member.stream_id for member in asked.members), lane=lane, points=points, summary=summary
    )


def _models(parts: Sequence[FoundValues], row: Sequence[tuple[int, Bucket]], start_s: int, stop_s: int) -> tuple[str, ...]:
    """Return the models of those streams that had a frame looked at; a group may have several at a time."""
    looked = [part for part, (_, bucket) in zip(parts, row, strict=True) if bucket.classified]
    return tuple(dict.fromkeys(name for part in looked for name in part.labels.between(start_s, stop_s)))
