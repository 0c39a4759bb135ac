"""Questions to a stream's timeline.

Points lie on a grid of multiples of the resolution since the Unix epoch, so the same point always has the same value, and
a window's first point begins at or before the window does.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from moodline.shared.errors import QueryError
from moodline.shared.messages import StreamClass
from moodline.shared.store.base import BucketValueRange, TimelineStore
from moodline.shared.timeline.bucket import NOTHING, SECOND_US, TIERS_S, Bucket, merge, merge_all, unpack
from moodline.shared.timeline.models import ModelLabels, model_labels, models_range
from moodline.shared.timeline.points import TimelineAnswer, make_point
from moodline.shared.timeline.tiers import Extent, Tiers

MAX_BUCKET_VALUES: Final = 100_000
"""Most stored bucket values that one answer is made of."""

DEFAULT_LIMIT: Final = 5_000
"""Most points in one answer where the caller sets no other limit."""

_LAST_INDEX: Final = 2**53

LEAST_POINTS: Final = 2
"""A short window may touch two neighbouring points of the grid, however long these are."""


class TimelineQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query: the window and its resolution.

    Attributes:
        from_us: Start, inclusive, microseconds since the Unix epoch; None: where the timeline begins.
        to_us: End, exclusive; None: where the timeline ends.
        resolution_s: Length of a point in s; None: the finest stored tier that gives at most `max_points`.
        max_points: Most points when no resolution is asked; None: the limit. A partial first point is not counted.
        span_us: Length that the resolution is chosen for, in microseconds, where an open end moves on while the question
            stays the same; None: the length of the window.
    """

    from_us: int | None = None
    to_us: int | None = None
    resolution_s: int | None = None
    max_points: int | None = None
    span_us: int | None = None


class Plan(NamedTuple):
    """The points of an answer: multiples `start` to before `stop` of `resolution_s`, made of buckets of `tier_s`."""

    start: int
    """First point, in units of `resolution_s`."""
    stop: int
    resolution_s: int
    tier_s: int


class FoundValues(NamedTuple):
    """The stored values that an answer is made of.

    Attributes:
        plan: Its points.
        bucket_values: Stored `(index, value)` of the plan's tier, ordered.
        closed_to_us: Up to where nothing can be added any more; None when the timeline is closed for good.
        labels: Which models made which part.
    """

    plan: Plan
    bucket_values: list[tuple[int, bytes]]
    closed_to_us: int | None
    labels: ModelLabels


def extent(store: TimelineStore, stream_id: str) -> Extent | None:
    """Return what a stream's timeline covers, or None when nothing is stored. Blocks on the store."""
    return Tiers(store, stream_id).extent


def timeline(
    store: TimelineStore, stream_id: str, lane: StreamClass, query: TimelineQuery, limit: int = DEFAULT_LIMIT
) -> TimelineAnswer:
    """Return a window of a stream's timeline. Blocks on the store.

    With `max_points` alone, points are as long as the finest stored tier that gives few enough of them, or several hours
    where even the coarsest gives too many. With a resolution, stored buckets are merged to it exactly.

    Raises:
        QueryError: the window is empty, the resolution cannot be had, or the answer would be too large.
        StoreError: a stored value cannot be read.
    """
    found = find_bucket_values(store, stream_id, query, limit)
    if found is None:
        return _nothing(query, lane)
    plan, labels = found.plan, found.labels
    buckets = merged_buckets(found)
    step_s, step_us = plan.resolution_s, plan.resolution_s * SECOND_US
    whole = plan.start * step_s, plan.stop * step_s
    points = []
    for start_us, bucket in buckets:
        start_s = start_us // SECOND_US
        points.append(make_point(bucket, start_us, lane, labels.between(start_s, start_s + step_s)))
    return TimelineAnswer(
        from_us=plan.start * step_us,
        to_us=plan.stop * step_us,
        resolution_s=plan.resolution_s,
        tier_s=plan.tier_s,
        coarser_than_asked=query.resolution_s is not None and plan.resolution_s > query.resolution_s,
        points=points,
        summary=make_point(merge_all(bucket for _, bucket in buckets), plan.start * step_us, lane, labels.between(*whole)),
    )


