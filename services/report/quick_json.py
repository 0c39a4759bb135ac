"""A timeline as JSON, at once: the same answer as `timeline_document` gives, for windows of thousands of points.

Values are computed as arrays and written by msgspec, so that a day of minutes takes a few milliseconds, and what was written once
is kept. A test holds both ways of making an answer to the same result, number for number.
"""

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.services.report.columns import Columns, unpack_columns
from moodline.services.report.document import DIGITS, TimelineDocument, point_document
from moodline.services.report.moments import iso, to_datetime
from moodline.shared.emotions import EMOTIONS, PROBABILITY_SCALE
from moodline.shared.messages import StreamClass
from moodline.shared.timeline.bucket import CORRUPT_AT, DROP_REASONS, SECOND_US, Bucket, merge_all
from moodline.shared.timeline.points import EmptyReason, make_point
from moodline.shared.timeline.query import FoundValues

_SCALE: Final = 10.0**DIGITS
_NEAR_A_TIE: Final = 1e-6
_CHUNK: Final = 240
"""Points of a chunk: fewer cost more calls, more are made again for every point that is added."""

_Seven: Final[Any] = msgspec.defstruct("_Seven", [(name, float) for name in EMOTIONS], gc=False)
_Skipped: Final[Any] = msgspec.defstruct("_Skipped", [(reason.value, int) for reason in DROP_REASONS], gc=False)
_Float = npt.NDArray[np.float64]


class _Point(msgspec.Struct, gc=False):
    """Fields and their order as in `PointDocument`."""

    start: str
    position_s: float | None
    sampled: int
    classified: int
    skipped: Any
    coverage: float
    frames_with_faces: int
    faces: int
    tracks_begun: int
    unreadable: int
    too_small: int
    dominant: str | None
    shares: Any
    smoothed: Any
    raw: Any
    empty: str | None
    models: tuple[str, ...]
    final: bool


class Chunk(NamedTuple):
    """Consecutive points of a timeline.

    Attributes:
        points: Their JSON objects, with commas between them.
        total: What they hold together.
    """

    points: bytes
    total: Bucket


class ChunkCache:
    """Stretches that were written before, by all that they were made of, so that none can be out of date; thread-safe.

    Somebody who watches a day asks for the same minutes again and again, and writing them takes most of an answer's time.
    """

    def __init__(self, limit_bytes: int) -> None:
        """Prepare; those that were not asked for longest are forgotten beyond `limit_bytes`, and 0 keeps nothing."""
        self._limit = limit_bytes
        self._held = 0
        self._chunks: OrderedDict[tuple[Any, ...], Chunk] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[Any, ...], make: Callable[[], Chunk]) -> Chunk:
        """Return the chunk of a key, made if it is not held."""
        with self._lock:
            if held := self._chunks.get(key):
                self._chunks.move_to_end(key)
                return held
        made = make()
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = made
                self._held += _size(made)
            while self._held > self._limit:
                self._held -= _size(self._chunks.popitem(last=False)[1])
        return made


def _size(chunk: Chunk) -> int:
    # A key is much smaller than the JSON that is made of it.
    return len(chunk.points) * 5 // 4


def timeline_json(
    found: FoundValues,
    *,
    stream: str,
    lane: StreamClass,
    recorded_at_us: int,
    asked_s: int | None,
    cache: ChunkCache | None = None,
) -> bytes:
    """Return the JSON of a `TimelineDocument`.

    Args:
        found: What the store says.
        stream: Id of the stream.
        lane: File or live.
        recorded_at_us: Time of a file's first instant, microseconds since the Unix epoch; not used for live streams.
        asked_s: The resolution that was asked for, in s, if one was.
        cache: Where stretches may be found, and are kept.

    Raises:
        StoreError: a stored value cannot be read.
    """
    plan, origin_us = found.plan, recorded_at_us if lane is StreamClass.FILE else None
    step_us = plan.resolution_s * SECOND_US
    chunks = list(_chunks(found, lane, origin_us, cache or ChunkCache(0)))
    total = merge_all(chunk.total for chunk in chunks)
    whole = plan.start * plan.resolution_s, plan.stop * plan.resolution_s
    summary = make_point(total, plan.start * step_us, lane, found.labels.between(*whole))
    head = {
        "stream": stream,
        "lane": lane.value,
        "recorded_at": None if origin_us is None else _time(origin_us),
        "start": _time(plan.start * step_us),
        "end": _time(plan.stop * step_us),
        "resolution_s": plan.resolution_s,
        "level_s": plan.tier_s,
        "coarser_than_asked": asked_s is not None and plan.resolution_s > asked_s,
    }
    assert [*head, "points", "summary"] == list(TimelineDocument.model_fields)
    # Put together in one go: each copy of a megabyte more costs as much as reading the store does.
    parts = [msgspec.json.encode(head)[:-1], b',"points":[']
    for chunk in chunks:
        parts += (chunk.points, b",")
    parts[-1:] = [b'],"summary":', point_document(summary, origin_us).model_dump_json().encode(), b"}"]
    return b"".join(parts)


