"""Routes of the registry: register, list, read, change, pause, resume and delete streams."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Response

from moodline.services.alerts.purge import purge_stream
from moodline.services.api import PREFIX
from moodline.services.api.access import Caller, Operator, Viewer, require_scope, visible, visible_streams
from moodline.services.api.audit import audited, nothing_changed
from moodline.services.api.cameras import address_fields, changed_address_fields, meant_url
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.api.given_time import given_us
from moodline.services.api.models import NewStream, StreamChange, StreamPage
from moodline.services.api.page_cursor import read_cursor, write_cursor
from moodline.services.api.preconditions import IfMatch, require_match
from moodline.services.api.upload_folder import UploadFolder
from moodline.services.report.stream_document import StreamAnswer
from moodline.services.report.streams import describe, state_of
from moodline.shared.errors import QuotaError, RevisionConflictError, StreamNotFoundError, StreamStartedError
from moodline.shared.messages import StreamClass
from moodline.shared.store import Standing
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus, check_stream_id, parse_sample_fps

router = APIRouter(prefix=PREFIX, tags=["streams"])

_CHUNK: Final = 200
_ATTEMPTS: Final = 5
_NOT_READING: Final = frozenset({StreamState.PENDING, StreamState.PAUSED, StreamState.FAILED})

_Found = tuple[StreamSpec, StreamStatus, Standing]
_GONE = problem_responses("stream_not_found")
_HELD = problem_responses("stream_not_found", "precondition_failed", "invalid_stream")
_CHANGE = problem_responses(
    "stream_not_found",
    "precondition_failed",
    "revision_conflict",
    "stream_started",
    "body_too_large",
    "invalid_stream",
    "invalid_request",
    "seal",
)


@router.post(
    "/streams",
    status_code=201,
    summary="Register a stream",
    responses={
        201: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **problem_responses("stream_exists", "quota_exceeded", "body_too_large", "invalid_stream", "invalid_request", "seal"),
    },
)
@audited("POST /streams", "body.id")
def add_stream(ctx: Ctx, caller: Operator, body: NewStream, response: Response) -> StreamAnswer:
    """Register a stream. Unless `paused`, a worker starts to read it within a second or so."""
    settings, now_us = ctx.settings.ingest, ctx.now_us()
    url, hint = meant_url(ctx, body.url)
    body = body.model_copy(update={"url": url})
    spec = StreamSpec(
        stream_id=check_stream_id(body.id),
        sample_fps=_checked_rate(settings.sample_fps if body.sample_fps is None else body.sample_fps),
        max_side_px=settings.max_side_px if body.max_side_px is None else body.max_side_px,
        labels=body.labels,
        paused=body.paused,
        preview=body.preview,
        created_at_us=now_us,
        added_by=caller.name,
        **address_fields(ctx, body),
    )
    if spec.lane is StreamClass.FILE:
        recorded_at_us = given_us(body.recorded_at or "now", _whole_second(now_us), "recorded_at")
        spec = msgspec.structs.replace(spec, recorded_at_us=recorded_at_us)
    require_scope(caller, spec)
    with ctx.registering:
        _require_quota(ctx, caller)
        ctx.store.add(spec)
    response.headers["location"] = f"{PREFIX}/streams/{spec.stream_id}"
    return _answer(ctx, caller, spec.stream_id, response).model_copy(update={"hint": hint})


@router.get("/streams", summary="List streams", responses=problem_responses("invalid_request", "invalid_query"))
def list_streams(
    ctx: Ctx,
    caller: Viewer,
    label: Annotated[list[str] | None, Query(description="`key=value`, or `key` for any value; all given must match.")] = None,
    state: Annotated[StreamState | None, Query(description="Only streams in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Most streams in the answer.")] = 100,
    cursor: Annotated[str | None, Query(max_length=128, description="`next_cursor` of the page before.")] = None,
) -> StreamPage:
    """Return streams ordered by id."""
    page: list[StreamAnswer] = []
    for spec, status, progress in _found(ctx, caller, read_cursor(cursor), label or []):
        if state is not None and state_of(spec, status, progress) is not state:
            continue
        if len(page) == limit:
            return StreamPage(streams=page, next_cursor=write_cursor(page[-1].id))
        page.append(describe(spec, status, progress))
    return StreamPage(streams=page)


@router.get("/streams/{stream_id}", summary="Read a stream", responses=_GONE)
def get_stream(ctx: Ctx, caller: Viewer, stream_id: str, response: Response) -> StreamAnswer:
    """Return a stream's definition, what it does now, and how far its timeline is."""
    return _answer(ctx, caller, stream_id, response)


