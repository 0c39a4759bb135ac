"""The route of single faces: each face of each sampled frame, where these are kept."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from moodline.services.api import PREFIX
from moodline.services.api.access import Viewer, visible
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.api.negotiation import Format, choose_format
from moodline.services.api.page_cursor import read_cursor, write_cursor
from moodline.services.api.tables import Column, Kind, Table, exported
from moodline.services.api.timelines import EXPORTS, AskedFormat, Window, present_us
from moodline.services.report.document import ByEmotion, by_emotion
from moodline.services.report.moments import Time, to_datetime
from moodline.shared.emotions import EMOTIONS, PROBABILITY_SCALE
from moodline.shared.errors import FacesNotKeptError, QueryError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline.bucket import SECOND_US
from moodline.shared.timeline.faces import SeenFace, SeenFrame, read_frames
from moodline.shared.timeline.levels import Extent
from moodline.shared.timeline.query import extent
from moodline.shared.timeline.times import parse_time

router = APIRouter(prefix=PREFIX, tags=["timelines"])

_STRETCH_US: Final = 1200 * SECOND_US
_MOST_STRETCHES: Final = 500
"""So many reads of the store at most make one answer; what lies beyond is on the next page."""
_BOX_SCALE: Final = 65_536
_CROP_SIDE_PX: Final = 48
_SEVEN: Final = {**dict.fromkeys(EMOTIONS, 0.0), "happy": 0.9, "neutral": 0.1}
_ROW: Final[dict[str, Any]] = {
    "frame": 12,
    "position_s": 2.4,
    "time": "2026-05-01T12:00:02.400000Z",
    "skipped": None,
    "model": "fer-2-small",
    "track": 1,
    "box": [312.5, 80.25, 401.0, 198.5],
    "score": 0.98,
    "quality": 0.98,
    "raw": _SEVEN,
    "smoothed": _SEVEN,
}

COLUMNS: Final = (
    Column("frame", Kind.INTEGER),
    Column("position_s"),
    Column("time", Kind.TIME),
    Column("skipped", Kind.TEXT),
    Column("model", Kind.TEXT),
    Column("track", Kind.INTEGER),
    *(Column(name) for name in ("x1", "y1", "x2", "y2", "score", "quality")),
    *(Column(f"{vector}_{emotion}") for vector in ("raw", "smoothed") for emotion in EMOTIONS),
)
"""The columns of a table of faces, in their order."""


class FacesParameters(Window):
    """A window of a stream's faces."""

    limit: int = Field(1000, ge=1, le=10_000, description="About the most rows in the answer; a frame is not split.")
    cursor: str | None = Field(None, max_length=128, description="`next_cursor` of the page before.")
    format: AskedFormat


class FaceRow(BaseModel):
    """One face in one sampled frame; or a frame without a face, whose fields from `track` on are null."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ROW]})

    frame: int = Field(description="Number of the sampled frame: of a file from its start, of a camera since it was connected.")
    position_s: float | None = Field(description="Media time of the file, in s, to the microsecond; null for live streams.")
    time: Time = Field(description="Wall time: the frame's place on the timeline.")
    skipped: str | None = Field(description="Why the frame was not looked at; null where it was.")
    model: str | None = Field(description="Name of the model; null where the frame was not looked at.")
    track: int | None = Field(description="The face's track.")
    box: tuple[float, float, float, float] | None = Field(description="Left, top, right, bottom in px of the source's picture.")
    score: float | None = Field(description="The detector's score, 0 to 1.")
    quality: float | None = Field(description="How well an expression can be read from it, 0 to 1.")
    raw: ByEmotion | None = Field(description="Probabilities as the model gave them.")
    smoothed: ByEmotion | None = Field(description="The same, smoothed over time for the track; null where it cannot be read.")


class FacesPage(BaseModel):
    """Rows in order of time."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"stream": "lobby", "faces": [_ROW], "next_cursor": None}]})

    stream: str
    faces: list[FaceRow]
    next_cursor: str | None = Field(description="Send it as `cursor` to get the next page; null on the last.")


class _Place(NamedTuple):
    """A position: so many frames of this time were given, and all before it."""

    time_us: int
    given: int = 0


@router.get(
    "/streams/{stream_id}/faces",
    response_model=FacesPage,
    summary="Read single faces",
    responses={**EXPORTS, **problem_responses("stream_not_found", "faces_not_kept", "invalid_query", "invalid_request")},
)
def list_faces(
    ctx: Ctx, caller: Viewer, stream_id: str, request: Request, parameters: Annotated[FacesParameters, Query()]
) -> FacesPage | Response:
    """Return each face of each sampled frame, and a row for each frame without one. Kept only where a retention is set."""
    wanted = choose_format(request.headers, parameters.format, tuple(Format))
    spec = visible(ctx, caller, stream_id)
    if not ctx.settings.store.retention_faces_s:
        raise FacesNotKeptError("single faces are not kept here; set MOODLINE_STORE_RETENTION_FACES_S, and they are from then on")
    place = _place(parameters.cursor)
    window = _window(ctx, spec, parameters)
    rows: list[FaceRow] = []
    next_cursor = None if window is None else _read(ctx, spec, window, place, parameters.limit, rows)
    if wanted is Format.JSON:
        return FacesPage(stream=stream_id, faces=rows, next_cursor=next_cursor)
    response = exported(wanted, Table(COLUMNS, [_flat(row) for row in rows]), rows, f"{stream_id}-faces", {"stream": stream_id})
    if next_cursor is not None:
        response.headers["next-cursor"] = next_cursor
    return response


