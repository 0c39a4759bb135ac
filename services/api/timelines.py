"""Routes of timelines: of a stream, of its tracked faces, and a window's summary."""

from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from moodline.services.api import PREFIX
from moodline.services.api.access import Caller, Viewer, visible
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.api.negotiation import MEDIA_TYPES, Format, choose_format
from moodline.services.api.tables import exported, point_table, track_point_table, track_table
from moodline.services.report.document import SummaryDocument, TimelineDocument, summary_document, timeline_document
from moodline.services.report.quick_json import timeline_json
from moodline.services.report.tracks import TrackPage, TrackTimelineDocument, track_document, track_timeline_document
from moodline.shared.errors import QueryError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline.bucket import SECOND_US
from moodline.shared.timeline.query import TimelineQuery, extent, find_bucket_values, timeline
from moodline.shared.timeline.tiers import Extent
from moodline.shared.timeline.times import is_absolute, parse_resolution, parse_time
from moodline.shared.timeline.track_query import track_list, track_timeline

router = APIRouter(prefix=PREFIX, tags=["timelines"])

DEFAULT_POINTS: Final = 600
_ON_ITS_WAY_US: Final = 5_000_000
_MOST_TRACK: Final = 2**53 - 2
_QUERY = problem_responses("stream_not_found", "invalid_query", "invalid_request")
_TRACK_QUERY = problem_responses("stream_not_found", "track_not_found", "invalid_query", "invalid_request")
_CACHEABLE: Final = "private, max-age=300"
"""Final points do not change. They are cached only so long, because access can change and the stream can be deleted."""
_BY_ACCEPT: Final = "default: as `Accept` says, else `json`."
_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
EXPORTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {
            MEDIA_TYPES[Format.CSV][0]: {"schema": {"type": "string"}, "example": "start,position_s,sampled,classified,…\r\n"},
            MEDIA_TYPES[Format.NDJSON][0]: {"schema": {"type": "string"}, "example": '{"start":"2026-05-01T12:00:00Z",…}\n'},
            MEDIA_TYPES[Format.PARQUET][0]: _BINARY,
            MEDIA_TYPES[Format.ARROW][0]: _BINARY,
        }
    }
}
"""The formats besides JSON, as OpenAPI describes them."""

AskedFormat = Annotated[
    str | None,
    Field(
        None,
        max_length=32,
        description=f"`json`, `csv`, `ndjson`, `parquet` or `arrow`; {_BY_ACCEPT}",
        json_schema_extra={"enum": [*Format, None]},
    ),
]

TrackNumber = Annotated[int, Path(ge=1, le=_MOST_TRACK, description="The track's number.")]


class Window(BaseModel):
    """A window of a timeline."""

    model_config = ConfigDict(extra="forbid")

    start: str | None = Field(
        None,
        alias="from",
        max_length=64,
        description="ISO 8601 (UTC where no offset is given; write its + as %2B), seconds or milliseconds since 1970, `now`, or "
        "relative to now: `-90s`, `-15min`, `-1h`, `-2d`, or as Grafana writes it: `now-5m`, `now-1d/d`. For a file, now is the "
        "end of its timeline; for a live stream, the present. Default: where the timeline begins.",
    )
    end: str | None = Field(
        None,
        alias="to",
        max_length=64,
        description="Like `from`; not included. Default: where the timeline ends; with `from`, for a live stream: the present.",
    )


class PointsWindow(Window):
    """A window of a timeline and its resolution. `resolution` and `max_points` exclude each other."""

    resolution: str | None = Field(
        None, max_length=32, description="Length of a point in whole seconds: `1s`, `10s`, `1min`, `10min`, `1h`."
    )
    max_points: int | None = Field(
        None,
        ge=2,
        description="The finest points of which there are at most so many, a partial first one not counted; "
        f"default {DEFAULT_POINTS}.",
    )


class TimelineParameters(PointsWindow):
    """A window of a timeline, its resolution and its format."""

    format: AskedFormat


class TrackListParameters(Window):
    """The tracks that were seen at some time in the window."""

    limit: int = Field(100, ge=1, le=500, description="Most tracks in the answer.")
    cursor: int = Field(0, ge=0, le=_MOST_TRACK, description="`next_cursor` of the page before.")
    format: AskedFormat