def check_window(query: TimelineQuery, covered: Extent | None) -> Extent | None:
    """Return the asked window, open ends filled in from what is covered; None when that leaves nothing to show.

    Raises:
        QueryError: the window ends before it begins, or is empty.
    """
    if query.from_us is not None and query.to_us is not None and query.from_us >= query.to_us:
        raise QueryError("from", "from must lie before to")
    if covered is None and (query.from_us is None or query.to_us is None):
        return None
    start = query.from_us if query.from_us is not None or covered is None else covered.start_us
    end = query.to_us if query.to_us is not None or covered is None else covered.end_us
    if start is None or end is None or start >= end:
        return None
    return Extent(start, end)


def check_points(query: TimelineQuery, limit: int) -> None:
    """Raise `QueryError` unless the asked resolution or number of points can be had at all."""
    if query.resolution_s is not None and query.resolution_s < 1:
        raise QueryError("resolution", "the resolution must be at least 1 s")
    if query.max_points is not None and not LEAST_POINTS <= query.max_points <= limit:
        raise QueryError("max_points", f"max_points must be {LEAST_POINTS} to {limit}; the summary is the window in one point")


def length_us(query: TimelineQuery, window: Extent) -> int:
    """Return the length that counts when points are chosen, in microseconds, as the query gives it, wherever its end is now."""
    return window.end_us - window.start_us if query.span_us is None else query.span_us


