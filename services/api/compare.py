"""The route that compares streams, or groups of streams, on one grid."""

from collections import defaultdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from moodline.services.api import PREFIX
from moodline.services.api.access import Caller, Viewer, visible, visible_streams
from moodline.services.api.comparison import MAX_POINTS, MAX_STREAMS, ComparedSeries, Comparison, Member, Series, compare
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.api.negotiation import Format, choose_format
from moodline.services.api.tables import Column, Kind, Table, exported, table_bytes
from moodline.services.api.timelines import EXPORTS, AskedFormat, Window, present_us
from moodline.services.report.document import DIGITS, ByEmotion, by_emotion, point_document
from moodline.services.report.moments import Time, to_datetime
from moodline.services.report.statistics import STATISTICS_EXAMPLE, WindowStatistics, window_statistics
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import QueryError
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline.points import EmptyReason, TimelinePoint
from moodline.shared.timeline.query import extent
from moodline.shared.timeline.tiers import Extent
from moodline.shared.timeline.times import parse_time

router = APIRouter(prefix=PREFIX, tags=["timelines"])

DEFAULT_POINTS: Final = 600
_SEVEN: Final = {**dict.fromkeys(EMOTIONS, 0.0), "happy": 0.9, "neutral": 0.1}
_POINT: Final[dict[str, Any]] = {
    "start": "2026-05-01T12:00:00Z",
    "dominant": "happy",
    "shares": _SEVEN,
    "smoothed": _SEVEN,
    "faces": 41,
    "coverage": 0.98,
    "empty": None,
    "final": True,
}
_SERIES: Final[dict[str, Any]] = {
    "name": "berlin",
    "streams": ["hall", "lobby"],
    "points": [_POINT],
    "summary": STATISTICS_EXAMPLE,
}
_QUERY: Final = problem_responses("stream_not_found", "invalid_query", "invalid_request")

COLUMNS: Final = (
    Column("start", Kind.TIME),
    *(Column(name, Kind.TEXT) for name in ("series", "dominant", "empty")),
    Column("faces", Kind.INTEGER),
    Column("coverage"),
    Column("final", Kind.FLAG),
    *(Column(f"{vector}_{emotion}") for vector in ("shares", "smoothed") for emotion in EMOTIONS),
)
CSV_FIELDS: Final = tuple(column.name for column in COLUMNS)
"""The columns of a comparison's CSV, in their order."""


class CompareParameters(Window):
    """The series to compare, and the window."""

    stream: list[str] = Field([], max_length=MAX_STREAMS, description="Ids of streams.")
    label: list[str] = Field(
        [],
        max_length=32,
        description="All streams with this label, `key=value` or `key`; all given must match. Not with `stream`.",
    )
    group_by: str | None = Field(
        None,
        min_length=1,
        max_length=63,
        description="A label's key: streams with the same value are merged; others are left out.",
    )
    max_points: int = Field(
        DEFAULT_POINTS, ge=2, le=5000, description=f"Most points of each series; of all together at most {MAX_POINTS:,}."
    )
    format: AskedFormat


class ComparePoint(BaseModel):
    """One stretch of a series; fields as in a timeline's point."""

    model_config = ConfigDict(json_schema_extra={"examples": [_POINT]})

    start: Time
    dominant: str | None
    shares: ByEmotion | None
    smoothed: ByEmotion | None
    faces: int
    coverage: float = Field(description="Share of the sampled frames that were looked at, 0 to 1.")
    empty: EmptyReason | None = Field(description="Why there are no emotions; null where there are some.")
    final: bool


class SeriesDocument(BaseModel):
    """One stream, or one group of streams."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SERIES]})

    name: str = Field(description="The stream's id, or the label's value.")
    streams: list[str] = Field(description="Ids of the streams that are in it.")
    points: list[ComparePoint] = Field(description="One for every stretch; the same stretches in every series.")
    summary: WindowStatistics


class CompareDocument(BaseModel):
    """Several timelines on one grid."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "start": "2026-05-01T12:00:00Z",
                    "end": "2026-05-01T12:00:10Z",
                    "resolution_s": 10,
                    "group_by": "site",
                    "series": [_SERIES],
                }
            ]
        }
    )

    start: Time = Field(description="Start of the window.")
    end: Time = Field(description="End of the window.")
    resolution_s: int = Field(description="Length of every point, in s; the server chooses it.")
    group_by: str | None = Field(description="The label's key, where streams are merged.")
    series: list[SeriesDocument] = Field(description="In the order of `stream`, else by name.")