@router.get(
    "/streams/{stream_id}/timeline", response_model=TimelineDocument, summary="Read a timeline", responses={**EXPORTS, **_QUERY}
)
def get_timeline(
    ctx: Ctx,
    caller: Viewer,
    stream_id: str,
    request: Request,
    parameters: Annotated[TimelineParameters, Query()],
) -> Response:
    """Return a window of a stream's timeline, empty stretches included, each with the reason why it is empty."""
    wanted = choose_format(request.headers, parameters.format, tuple(Format))
    spec = visible(ctx, caller, stream_id)
    query = _query(ctx, spec, parameters)
    if wanted is not Format.JSON:
        document = _document(ctx, spec, query)
        described = {"stream": stream_id, "lane": spec.lane, "resolution_s": document.resolution_s}
        response = exported(wanted, point_table(document.points), document.points, stream_id, described)
        return _cached(response, parameters, all(point.final for point in document.points) and bool(document.points))
    found = find_bucket_values(ctx.store, stream_id, query, ctx.settings.api.max_points)
    if found is None:
        return Response(_document(ctx, spec, query).model_dump_json(), media_type="application/json")
    body = timeline_json(
        found,
        stream=stream_id,
        lane=spec.lane,
        recorded_at_us=spec.recorded_at_us,
        asked_s=query.resolution_s,
        cache=ctx.stretches,
    )
    end_us = found.plan.stop * found.plan.resolution_s * SECOND_US
    is_final = found.closed_to_us is None or end_us <= found.closed_to_us
    return _cached(Response(body, media_type="application/json"), parameters, is_final)


def _cached(response: Response, window: Window, is_final: bool) -> Response:
    """Let clients keep an answer that cannot become another one: all of it is final, and it does not depend on the present."""
    response.headers["vary"] = "Accept, Authorization, Cookie"
    if is_final and is_absolute(window.start) and is_absolute(window.end):
        response.headers["cache-control"] = _CACHEABLE
    return response


def read_timeline(ctx: Context, caller: Caller, stream_id: str, parameters: PointsWindow) -> TimelineDocument:
    """Return a window of a stream's timeline. Raises as the route does."""
    spec = visible(ctx, caller, stream_id)
    return _document(ctx, spec, _query(ctx, spec, parameters))


@router.get("/streams/{stream_id}/summary", summary="Summarise a timeline", responses=_QUERY)
def get_summary(
    ctx: Ctx, caller: Viewer, stream_id: str, window: Annotated[Window, Query()], response: Response
) -> SummaryDocument:
    """Return a window of a stream's timeline as one point, from the finest buckets that are kept of it."""
    spec = visible(ctx, caller, stream_id)
    start_us, end_us, span_us = _edges(ctx, spec, window)
    query = TimelineQuery(from_us=start_us, to_us=end_us, max_points=ctx.settings.api.max_points, span_us=span_us)
    document = summary_document(_document(ctx, spec, query))
    _cached(response, window, document.summary.final and document.start < document.end)
    return document


@router.get(
    "/streams/{stream_id}/tracks", response_model=TrackPage, summary="List tracked faces", responses={**EXPORTS, **_QUERY}
)
def list_tracks(
    ctx: Ctx, caller: Viewer, stream_id: str, request: Request, parameters: Annotated[TrackListParameters, Query()]
) -> TrackPage | Response:
    """Return the faces that were followed from frame to frame, in the order in which they came.

    In formats other than JSON the position of the next page is in the header `Next-Cursor`.
    """
    wanted = choose_format(request.headers, parameters.format, tuple(Format))
    page = read_tracks(ctx, caller, stream_id, parameters)
    if wanted is Format.JSON:
        return page
    response = exported(wanted, track_table(page.tracks), page.tracks, f"{stream_id}-tracks", {"stream": stream_id})
    if page.next_cursor is not None:
        response.headers["next-cursor"] = page.next_cursor
    return response


def read_tracks(ctx: Context, caller: Caller, stream_id: str, parameters: TrackListParameters) -> TrackPage:
    """Return some of a stream's tracks. Raises as the route does."""
    spec = visible(ctx, caller, stream_id)
    limit = parameters.limit
    found = track_list(ctx.store, stream_id, _extent(ctx, spec, parameters), parameters.cursor, limit + 1)
    return TrackPage(
        stream=stream_id,
        tracks=[track_document(track, _origin_us(spec)) for track in found[:limit]],
        next_cursor=str(found[limit - 1].track_id) if len(found) > limit else None,
    )


class TrackParameters(PointsWindow):
    """A window of a track's timeline, its resolution and its format."""

    format: AskedFormat


@router.get(
    "/streams/{stream_id}/tracks/{track}",
    response_model=TrackTimelineDocument,
    summary="Read one face's timeline",
    responses={**EXPORTS, **_TRACK_QUERY},
)
def get_track(
    ctx: Ctx,
    caller: Viewer,
    stream_id: str,
    track: TrackNumber,
    request: Request,
    parameters: Annotated[TrackParameters, Query()],
    response: Response,
) -> TrackTimelineDocument | Response:
    """Return a window of one face's timeline. Kept as long as points of 1 s are."""
    wanted = choose_format(request.headers, parameters.format, tuple(Format))
    document = read_track(ctx, caller, stream_id, track, parameters)
    if wanted is Format.JSON:
        _cached(response, parameters, document.track.ended and bool(document.points))
        return document
    name = f"{stream_id}-track-{track}"
    described = {"stream": stream_id, "track": track, "resolution_s": document.resolution_s}
    made = exported(wanted, track_point_table(document.points), document.points, name, described)
    return _cached(made, parameters, document.track.ended and bool(document.points))


