"""Routes that take frames: one for each request, or one after the other over a web socket."""

import asyncio
import json
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.types import Message

from moodline.services.api import PREFIX
from moodline.services.api.access import Caller, Operator, Role, identify, require_role, visible
from moodline.services.api.bodies import whole_body
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import error_detail, problem_responses
from moodline.services.api.given_time import GivenTime, check_time, given_us
from moodline.services.report.moments import Time, to_datetime
from moodline.shared.errors import (
    FrameError,
    FrameTooLargeError,
    MoodlineError,
    NotAllowedError,
    NotPushedError,
    NotReadyError,
    ParameterError,
    StreamNotFoundError,
    StreamPausedError,
    TooSlowError,
    UnauthorizedError,
)
from moodline.shared.push import Pushed, Pushes
from moodline.shared.streams import PUSH_URL, StreamSpec, is_pushed

router = APIRouter(prefix=PREFIX, tags=["push"])

_BODIES_PER_STREAM: Final = 4
_SOCKETS_PER_STREAM: Final = 4
_TEXT_LIMIT: Final = 1024
_ERRORS_LIMIT: Final = 20
"""Messages in a row that cannot be used, after which a web socket is closed."""
_REFRESH_S: Final = 1.0
_HURRY_S: Final = 0.004
"""Pause after a frame that was not wanted: a sender in a hurry must not keep this process busy."""
_REFUSED: Final = 1008
_LATER: Final = 1013
_FINAL: Final = (StreamNotFoundError, StreamPausedError, NotPushedError, UnauthorizedError, NotAllowedError)
_JPEG_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
}