def _window(ctx: Context, spec: StreamSpec, window: Window) -> Extent | None:
    now_us = present_us(ctx, spec)
    covered = extent(ctx.store, spec.stream_id)
    start_us = None if window.start is None else parse_time(window.start, now_us, "from")
    end_us = None if window.end is None else parse_time(window.end, now_us, "to")
    if start_us is not None and end_us is not None and start_us >= end_us:
        raise QueryError("from", "from must lie before to")
    if covered is None:
        return None
    start_us = covered.start_us if start_us is None else max(start_us, covered.start_us)
    end_us = covered.end_us if end_us is None else min(end_us, covered.end_us)
    return Extent(start_us, end_us) if start_us < end_us else None


def _read(ctx: Context, spec: StreamSpec, window: Extent, place: _Place | None, limit: int, rows: list[FaceRow]) -> str | None:
    """Append rows from a place on; return the position of what follows, None where nothing does."""
    status = ctx.store.statuses([spec.stream_id])[0]
    source_px = (status.width, status.height)
    start_us = window.start_us if place is None else max(window.start_us, place.time_us)
    given = place.given if place is not None and place.time_us == start_us else 0
    at = _Place(start_us, 0)
    for _ in range(_MOST_STRETCHES):
        stop_us = min(start_us + _STRETCH_US, window.end_us)
        for frame in read_frames(ctx.store, spec.stream_id, start_us, stop_us):
            at = _Place(frame.time_us, at.given + 1 if frame.time_us == at.time_us else 1)
            if given and frame.time_us == start_us and at.given <= given:
                continue
            if len(rows) >= limit:
                return write_cursor(f"{at.time_us}:{at.given - 1}")
            rows.extend(_rows(frame, spec, source_px))
        start_us, given = stop_us, 0
        if start_us >= window.end_us:
            return None
    return write_cursor(f"{start_us}:0")


def _place(cursor: str | None) -> _Place | None:
    if cursor is None:
        return None
    time_us, _, given = read_cursor(cursor).partition(":")
    try:
        return _Place(int(time_us), int(given))
    except ValueError:
        raise QueryError("cursor", "cursor is of another list; leave it out to begin again") from None


def _rows(frame: SeenFrame, spec: StreamSpec, source_px: tuple[int, int]) -> Iterator[FaceRow]:
    position_s = (frame.time_us - spec.recorded_at_us) / 1e6 if spec.lane is StreamClass.FILE else None
    shared = {
        "frame": frame.frame,
        "position_s": position_s,
        "time": to_datetime(frame.time_us),
        "skipped": None if frame.skipped is None else str(frame.skipped),
        "model": frame.model or None,
    }
    if not frame.faces:
        yield FaceRow(**shared, track=None, box=None, score=None, quality=None, raw=None, smoothed=None)
    size_px = source_px if all(source_px) else (frame.width, frame.height)
    for face in frame.faces:
        x1, y1, x2, y2 = (round(edge * side / _BOX_SCALE, 2) for edge, side in zip(face.box, size_px * 2, strict=True))
        yield FaceRow(
            **shared,
            track=face.track,
            box=(x1, y1, x2, y2),
            score=round(face.score / PROBABILITY_SCALE, 4),
            quality=_quality(face, frame),
            raw=_shares(face.raw),
            smoothed=_shares(face.smoothed),
        )


def _quality(face: SeenFace, frame: SeenFrame) -> float:
    """Return the detector's own measure; else its score times how much of the 48 px that the network sees the face has."""
    if face.quality is not None:
        return round(face.quality / PROBABILITY_SCALE, 4)
    left, top, right, bottom = face.box
    side_px = min((right - left) * frame.width, (bottom - top) * frame.height) / _BOX_SCALE
    return round(face.score / PROBABILITY_SCALE * min(1.0, side_px / _CROP_SIDE_PX), 4)


def _shares(values: tuple[int, ...]) -> ByEmotion | None:
    # Nothing could be read of the face.
    return by_emotion(tuple(value / PROBABILITY_SCALE for value in values)) if any(values) else None


def _flat(row: FaceRow) -> list[Any]:
    vectors = [(values or {}).get(emotion) for values in (row.raw, row.smoothed) for emotion in EMOTIONS]
    plain = [row.frame, row.position_s, row.time, row.skipped, row.model, row.track]
    return [*plain, *(row.box or (None,) * 4), row.score, row.quality, *vectors]
