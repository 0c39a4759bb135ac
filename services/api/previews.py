"""Routes of pictures: the newest analysed one of a stream, once or as long as somebody looks. Off until switched on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from moodline.services.api import PREFIX
from moodline.services.api.access import Caller, Role, Viewer, identify, require_role, visible
from moodline.services.api.audit import is_first, record_change
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import problem_responses
from moodline.shared.errors import MoodlineError, NoPictureError, NotReadyError, PreviewOffError
from moodline.shared.previews import Preview, Previews

router = APIRouter(prefix=PREFIX, tags=["pictures"])

_WAIT_S: Final = 3.0
_BOUNDARY: Final = "moodline-frame"
_HEAD: Final = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
_RENEW_S: Final = 2.0
"""Repeated looks of one caller at one stream are written to the audit log at most this often, in s."""
_JPEG: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "The picture."}
}
_MJPEG: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {"multipart/x-mixed-replace": {"schema": {"type": "string", "format": "binary"}}},
        "description": "Pictures, until the client leaves.",
    }
}
_ERRORS: Final = problem_responses("stream_not_found", "preview_off", "no_picture", "not_ready", "too_busy", "invalid_request")

Boxes = Annotated[bool, Query(description="Draw boxes and leading emotions.")]


@router.get("/streams/{stream_id}/snapshot.jpg", summary="See a stream", response_class=Response, responses={**_JPEG, **_ERRORS})
def snapshot(ctx: Ctx, caller: Viewer, stream_id: str, boxes: Boxes = False) -> Response:
    """Return the newest analysed picture of a stream whose `preview` is on. It is in memory only, and kept for seconds."""
    previews = _allowed(ctx, caller, stream_id)
    _audit(ctx, caller, stream_id, "GET /streams/{stream_id}/snapshot.jpg")
    with ctx.concurrency.hold("pictures", ctx.settings.preview.max_viewers):
        preview = previews.newest(stream_id, _WAIT_S)
        if preview is None or _is_of_another(ctx, preview):
            raise NoPictureError(f"no picture of stream {stream_id!r} has been analysed in the last seconds; is it live?")
        return Response(_picture(preview, boxes), media_type="image/jpeg")


@router.get(
    "/streams/{stream_id}/live.mjpg",
    summary="Watch a stream",
    response_class=StreamingResponse,
    responses={**_MJPEG, **_ERRORS},
)
async def live(ctx: Ctx, caller: Viewer, stream_id: str, request: Request, boxes: Boxes = False) -> StreamingResponse:
    """Return analysed pictures as they come (MJPEG), a few a second at most, until the client leaves or the preview is off."""
    await run_in_threadpool(_allowed, ctx, caller, stream_id)
    with ctx.concurrency.hold("pictures", ctx.settings.preview.max_viewers):
        await run_in_threadpool(_audit, ctx, caller, stream_id, "GET /streams/{stream_id}/live.mjpg")
    media = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
    parts = _parts(ctx, request, stream_id, boxes)
    return StreamingResponse(parts, media_type=media, headers={"x-accel-buffering": "no"})


async def _parts(ctx: Context, request: Request, stream_id: str, boxes: bool) -> AsyncIterator[bytes]:
    """Yield pictures. Every few seconds it is asked again whether the caller still may see them."""
    last_us: int | None = None
    loop, checked_s = asyncio.get_running_loop(), float("-inf")
    # The answer has begun, so no error can be told in it: it ends.
    with suppress(MoodlineError), ctx.concurrency.hold("pictures", ctx.settings.preview.max_viewers):
        while True:
            if loop.time() - checked_s >= _RENEW_S:
                previews = await run_in_threadpool(_allowed, ctx, await identify(request), stream_id)
                checked_s = loop.time()
            preview = await run_in_threadpool(previews.newest, stream_id, _RENEW_S, last_us)
            if preview is None:
                continue
            if await run_in_threadpool(_is_of_another, ctx, preview):
                await asyncio.sleep(1 / ctx.settings.preview.fps)
                continue
            last_us = preview.time_us
            jpeg = await run_in_threadpool(partial(_picture, preview, boxes))
            yield _HEAD % (_BOUNDARY.encode(), len(jpeg)) + jpeg + b"\r\n"
            await asyncio.sleep(1 / ctx.settings.preview.fps)


def _allowed(ctx: Context, caller: Caller, stream_id: str) -> Previews:
    """Return where pictures come from. Raises unless the caller may see them and the stream shows them."""
    spec = visible(ctx, caller, stream_id)
    require_role(caller, Role(ctx.settings.preview.role))
    if not spec.preview:
        raise PreviewOffError(f"stream {stream_id!r} shows no pictures; switch its `preview` on by PATCH")
    if ctx.intake.previews is None:
        raise NotReadyError("this process gets no pictures from detectors")
    return ctx.intake.previews


def _is_of_another(ctx: Context, preview: Preview) -> bool:
    """Return whether a picture is of a stream that had the same id and was deleted: it may have been somebody else's."""
    standing = ctx.store.standings([preview.stream_id])[0]
    return standing is None or 0 < preview.epoch < standing.min_epoch


def _audit(ctx: Context, caller: Caller, stream_id: str, what: str) -> None:
    if is_first(ctx, caller, what, stream_id):
        record_change(ctx, caller, what, {"stream_id": stream_id})


def _picture(preview: Preview, boxes: bool) -> bytes:
    if not boxes or not preview.boxes:
        return preview.jpeg
    from moodline.services.live.drawing import draw_faces

    return draw_faces(preview.jpeg, preview.faces or [(box, ()) for box in preview.boxes])