class PushAnswer(BaseModel):
    """The result of one pushed frame."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"sampled": True, "replaced": False, "time": "2026-05-01T12:00:00.400000Z", "wait_ms": 200}]
        }
    )

    sampled: bool = Field(description="Whether the frame is analysed; else `sample_fps` leaves it out.")
    replaced: bool = Field(description="It took the place of a frame that was still waiting; that one counts as `overloaded`.")
    time: Time = Field(description="Its place on the timeline.")
    wait_ms: int = Field(description="The sender may spare itself frames for so long, in ms: they would be left out.")


@router.post(
    "/streams/{stream_id}/frames",
    status_code=202,
    summary="Push one frame",
    openapi_extra=_JPEG_BODY,
    responses=problem_responses(
        "stream_not_found",
        "not_pushed",
        "stream_paused",
        "stream_taken",
        "invalid_frame",
        "frame_too_large",
        "invalid_request",
        "too_slow",
        "too_busy",
        "bus_unavailable",
        "not_ready",
    ),
)
async def push_frame(
    ctx: Ctx,
    caller: Operator,
    stream_id: str,
    request: Request,
    captured_at: Annotated[
        GivenTime | None,
        Header(
            alias="Captured-At",
            description="When the frame was taken: ISO 8601 with an offset, or seconds since 1970.",
        ),
    ] = None,
) -> PushAnswer:
    """Take one JPEG as a frame of a stream with the url `push://`; the newest wins, as with cameras."""
    settings = ctx.settings.push
    with (
        ctx.concurrency.hold("pushed frames", 2 * settings.max_streams),
        ctx.concurrency.hold(f"frames of {stream_id!r}", _BODIES_PER_STREAM),
    ):
        await run_in_threadpool(_pushed_stream, ctx, caller, stream_id)
        too_large = FrameTooLargeError(f"the frame is larger than {settings.max_bytes} bytes (MOODLINE_PUSH_MAX_BYTES)")
        body = await whole_body(request, settings.max_bytes, settings.body_timeout_s, too_large)
        return _answer(await run_in_threadpool(_push, ctx, caller, stream_id, body, captured_at))


@router.websocket("/streams/{stream_id}/frames")
async def push_frames(socket: WebSocket, ctx: Ctx, _caller: Operator, stream_id: str) -> None:
    """Take each binary message as one JPEG; a text message before it may tell when it was taken. Every frame is answered."""
    await socket.accept()
    try:
        with (
            ctx.concurrency.hold("pushing connections", 2 * ctx.settings.push.max_streams),
            ctx.concurrency.hold(f"connections of {stream_id!r}", _SOCKETS_PER_STREAM),
        ):
            await _Conversation(ctx, socket, stream_id).run()
    except WebSocketDisconnect:
        return
    except MoodlineError as error:
        await _end(socket, error)


class _Conversation:
    """One sender's web socket."""

    def __init__(self, ctx: Context, socket: WebSocket, stream_id: str) -> None:
        self._ctx = ctx
        self._socket = socket
        self._stream_id = stream_id
        self._captured_at_s: float | None = None
        self._spec: StreamSpec | None = None
        self._known_s = 0.0
        self._frames = 0

    async def run(self) -> None:
        """Answer every message until the sender leaves or falls silent. Raises `MoodlineError` when it is to be sent away."""
        await self._refresh()
        await self._socket.send_json({"type": "ready", "max_bytes": self._ctx.settings.push.max_bytes})
        errors = 0
        while True:
            message = await self._next()
            try:
                answer = await self._take(message)
            except FrameError as error:
                errors += 1
                if errors >= _ERRORS_LIMIT:
                    raise
                answer = {"type": "error", "number": self._frames, "error": error_detail(error).model_dump()}
            else:
                errors = 0
            if answer is not None:
                await self._socket.send_json(answer)

    async def _next(self) -> Message:
        silence_s = self._ctx.settings.push.silence_s
        try:
            async with asyncio.timeout(silence_s):
                message = await self._socket.receive()
        except TimeoutError:
            raise TooSlowError(f"nothing came for {silence_s:g} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        return message

    async def _take(self, message: Message) -> dict[str, Any] | None:
        text, body = message.get("text"), message.get("bytes")
        if text is not None:
            self._captured_at_s = _time_in(self._ctx, text)
            return None
        captured_at_s, self._captured_at_s = self._captured_at_s, None
        self._frames += 1
        spec = await self._refresh()
        pushed = await run_in_threadpool(_taker(self._ctx).push, spec, body or b"", captured_at_s)
        if not pushed.sampled:
            await asyncio.sleep(_HURRY_S)
        return {"type": "frame", "number": self._frames, **_answer(pushed).model_dump(mode="json")}

    async def _refresh(self) -> StreamSpec:
        """Return the stream as it was registered at most a second ago. Raises `StreamNotFoundError` and so on."""
        now_s = self._ctx.clock.monotonic_s()
        if self._spec is None or now_s - self._known_s >= _REFRESH_S:
            # The key may have lost its right since.
            caller = require_role(await identify(self._socket), Role.OPERATOR)
            self._spec = await run_in_threadpool(_pushed_stream, self._ctx, caller, self._stream_id)
            self._known_s = now_s
        return self._spec


async def _end(socket: WebSocket, error: MoodlineError) -> None:
    """Say why, and close: with 1008 when trying again is of no use, else with 1013."""
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_json({"type": "error", "number": None, "error": error_detail(error).model_dump()})
        await socket.close(_REFUSED if isinstance(error, _FINAL) else _LATER, error.code)


def _pushed_stream(ctx: Context, caller: Caller, stream_id: str) -> StreamSpec:
    """Return a stream that takes frames. Raises `StreamNotFoundError`, `NotPushedError`, `StreamPausedError`."""
    spec = visible(ctx, caller, stream_id)
    if not is_pushed(spec.url):
        raise NotPushedError(f"stream {stream_id!r} takes no pushed frames; register one with the url {PUSH_URL}")
    if spec.paused:
        raise StreamPausedError(f"stream {stream_id!r} is paused; resume it first")
    return spec


def _push(ctx: Context, caller: Caller, stream_id: str, body: bytes, captured_at: str | None) -> Pushed:
    # Read again: while the body came the stream may have been paused.
    return _taker(ctx).push(_pushed_stream(ctx, caller, stream_id), body, _seconds(ctx, captured_at))


def _taker(ctx: Context) -> Pushes:
    if ctx.intake.pushes is None:
        raise NotReadyError("this process has no bus to send pushed frames to; set MOODLINE_BUS_URL")
    return ctx.intake.pushes


def _time_in(ctx: Context, text: str) -> float | None:
    """Return the time, in s, in a text message such as `{"captured_at": "2026-05-01T12:00:00Z"}`."""
    try:
        given = json.loads(text) if len(text) <= _TEXT_LIMIT else None
        if not isinstance(given, dict) or set(given) != {"captured_at"}:
            raise ValueError
        return _seconds(ctx, None if given["captured_at"] is None else check_time(given["captured_at"]))
    except (ValueError, ParameterError):
        raise FrameError('a text message looks like {"captured_at": "2026-05-01T12:00:00.250Z"}') from None


def _seconds(ctx: Context, captured_at: str | None) -> float | None:
    return None if captured_at is None else given_us(captured_at, ctx.now_us(), "captured_at") / 1e6


def _answer(pushed: Pushed) -> PushAnswer:
    time = to_datetime(pushed.event_time_us)
    return PushAnswer(sampled=pushed.sampled, replaced=pushed.replaced, time=time, wait_ms=pushed.wait_ms)
