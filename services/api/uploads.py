"""The route that takes files: streamed to the disk below the media root, looked at, and registered if that is wanted."""

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from moodline.services.api import PREFIX
from moodline.services.api.access import Caller, Operator, require_scope
from moodline.services.api.audit import audited
from moodline.services.api.bodies import chunks_of
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.api.given_time import GivenTime
from moodline.services.api.models import LABELS_LIMIT, NewStream, Rate
from moodline.services.api.streams import add_stream
from moodline.services.api.upload_folder import UploadFolder
from moodline.services.auth.callers import LOCAL
from moodline.services.report.stream_document import StreamAnswer, Video
from moodline.shared.errors import (
    DiskFullError,
    InvalidStreamError,
    MoodlineError,
    QuotaError,
    SourceError,
    StreamExistsError,
    StreamNotFoundError,
    UploadError,
    UploadTooLargeError,
)
from moodline.shared.probe import Probed
from moodline.shared.streams import STREAM_ID_PATTERN, StreamSpec, parse_sample_fps

router = APIRouter(prefix=PREFIX, tags=["uploads"])

_LEAST_BYTES: Final = 64 * 1024
"""The fewest bytes of an upload in twice its idle time-out. A slower sender would keep a place that others need."""
_WRITE_BYTES: Final = 1024 * 1024
_CHECK_BYTES: Final = 64 * 1024 * 1024
"""Bytes that are written between two checks of the free disk."""
_FILE_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


class UploadAnswer(BaseModel):
    """An uploaded file."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "url": "file:///srv/media/uploads/0f8c7d1e2b3a49586a7b8c9d0e1f2a3b-lobby.mp4",
                    "name": "lobby.mp4",
                    "bytes": 7340032,
                    "duration_s": 120.0,
                    "video": {"width": 1920, "height": 1080, "codec": "h264", "source_fps": "30000/1001"},
                    "stream": None,
                }
            ]
        }
    )

    url: str = Field(description="To register the file with.")
    name: str = Field(description="As it was given.")
    bytes: int = Field(description="Size of the file.")
    duration_s: float | None = Field(None, description="Nominal length in s, where known.")
    video: Video | None = Field(None, description="What its first frame is; null where this process decodes nothing.")
    stream: StreamAnswer | None = Field(None, description="The stream, where one was to be registered.")


class UploadParameters(BaseModel):
    """The parameters of an upload."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=255, description="The file's name.")
    stream: str | None = Field(
        None, pattern=f"^{STREAM_ID_PATTERN}$", description="Register the file at once, as a stream with this id."
    )
    label: list[str] = Field([], max_length=LABELS_LIMIT, description="`key=value` of that stream; may be repeated.")
    recorded_at: GivenTime | None = Field(None, description="When that stream's recording began; default: now.")
    sample_fps: Rate | None = Field(None, description="`sample_fps` of that stream; default: that of the settings.")


@router.post(
    "/uploads",
    status_code=201,
    summary="Upload a file",
    openapi_extra=_FILE_BODY,
    responses=problem_responses(
        "not_video",
        "upload_too_large",
        "disk_full",
        "quota_exceeded",
        "too_slow",
        "too_busy",
        "stream_exists",
        "invalid_stream",
        "invalid_request",
    ),
)
@audited("POST /uploads", "asked.name", "asked.stream")
async def upload(ctx: Ctx, caller: Operator, request: Request, asked: Annotated[UploadParameters, Query()]) -> UploadAnswer:
    """Take the body as a file: under a name of the service's own choice below the media root, and only if it is a video."""
    try:
        at_once = ctx.settings.uploads.max_at_once
        of_one = at_once if caller is LOCAL else min(at_once, ctx.settings.quotas.uploads_per_key)
        with ctx.concurrency.hold(f"uploads of {caller.name!r}", of_one), ctx.concurrency.hold("uploads", at_once):
            answer = await _upload(ctx, caller, request, asked)
    except MoodlineError as error:
        ctx.metrics.uploads.labels(error.code).inc()
        raise
    ctx.metrics.uploads.labels("taken").inc()
    return answer


async def _upload(ctx: Context, caller: Caller, request: Request, asked: UploadParameters) -> UploadAnswer:
    # Refuse what can be refused before gigabytes are sent.
    definition = await run_in_threadpool(_checked_definition, ctx, caller, asked)
    announced = request.headers.get("content-length", "")
    folder = UploadFolder(ctx.settings)
    part = await run_in_threadpool(_prepare, ctx, caller, folder, int(announced) if announced.isdecimal() else 0)
    try:
        size_bytes = await _receive(ctx, caller, folder, request, part)
        return await run_in_threadpool(_take, ctx, caller, part, definition, size_bytes)
    finally:
        # Still there: it was refused, or the sender went away.
        part.unlink(missing_ok=True)


