"""The route of single faces: each face of each sampled frame, where these are kept."""

import io
from typing import Annotated, Final, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from moodline.services.api import PREFIX
from moodline.services.api.access import Viewer, visible
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.api.negotiation import Format, choose_format
from moodline.services.api.page_cursor import read_cursor, write_cursor
from moodline.services.api.tables import as_file
from moodline.services.api.timelines import EXPORTS, AskedFormat, Window, present_us
from moodline.services.report.faces import FACE_EXAMPLE, FaceRow, face_rows, write_faces
from moodline.shared.errors import FacesNotKeptError, QueryError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline.bucket import SECOND_US
from moodline.shared.timeline.faces import read_frames
from moodline.shared.timeline.query import extent
from moodline.shared.timeline.tiers import Extent
from moodline.shared.timeline.times import parse_time

router = APIRouter(prefix=PREFIX, tags=["timelines"])

_CHUNK_US: Final = 1200 * SECOND_US
_MOST_CHUNKS: Final = 500
"""The most reads of the store for one answer; the rest is on the next page."""


class FacesParameters(Window):
    """A window of a stream's faces."""

    limit: int = Field(1000, ge=1, le=10_000, description="About the most rows in the answer; a frame is not split.")
    cursor: str | None = Field(None, max_length=128, description="`next_cursor` of the page before.")
    format: AskedFormat


class FacesPage(BaseModel):
    """Rows in order of time."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"stream": "lobby", "faces": [FACE_EXAMPLE], "next_cursor": None}]})

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
    """Return each face of each sampled frame, and a row for each frame without one. Kept only where a retention is set.

    In formats other than JSON a row is flat, as in the files of `moodline analyze --faces`, and the position of the next page is
    in the header `Next-Cursor`.
    """
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
    response = as_file(wanted, _encoded(wanted, rows, stream_id), f"{stream_id}-faces")
    if next_cursor is not None:
        response.headers["next-cursor"] = next_cursor
    return response


def _encoded(wanted: Format, rows: list[FaceRow], stream_id: str) -> bytes:
    file = io.BytesIO()
    write_faces(rows, file, wanted, stream_id)
    return file.getvalue()


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
    for _ in range(_MOST_CHUNKS):
        stop_us = min(start_us + _CHUNK_US, window.end_us)
        for frame in read_frames(ctx.store, spec.stream_id, start_us, stop_us):
            at = _Place(frame.time_us, at.given + 1 if frame.time_us == at.time_us else 1)
            if given and frame.time_us == start_us and at.given <= given:
                continue
            if len(rows) >= limit:
                return write_cursor(f"{at.time_us}:{at.given - 1}")
            rows.extend(face_rows(frame, source_px, spec.recorded_at_us if spec.lane is StreamClass.FILE else None))
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