@router.patch("/streams/{stream_id}", summary="Change a stream", responses=_CHANGE)
@audited("PATCH /streams/{stream_id}")
def change_stream(
    ctx: Ctx,
    caller: Operator,
    stream_id: str,
    body: StreamChange,
    response: Response,
    if_match: IfMatch = None,
) -> StreamAnswer:
    """Change a camera, labels or pause at any time; what decides the timeline of a file only before the first frame."""
    given, hint = body, ""

    def change(found: _Found) -> StreamSpec:
        nonlocal hint
        spec, body = found[0], given
        if body.url is not None:
            url, hint = meant_url(ctx, body.url, spec.lane)
            body = body.model_copy(update={"url": url})
        require_match(if_match, spec.revision, f"stream {stream_id!r}")
        if body.revision not in (None, spec.revision):
            raise RevisionConflictError(
                f"stream {stream_id!r} is at revision {spec.revision} by now; read it again and repeat the change"
            )
        changed = msgspec.structs.replace(spec, **_changes(ctx, spec, body))
        if _content(changed) != _content(spec):
            if spec.lane is StreamClass.FILE:
                _require_not_started(found)
            changed = _retried(found, changed)
        require_scope(caller, changed)
        return changed

    _update(ctx, caller, stream_id, change)
    return _answer(ctx, caller, stream_id, response).model_copy(update={"hint": hint})


@router.post("/streams/{stream_id}/pause", summary="Stop reading a stream", responses=_HELD)
@audited("POST /streams/{stream_id}/pause")
def pause_stream(ctx: Ctx, caller: Operator, stream_id: str, response: Response, if_match: IfMatch = None) -> StreamAnswer:
    """Stop reading; the timeline stays. Frames already on their way still come in."""

    def paused(found: _Found) -> StreamSpec:
        require_match(if_match, found[0].revision, f"stream {stream_id!r}")
        return msgspec.structs.replace(found[0], paused=True)

    _update(ctx, caller, stream_id, paused)
    return _answer(ctx, caller, stream_id, response)


@router.post("/streams/{stream_id}/resume", summary="Go on reading a stream", responses=_HELD)
@audited("POST /streams/{stream_id}/resume")
def resume_stream(ctx: Ctx, caller: Operator, stream_id: str, response: Response, if_match: IfMatch = None) -> StreamAnswer:
    """Go on where the timeline stands; a failed stream is tried again."""

    def resumed(found: _Found) -> StreamSpec:
        require_match(if_match, found[0].revision, f"stream {stream_id!r}")
        return _retried(found, msgspec.structs.replace(found[0], paused=False))

    _update(ctx, caller, stream_id, resumed)
    return _answer(ctx, caller, stream_id, response)


@router.delete(
    "/streams/{stream_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a stream and all of its data",
    responses=_HELD,
)
@audited("DELETE /streams/{stream_id}")
def delete_stream(ctx: Ctx, caller: Operator, stream_id: str, if_match: IfMatch = None) -> None:
    """Remove the stream, its timeline, tracks and alerts, rules that name it, and its uploaded file. This cannot be undone."""
    spec = visible(ctx, caller, stream_id)
    require_match(if_match, spec.revision, f"stream {stream_id!r}")
    # Before: should it fail, the stream is still there to be deleted. After: an alert may have begun meanwhile.
    purge_stream(ctx.store, stream_id)
    ctx.store.remove(stream_id)
    purge_stream(ctx.store, stream_id)
    ctx.store.scrub()
    folder = UploadFolder(ctx.settings)
    if folder.is_upload(spec.url):
        folder.remove(spec.url, {other.url for other in ctx.store.list_streams()})