def count_in(length: int, resolution_s: int) -> int:
    """Return how many points a length in microseconds has, for every second at which it may begin.

    A window that begins inside of a point touches one more. It does not count: else the same question would get another
    resolution from one second to the next.
    """
    return -(-length // (resolution_s * SECOND_US))


def check_count(length: int, resolution_s: int, limit: int) -> None:
    """Raise `QueryError` when a length in microseconds has more than `limit` points."""
    points = count_in(length, resolution_s)
    if points > limit:
        raise QueryError(
            "resolution", f"{points} points are more than {limit}: ask for a shorter window, a coarser resolution or max_points"
        )


def _plan(query: TimelineQuery, window: Extent, tiers: Tiers, limit: int) -> Plan:
    if query.resolution_s is None:
        most = max(LEAST_POINTS, query.max_points or limit)
        resolution_s = _resolution_for(length_us(query, window), window.start_us, tiers, most)
    else:
        check_count(length_us(query, window), query.resolution_s, limit)
        resolution_s = query.resolution_s
    tier_s = _tier_for(resolution_s, window, tiers)
    if tier_s is None:
        resolution_s, tier_s = _fallback(resolution_s, window, tiers)
    step_us = resolution_s * SECOND_US
    plan = Plan(window.start_us // step_us, -(-window.end_us // step_us), resolution_s, tier_s)
    if _bucket_values(plan, tiers) > MAX_BUCKET_VALUES:
        raise QueryError(
            "resolution", f"a resolution of {resolution_s} s over this window reads too much; ask for 10s, 1min or 1h"
        )
    return plan


def _resolution_for(length: int, start_us: int, tiers: Tiers, max_points: int) -> int:
    for tier_s in TIERS_S:
        if count_in(length, tier_s) <= max_points and tiers.answers(tier_s, start_us):
            return tier_s
    return hours_for(length, max_points)


def hours_for(length: int, max_points: int) -> int:
    """Return whole hours, in s, of which a window of this length in microseconds never touches more than `max_points`."""
    coarsest = TIERS_S[-1]
    return max(1, -(-length // (coarsest * SECOND_US * (max_points - 1)))) * coarsest


def _tier_for(resolution_s: int, window: Extent, tiers: Tiers) -> int | None:
    """Return the coarsest tier that divides the resolution and still has the window; None when it is gone from all."""
    step_us = resolution_s * SECOND_US
    grid_start_us = window.start_us // step_us * step_us
    for tier_s in reversed(TIERS_S):
        if resolution_s % tier_s == 0 and tiers.answers(tier_s, grid_start_us):
            return tier_s
    return None


def _fallback(resolution_s: int, window: Extent, tiers: Tiers) -> tuple[int, int]:
    """Return the next coarser resolution that still can be had, and its tier."""
    for tier_s in TIERS_S:
        if tier_s > resolution_s and tiers.answers(tier_s, window.start_us):
            return tier_s, tier_s
    coarsest = TIERS_S[-1]
    return -(-resolution_s // coarsest) * coarsest, coarsest


def _bucket_value_range(plan: Plan, tiers: Tiers) -> tuple[int, int]:
    """Return the stored bucket values of a plan, clipped to what exists."""
    found = tiers.bounds(plan.tier_s)
    if found is None:
        return 0, 0
    each = plan.resolution_s // plan.tier_s
    return max(plan.start * each, found[0]), min(plan.stop * each, found[1] + 1)


def _bucket_values(plan: Plan, tiers: Tiers) -> int:
    start, stop = _bucket_value_range(plan, tiers)
    return stop - start


def find_bucket_values(store: TimelineStore, stream_id: str, query: TimelineQuery, limit: int) -> FoundValues | None:
    """Read what answers a question; None when there is nothing in the window. Blocks on the store, twice.

    Raises:
        QueryError: as `timeline` does.
        StoreError: a stored value cannot be read.
    """
    tiers = Tiers(store, stream_id)
    window = check_window(query, tiers.extent)
    check_points(query, limit)
    if window is None:
        return None
    plan = _plan(query, window, tiers, limit)
    bounds = tiers.bounds(plan.tier_s)
    # The newest bucket value is read before the others: what is closed then is complete in these.
    newest, bucket_values, days = store.read_many(
        (
            BucketValueRange(stream_id, "", plan.tier_s, *((bounds[1], _LAST_INDEX) if bounds else (0, 0))),
            BucketValueRange(stream_id, "", plan.tier_s, *_bucket_value_range(plan, tiers)),
            models_range(stream_id, plan.start * plan.resolution_s, plan.stop * plan.resolution_s),
        )
    )
    closed_to_us = _closed_to_us(bounds, newest, plan.tier_s)
    return FoundValues(plan, bucket_values, closed_to_us, model_labels(days))


def merged_buckets(found: FoundValues) -> list[tuple[int, Bucket]]:
    """Return start, in microseconds since the Unix epoch, and bucket of every point of the plan, empty ones included."""
    plan, closed_to_us = found.plan, found.closed_to_us
    merged = _merge_bucket_values(
        ((index, unpack(value)) for index, value in found.bucket_values), plan.resolution_s // plan.tier_s
    )
    step_us = plan.resolution_s * SECOND_US
    answer = []
    for point in range(plan.start, plan.stop):
        bucket = merged.get(point, NOTHING)
        is_final = closed_to_us is None or (point + 1) * step_us <= closed_to_us
        answer.append((point * step_us, msgspec.structs.replace(bucket, final=is_final)))
    return answer


def _merge_bucket_values(bucket_values: Iterable[tuple[int, Bucket]], each: int) -> dict[int, Bucket]:
    merged: dict[int, Bucket] = {}
    for index, bucket in bucket_values:
        point = index // each
        known = merged.get(point)
        merged[point] = bucket if known is None else merge(known, bucket)
    return merged


def _closed_to_us(bounds: tuple[int, int] | None, newest: list[tuple[int, bytes]], tier_s: int) -> int | None:
    """Return up to where nothing can be added any more; None when the timeline is closed for good.

    Event time never goes back, so all before the newest bucket that was known is closed; and when that one is closed too
    and still the newest, the stream has ended, because otherwise only a newer frame closes a bucket.
    """
    if bounds is None:
        return -(2**63)
    if newest and newest[-1][0] == bounds[1] and unpack(newest[-1][1]).final:
        return None
    return bounds[1] * tier_s * SECOND_US


def _nothing(query: TimelineQuery, lane: StreamClass) -> TimelineAnswer:
    resolution_s = query.resolution_s or TIERS_S[0]
    at_us = next((edge for edge in (query.from_us, query.to_us) if edge is not None), 0)
    summary = make_point(Bucket(), at_us, lane)
    return TimelineAnswer(
        from_us=at_us,
        to_us=at_us,
        resolution_s=resolution_s,
        tier_s=TIERS_S[0],
        coarser_than_asked=False,
        points=[],
        summary=summary,
    )