def _checked_definition(ctx: Context, caller: Caller, asked: UploadParameters) -> "_Definition":
    """Raises `InvalidStreamError`, `StreamExistsError`, `NotAllowedError`."""
    if asked.stream is None:
        if asked.label or asked.recorded_at is not None or asked.sample_fps is not None:
            raise InvalidStreamError("stream", "label, recorded_at and sample_fps are of a stream; give its id as stream")
        return _Definition(asked.name, None)
    labels = dict(_label(text) for text in asked.label)
    fields: dict[str, Any] = {"id": asked.stream, "url": "file:///", "labels": labels}
    fields |= {"recorded_at": asked.recorded_at, "sample_fps": asked.sample_fps}
    try:
        stream = NewStream.model_validate(fields)
    except ValidationError as error:
        raise InvalidStreamError("label", str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from None
    if stream.sample_fps is not None:
        parse_sample_fps(stream.sample_fps)
    require_scope(caller, StreamSpec(stream_id=stream.id, url=stream.url, labels=labels))
    with suppress(StreamNotFoundError):
        ctx.store.get(stream.id)
        raise StreamExistsError(f"stream {stream.id!r} is registered already")
    return _Definition(asked.name, stream)


@dataclass(frozen=True, slots=True)
class _Definition:
    """The checked parameters of an upload: the file's name, and the stream to register, if any."""

    name: str
    stream: NewStream | None


def _label(text: str) -> tuple[str, str]:
    key, mark, value = text.partition("=")
    if not mark:
        raise InvalidStreamError("label", "a label is a key and a value, such as site=berlin")
    return key, value


def _require_quota(ctx: Context, caller: Caller, folder: UploadFolder, coming_bytes: int) -> None:
    """Raise `QuotaError` where a key has as much on the disk as it may; who needs no key may fill it."""
    limit = ctx.settings.quotas.upload_bytes_per_key
    if caller is not LOCAL and folder.bytes_of(caller.name) + coming_bytes > limit:
        raise QuotaError(
            f"the uploads of the key {caller.name!r} may have {limit} bytes together (MOODLINE_QUOTAS_UPLOAD_BYTES_PER_KEY); "
            "delete streams whose files are not needed any more"
        )


def _prepare(ctx: Context, caller: Caller, folder: UploadFolder, announced_bytes: int) -> Path:
    """Make room, and a file to write into."""
    _require_size(ctx, announced_bytes)
    folder.clean([spec.url for spec in ctx.store.list_streams()], ctx.clock.now_s())
    folder.require_room(announced_bytes)
    _require_quota(ctx, caller, folder, announced_bytes)
    return folder.new_part(caller.name)


async def _receive(ctx: Context, caller: Caller, folder: UploadFolder, request: Request, part: Path) -> int:
    """Write the body into the file; return its size in bytes."""
    written = checked_at = 0
    with part.open("wb", buffering=0) as file:
        async for piece in _pieces(chunks_of(request, ctx.settings.uploads.idle_timeout_s, _LEAST_BYTES)):
            _require_size(ctx, written + len(piece))
            if written - checked_at >= _CHECK_BYTES:
                await run_in_threadpool(folder.require_room, len(piece))
                await run_in_threadpool(_require_quota, ctx, caller, folder, len(piece))
                checked_at = written
            await run_in_threadpool(_write, file, piece)
            ctx.metrics.upload_bytes.inc(len(piece))
            written += len(piece)
        await run_in_threadpool(os.fsync, file.fileno())
    return written


async def _pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Put small chunks together, so that not every one of them costs a write."""
    piece = bytearray()
    async for chunk in chunks:
        piece += chunk
        if len(piece) >= _WRITE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _write(file: FileIO, piece: bytes) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise DiskFullError(f"the file cannot be written: {error.strerror}") from None


def _require_size(ctx: Context, size_bytes: int) -> None:
    limit = ctx.settings.uploads.max_bytes
    if size_bytes > limit:
        raise UploadTooLargeError(f"the file is larger than {limit} bytes (MOODLINE_UPLOADS_MAX_BYTES)")


def _take(ctx: Context, caller: Caller, part: Path, definition: _Definition, size_bytes: int) -> UploadAnswer:
    """Look at the whole file, give it its name, and register it if that was asked for."""
    probed = _probed(ctx, part, size_bytes)
    path = UploadFolder(ctx.settings).finish(part, definition.name)
    url, stream = path.resolve().as_uri(), None
    try:
        if definition.stream is not None:
            body = definition.stream.model_copy(update={"url": url})
            stream = add_stream(ctx, caller, body, Response())
    except MoodlineError:
        path.unlink(missing_ok=True)
        raise
    duration_s = None if probed is None or probed.duration_us is None else probed.duration_us / 1e6
    return UploadAnswer(
        url=url, name=definition.name, bytes=size_bytes, duration_s=duration_s, video=_video(probed), stream=stream
    )


def _probed(ctx: Context, part: Path, size_bytes: int) -> Probed | None:
    if not size_bytes:
        raise UploadError("the file is empty")
    if ctx.intake.prober is None:
        return None
    try:
        return ctx.intake.prober(part.resolve())
    except SourceError as error:
        raise UploadError(f"the file is no video that can be read: {error}") from None


def _video(probed: Probed | None) -> Video | None:
    if probed is None:
        return None
    return Video(width=probed.width, height=probed.height, codec=probed.codec, source_fps=probed.source_fps)