def find(ctx: Context, caller: Caller, stream_id: str) -> _Found:
    """Return definition, status and progress of one stream. Raises `StreamNotFoundError`."""
    spec = visible(ctx, caller, stream_id)
    progress = ctx.store.standings([stream_id])[0]
    if progress is None:
        raise StreamNotFoundError(f"no stream {stream_id!r} is registered")
    return spec, ctx.store.statuses([stream_id])[0], progress


def _require_quota(ctx: Context, caller: Caller) -> None:
    limit = ctx.settings.quotas.streams_per_key
    if sum(spec.added_by == caller.name for spec in ctx.store.list_streams()) >= limit:
        raise QuotaError(
            f"the key {caller.name!r} has {limit} streams, as many as one may have (MOODLINE_QUOTAS_STREAMS_PER_KEY)"
        )


def _found(ctx: Context, caller: Caller, after: str, labels: list[str]) -> Iterator[_Found]:
    specs = [spec for spec in visible_streams(ctx, caller, labels) if spec.stream_id > after]
    for start in range(0, len(specs), _CHUNK):
        chunk = specs[start : start + _CHUNK]
        ids = [spec.stream_id for spec in chunk]
        for spec, status, progress in zip(chunk, ctx.store.statuses(ids), ctx.store.standings(ids), strict=True):
            if progress is not None:
                yield spec, status, progress


def _answer(ctx: Context, caller: Caller, stream_id: str, response: Response) -> StreamAnswer:
    answer = describe(*find(ctx, caller, stream_id))
    response.headers["etag"] = f'"{answer.revision}"'
    return answer


def _update(ctx: Context, caller: Caller, stream_id: str, change: Callable[[_Found], StreamSpec]) -> None:
    for attempt in range(_ATTEMPTS):
        found = find(ctx, caller, stream_id)
        changed = change(found)
        if changed == found[0]:
            nothing_changed()
            return
        try:
            ctx.store.replace(changed)
        except RevisionConflictError:
            # Somebody else was faster: try again with what is there now. A change that names a revision refuses that itself.
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _changes(ctx: Context, spec: StreamSpec, body: StreamChange) -> dict[str, Any]:
    plain = {"sample_fps", "max_side_px", "labels", "paused", "preview"}
    given: dict[str, Any] = body.model_dump(exclude_none=True, include=plain) | changed_address_fields(ctx, spec, body)
    if body.sample_fps is not None:
        _checked_rate(body.sample_fps)
    if body.recorded_at is not None:
        given["recorded_at_us"] = given_us(body.recorded_at, _whole_second(ctx.now_us()), "recorded_at")
    return given


def _checked_rate(text: str) -> str:
    parse_sample_fps(text)
    return text


def _whole_second(now_us: int) -> int:
    """So that the timeline's points begin at whole seconds of the file."""
    return now_us - now_us % 1_000_000


def _content(spec: StreamSpec) -> tuple[object, ...]:
    """Return what decides the content of a timeline, or how a camera is reached."""
    reached = (spec.url, spec.sealed, spec.transport, spec.tls_verify)
    return *reached, spec.sample_fps, spec.max_side_px, spec.recorded_at_us


def _require_not_started(found: _Found) -> None:
    """A frame on its way under the old definition would enter the timeline of the new one, so the reader must be idle."""
    spec, status, progress = found
    if progress.high_water_mark is not None or progress.final or status.frames_sent or status.state not in _NOT_READING:
        raise StreamStartedError(
            f"url, sample_fps, max_side_px and recorded_at of stream {spec.stream_id!r} cannot change any more, since "
            "frames have been read with them; delete the stream and add it again"
        )


def _retried(found: _Found, changed: StreamSpec) -> StreamSpec:
    """Raise the attempt where the present one has failed."""
    spec, status, progress = found
    has_failed = status.state is StreamState.FAILED and status.attempt >= spec.attempt and not progress.final
    return msgspec.structs.replace(changed, attempt=spec.attempt + 1) if has_failed else changed
