"""A timeline as JSON, at once: the same answer as `timeline_document` gives, for windows of thousands of points.

Values are computed as arrays and written by msgspec, so that a day of minutes takes a few milliseconds. A test holds both ways of
making an answer to the same result, number for number.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from services.report.document import DIGITS, TimelineDocument, point_document
from services.report.moments import iso, to_datetime
from shared.emotions import EMOTIONS, PROBABILITY_SCALE
from shared.messages import Lane
from shared.timeline.bucket import SECOND_US, SKIP_REASONS
from shared.timeline.columns import Columns, unpack_columns
from shared.timeline.points import EmptyReason, make_point
from shared.timeline.query import FoundCells

_SCALE: Final = 10.0**DIGITS
_NEAR_A_TIE: Final = 1e-6

_Seven: Final[Any] = msgspec.defstruct("_Seven", [(name, float) for name in EMOTIONS], gc=False)
_Skipped: Final[Any] = msgspec.defstruct("_Skipped", [(reason.value, int) for reason in SKIP_REASONS], gc=False)
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
    dominant: str | None
    shares: Any
    smoothed: Any
    raw: Any
    empty: str | None
    models: tuple[str, ...]
    final: bool


def timeline_json(found: FoundCells, *, stream: str, lane: Lane, recorded_at_us: int, asked_s: int | None) -> bytes:
    """Return the JSON of a `TimelineDocument`.

    Args:
        found: What the store says.
        stream: Id of the stream.
        lane: File or live.
        recorded_at_us: Time of a file's first instant, microseconds since the Unix epoch; not used for live streams.
        asked_s: The resolution that was asked for, in s, if one was.

    Raises:
        StoreError: a stored value cannot be read.
    """
    plan, origin_us = found.plan, recorded_at_us if lane is Lane.FILE else None
    step_us, each = plan.resolution_s * SECOND_US, plan.resolution_s // plan.level_s
    indices = np.fromiter((index for index, _ in found.cells), np.int64, len(found.cells))
    stored = unpack_columns([value for _, value in found.cells])
    points = np.arange(plan.start, plan.stop)
    columns = stored.placed(indices // each - plan.start, len(points))
    is_final = np.full(len(points), fill_value=True)
    if found.closed_to_us is not None:
        is_final = (points + 1) * step_us <= found.closed_to_us
    whole = plan.start * plan.resolution_s, plan.stop * plan.resolution_s
    total = columns.total(final=bool(is_final.all()))
    summary = make_point(total, plan.start * step_us, lane, found.labels.between(*whole))
    answer = {
        "stream": stream,
        "lane": lane.value,
        "recorded_at": None if origin_us is None else _time(origin_us),
        "start": _time(plan.start * step_us),
        "end": _time(plan.stop * step_us),
        "resolution_s": plan.resolution_s,
        "level_s": plan.level_s,
        "coarser_than_asked": asked_s is not None and plan.resolution_s > asked_s,
        "points": _points(columns, points * plan.resolution_s, is_final, lane, origin_us, _models(columns, found)),
        "summary": msgspec.Raw(point_document(summary, origin_us).model_dump_json().encode()),
    }
    assert answer.keys() == TimelineDocument.model_fields.keys()
    return msgspec.json.encode(answer)


def _points(
    columns: Columns,
    starts_s: npt.NDArray[np.int64],
    is_final: npt.NDArray[np.bool_],
    lane: Lane,
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
        *_readings(columns),
        _empty(columns, lane),
        models,
        is_final.tolist(),
    )
    return [_Point(*row) for row in zip(*fields, strict=True)]


def _skipped(columns: Columns) -> list[Any]:
    none = _Skipped(*[0] * len(SKIP_REASONS))
    has_skips: list[bool] = np.asarray(columns.skipped.any(axis=1)).tolist()
    return [_Skipped(*row) if has else none for row, has in zip(columns.skipped.tolist(), has_skips, strict=True)]


def _readings(columns: Columns) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Return the leading emotions, shares, smoothed and raw means; None where there is no face."""
    seen = np.flatnonzero(columns.faces)
    found: tuple[list[Any], list[Any], list[Any], list[Any]] = tuple([None] * len(columns.faces) for _ in range(4))  # type: ignore[assignment]
    if not len(seen):
        return found
    faces, leading, smoothed = columns.faces[seen, None], columns.leading[seen], columns.smoothed[seen]
    # Of the emotions that lead most faces, the one with the largest smoothed sum, then the first.
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


def _empty(columns: Columns, lane: Lane) -> list[str | None]:
    nothing = EmptyReason.OFFLINE if lane is Lane.LIVE else EmptyReason.NOT_SAMPLED
    which = np.select([columns.faces > 0, columns.classified > 0, columns.sampled > 0], [0, 1, 2], 3)
    words = (None, EmptyReason.NO_FACE.value, EmptyReason.OVERLOADED.value, nothing.value)
    return [words[each] for each in which.tolist()]


def _models(columns: Columns, found: FoundCells) -> list[tuple[str, ...]]:
    plan, step_s = found.plan, found.plan.resolution_s
    labels = found.labels.each(plan.start * step_s, step_s, plan.stop - plan.start)
    return [models if classified else () for models, classified in zip(labels, columns.classified.tolist(), strict=True)]


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