@router.get("/compare", response_model=CompareDocument, summary="Compare streams or groups", responses={**EXPORTS, **_QUERY})
def get_comparison(
    ctx: Ctx,
    caller: Viewer,
    request: Request,
    parameters: Annotated[CompareParameters, Query()],
) -> Response:
    """Return several timelines on one grid, in one answer, each point with the reason where it is empty."""
    wanted = choose_format(request.headers, parameters.format, tuple(Format))
    specs = _streams(ctx, caller, parameters)
    window = _window(ctx, specs, parameters)
    found = compare(ctx.store, _series(specs, parameters.group_by), window, parameters.max_points)
    document = compare_document(found, parameters.group_by)
    if wanted is not Format.JSON:
        return exported(wanted, compare_table(document), _rows(document), "compare", {"resolution_s": document.resolution_s})
    # Thousands of points: written once, not checked a second time on the way out.
    return Response(document.model_dump_json(), media_type="application/json")


def compare_document(found: Comparison, group_by: str | None) -> CompareDocument:
    """Return a comparison as a document."""
    return CompareDocument(
        start=to_datetime(found.from_us),
        end=to_datetime(found.to_us),
        resolution_s=found.resolution_s,
        group_by=group_by,
        series=[_series_document(each, found.resolution_s) for each in found.series],
    )


class _ComparedPoint(ComparePoint):
    """A point with the name of its series, as a line of NDJSON."""

    series: str


def compare_table(document: CompareDocument) -> Table:
    """Return a comparison as a table: one row per point and series, ordered by time."""
    rows = []
    for point in _rows(document):
        vectors = [values.get(emotion) for values in (point.shares or {}, point.smoothed or {}) for emotion in EMOTIONS]
        plain = [point.start, point.series, point.dominant, point.empty, point.faces, point.coverage, point.final]
        rows.append([*plain, *vectors])
    return Table(COLUMNS, rows)


def compare_csv(document: CompareDocument) -> str:
    """Return a comparison as CSV with a header (RFC 4180)."""
    return table_bytes(Format.CSV, compare_table(document)).decode()


def _rows(document: CompareDocument) -> list[_ComparedPoint]:
    return [
        _ComparedPoint.model_construct(series=series.name, **dict(point))
        for row in zip(*(series.points for series in document.series), strict=True)
        for series, point in zip(document.series, row, strict=True)
    ]


def _streams(ctx: Context, caller: Caller, parameters: CompareParameters) -> list[StreamSpec]:
    if parameters.stream and parameters.label:
        raise QueryError("stream", "give stream or label, not both")
    if parameters.stream:
        return [visible(ctx, caller, stream) for stream in dict.fromkeys(parameters.stream)]
    if not parameters.label and parameters.group_by is None:
        raise QueryError("stream", "say what to compare: stream (several), label, or group_by")
    labels = parameters.label if parameters.group_by is None else [*parameters.label, parameters.group_by]
    specs = visible_streams(ctx, caller, labels)
    if len(specs) > MAX_STREAMS:
        raise QueryError("label", f"{len(specs)} streams match; one comparison reads at most {MAX_STREAMS}")
    return specs


def _series(specs: list[StreamSpec], group_by: str | None) -> list[Series]:
    if group_by is None:
        return [Series(spec.stream_id, (Member(spec.stream_id, spec.lane),)) for spec in specs]
    groups: dict[str, list[Member]] = defaultdict(list)
    for spec in specs:
        if group_by in spec.labels:
            groups[spec.labels[group_by]].append(Member(spec.stream_id, spec.lane))
    return [Series(name, tuple(members)) for name, members in sorted(groups.items())]


def _window(ctx: Context, specs: list[StreamSpec], parameters: CompareParameters) -> Extent | None:
    """Return the asked window. `now` is the present where there is a camera, else the latest end of the files."""
    if parameters.start is None and parameters.end is None:
        return None
    now_us = max((present_us(ctx, spec) for spec in specs), default=ctx.now_us())
    start_us = None if parameters.start is None else parse_time(parameters.start, now_us, "from")
    end_us = now_us if parameters.end is None else parse_time(parameters.end, now_us, "to")
    if start_us is None:
        begun = [found.start_us for spec in specs if (found := extent(ctx.store, spec.stream_id)) is not None]
        start_us = min((us for us in begun if us < end_us), default=end_us - 1)
    if start_us >= end_us:
        raise QueryError("from", "from must lie before to")
    return Extent(start_us, end_us)


def _series_document(found: ComparedSeries, step_s: int) -> SeriesDocument:
    points, summary = [_point(point) for point in found.points], point_document(found.summary, None)
    return SeriesDocument(
        name=found.name,
        streams=list(found.streams),
        points=points,
        summary=window_statistics((point.empty for point in points), summary.shares, summary.dominant, summary.faces, step_s),
    )


def _point(point: TimelinePoint) -> ComparePoint:
    reading = point.reading
    # Made by us, so not checked again: a comparison has thousands of them.
    return ComparePoint.model_construct(
        start=to_datetime(point.start_us),
        dominant=reading.dominant if reading else None,
        shares=by_emotion(reading.shares) if reading else None,
        smoothed=by_emotion(reading.smoothed) if reading else None,
        faces=point.faces,
        coverage=round(point.coverage, DIGITS),
        empty=point.empty,
        final=point.final,
    )