def read_track(ctx: Context, caller: Caller, stream_id: str, track: int, parameters: PointsWindow) -> TrackTimelineDocument:
    """Return a window of one face's timeline. Raises as the route does."""
    spec = visible(ctx, caller, stream_id)
    answer = track_timeline(ctx.store, stream_id, track, _query(ctx, spec, parameters), ctx.settings.api.max_points)
    return track_timeline_document(answer, stream=stream_id, origin_us=_origin_us(spec))


def _document(ctx: Context, spec: StreamSpec, query: TimelineQuery) -> TimelineDocument:
    answer = timeline(ctx.store, spec.stream_id, spec.lane, query, ctx.settings.api.max_points)
    return timeline_document(answer, stream=spec.stream_id, lane=spec.lane, recorded_at_us=spec.recorded_at_us)


def _query(ctx: Context, spec: StreamSpec, parameters: PointsWindow) -> TimelineQuery:
    if parameters.resolution is not None and parameters.max_points is not None:
        raise QueryError("max_points", "give resolution or max_points, not both")
    start_us, end_us, span_us = _edges(ctx, spec, parameters)
    if parameters.resolution is not None:
        resolution_s, max_points = parse_resolution(parameters.resolution), None
    else:
        resolution_s, max_points = None, parameters.max_points or min(DEFAULT_POINTS, ctx.settings.api.max_points)
    return TimelineQuery(from_us=start_us, to_us=end_us, resolution_s=resolution_s, max_points=max_points, span_us=span_us)


class Edges(NamedTuple):
    """A window as asked: start and end, None where it is open; and the length that was meant where the end is."""

    start_us: int | None
    end_us: int | None
    span_us: int | None


def _edges(ctx: Context, spec: StreamSpec, window: Window) -> Edges:
    if window.start is None and window.end is None:
        return Edges(None, None, None)
    now_us = present_us(ctx, spec)
    start_us = None if window.start is None else parse_time(window.start, now_us, "from")
    end_us = None if window.end is None else parse_time(window.end, now_us, "to")
    if start_us is not None and spec.lane is StreamClass.FILE and str(window.start).startswith("-"):
        start_us = _within_file_us(ctx, spec, start_us, end_us)
    if end_us is not None or start_us is None:
        return Edges(start_us, end_us, None)
    span_us = now_us - start_us if now_us > start_us else None
    return Edges(start_us, _live_end_us(ctx, spec, start_us) if spec.lane is StreamClass.LIVE else None, span_us)


def _within_file_us(ctx: Context, spec: StreamSpec, start_us: int, end_us: int | None) -> int:
    """Return where a window begins that goes back further than the file does: at the file's beginning."""
    covered = extent(ctx.store, spec.stream_id)
    if covered is None or (end_us is not None and end_us <= covered.start_us):
        return start_us
    return max(start_us, covered.start_us)


def _live_end_us(ctx: Context, spec: StreamSpec, start_us: int) -> int | None:
    """Return where an open window of a live stream ends: at the present, so that it shows an absence up to now.

    What is still on its way is no absence, so the last seconds are left out where nothing has come in yet.
    """
    covered = extent(ctx.store, spec.stream_id)
    reached_us = max(ctx.now_us() - _ON_ITS_WAY_US, covered.end_us if covered else 0)
    return reached_us if reached_us > start_us else None


def present_us(ctx: Context, spec: StreamSpec) -> int:
    """Return what relative times count from: a file's own end, since the hour of its reading means nothing to it."""
    if spec.lane is StreamClass.LIVE:
        return ctx.now_us()
    covered = extent(ctx.store, spec.stream_id)
    return spec.recorded_at_us if covered is None else covered.end_us


def _extent(ctx: Context, spec: StreamSpec, window: Window) -> Extent | None:
    start_us, end_us, _ = _edges(ctx, spec, window)
    if start_us is None and end_us is None:
        return None
    covered = Extent(-(2**62) if start_us is None else start_us, 2**62 if end_us is None else end_us)
    if covered.start_us >= covered.end_us:
        raise QueryError("from", "from must lie before to")
    return covered


def _origin_us(spec: StreamSpec) -> int | None:
    return spec.recorded_at_us if spec.lane is StreamClass.FILE else None