def _chunks(found: FoundValues, lane: StreamClass, origin_us: int | None, cache: ChunkCache) -> Iterator[Chunk]:
    plan, step_s = found.plan, found.plan.resolution_s
    each = step_s // plan.tier_s
    labels = found.labels.each(plan.start * step_s, step_s, plan.stop - plan.start)
    # The points that are final come first.
    closed = plan.stop if found.closed_to_us is None else found.closed_to_us // (step_s * SECOND_US)
    # At whole multiples, so that a window that moves on meets the same chunks.
    edges = [plan.start, *range((plan.start // _CHUNK + 1) * _CHUNK, plan.stop, _CHUNK), plan.stop]
    indices = [index for index, _ in found.bucket_values]
    for start, stop in pairwise(edges):
        bucket_values = tuple(found.bucket_values[bisect_left(indices, start * each) : bisect_left(indices, stop * each)])
        models = tuple(labels[start - plan.start : stop - plan.start])
        made_of = _Made(start, stop, step_s, each, min(max(closed, start), stop), lane, origin_us, models, bucket_values)
        yield cache.get(made_of, partial(_write, made_of))


class _Made(NamedTuple):
    """All that a chunk is made of: points `start` to `stop`, of `each` bucket values; those before `closed` are final."""

    start: int
    stop: int
    step_s: int
    each: int
    closed: int
    lane: StreamClass
    origin_us: int | None
    models: tuple[tuple[str, ...], ...]
    bucket_values: tuple[tuple[int, bytes], ...]


def _write(made: _Made) -> Chunk:
    indices = np.fromiter((index for index, _ in made.bucket_values), np.int64, len(made.bucket_values))
    numbers = np.arange(made.start, made.stop)
    stored = unpack_columns([value for _, value in made.bucket_values])
    columns = stored.placed(indices // made.each - made.start, len(numbers))
    models = [names if count else () for names, count in zip(made.models, columns.classified.tolist(), strict=True)]
    points = _points(columns, numbers * made.step_s, numbers < made.closed, made.lane, made.origin_us, models)
    return Chunk(msgspec.json.encode(points)[1:-1], columns.total(final=made.closed == made.stop))


def _points(
    columns: Columns,
    starts_s: npt.NDArray[np.int64],
    is_final: npt.NDArray[np.bool_],
    lane: StreamClass,
    origin_us: int | None,
    models: list[tuple[str, ...]],
) -> list[_Point]:
    count = len(starts_s)
    sampled, classified = columns.sampled, columns.classified
    times = np.datetime_as_string(starts_s.astype("datetime64[s]")).tolist()
    positions = [None] * count if origin_us is None else ((starts_s * SECOND_US - origin_us) / 1e6).tolist()
    coverage = _rounded(np.divide(classified, sampled, out=np.zeros(count), where=sampled > 0))
    fields: tuple[Iterable[Any], ...] = (
        (f"{time}Z" for time in times),
        positions,
        sampled.tolist(),
        classified.tolist(),
        _skipped(columns),
        coverage.tolist(),
        columns.frames_with_faces.tolist(),
        columns.faces.tolist(),
        columns.tracks_begun.tolist(),
        columns.unreadable.tolist(),
        columns.too_small.tolist(),
        *_readings(columns),
        _empty(columns, lane),
        models,
        is_final.tolist(),
    )
    return [_Point(*row) for row in zip(*fields, strict=True)]


def _skipped(columns: Columns) -> list[Any]:
    none = _Skipped(*[0] * len(DROP_REASONS))
    has_skips: list[bool] = np.asarray(columns.skipped.any(axis=1)).tolist()
    return [_Skipped(*row) if has else none for row, has in zip(columns.skipped.tolist(), has_skips, strict=True)]


def _readings(columns: Columns) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Return the leading emotions, shares, smoothed and raw means; None where there is no face."""
    seen = np.flatnonzero(columns.faces)
    count = len(columns.faces)
    found: tuple[list[Any], list[Any], list[Any], list[Any]] = ([None] * count, [None] * count, [None] * count, [None] * count)
    if not len(seen):
        return found
    faces, leading, smoothed = columns.faces[seen, None], columns.leading[seen], columns.smoothed[seen]
    # Among the emotions that lead most faces: the one with the largest smoothed sum, then the first.
    best = np.where(leading == leading.max(axis=1, keepdims=True), smoothed, -1).argmax(axis=1)
    values = (
        _rounded(leading / faces),
        _rounded(smoothed / (faces * PROBABILITY_SCALE)),
        _rounded(columns.raw[seen] / (faces * PROBABILITY_SCALE)),
    )
    sevens = ([_Seven(*row) for row in value.tolist()] for value in values)
    for target, column in zip(found, ([EMOTIONS[at] for at in best.tolist()], *sevens), strict=True):
        for place, value in zip(seen.tolist(), column, strict=True):
            target[place] = value
    return found


def _empty(columns: Columns, lane: StreamClass) -> list[str | None]:
    nothing = EmptyReason.OFFLINE if lane is StreamClass.LIVE else EmptyReason.NOT_SAMPLED
    looked = columns.classified > 0
    is_damaged = 2 * columns.skipped[:, CORRUPT_AT] > columns.sampled
    cases = [columns.faces > 0, looked & (columns.unreadable > 0), looked, is_damaged, columns.sampled > 0]
    which = np.select(cases, list(range(len(cases))), len(cases))
    reasons = (EmptyReason.UNREADABLE, EmptyReason.NO_FACE, EmptyReason.CORRUPT, EmptyReason.OVERLOADED, nothing)
    words = (None, *(reason.value for reason in reasons))
    return [words[each] for each in which.tolist()]


def _rounded(values: _Float) -> _Float:
    """Return the values as `round` does, 0 or more, exactly."""
    scaled = values * _SCALE
    rounded: _Float = np.rint(scaled) / _SCALE
    # Right in the middle between two, the product may lie on the other side than the value.
    for place in np.argwhere(np.abs(scaled - np.floor(scaled) - 0.5) < _NEAR_A_TIE):
        rounded[tuple(place)] = round(float(values[tuple(place)]), DIGITS)
    return rounded


def _time(us: int) -> str:
    return iso(to_datetime(us))
