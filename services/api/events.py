"""The route of live answers: Server-Sent Events for points, states, faces and alerts."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from moodline.services.api import PREFIX
from moodline.services.api.access import Caller, Role, Viewer, identify, require_role, visible
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.auth.callers import matches
from moodline.services.live.cursor import read_cursor
from moodline.services.live.feed import SubscriptionFilter
from moodline.services.live.subscription import Selects, Sent, Subscription
from moodline.shared.errors import MoodlineError, NotAllowedError, QueryError, StoreError, UnauthorizedError
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline.bucket import TIERS_S
from moodline.shared.timeline.times import parse_resolution

log = logging.getLogger("moodline.api")

router = APIRouter(prefix=PREFIX, tags=["events"])

RETRY_MS: Final = 2_000
_MOST_NAMES: Final = 200
_MOST_LABELS: Final = 32
_EXAMPLE: Final = 'retry: 2000\n\nevent: point\nid: lgEB\ndata: {"stream":"lobby","resolution_s":1,"point":{…}}\n\n'
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        "description": "Events, until the client leaves.",
    },
    **problem_responses("stream_not_found", "invalid_query", "invalid_request"),
}


class EventParameters(BaseModel):
    """The parameters of a subscription to live events."""

    model_config = ConfigDict(extra="forbid")

    stream: list[str] = Field([], max_length=_MOST_NAMES, description="Ids of streams; default: all that the caller may see.")
    label: list[str] = Field(
        [], max_length=_MOST_LABELS, description="`key=value`, or `key` for any value; a stream must match all that are given."
    )
    resolution: str = Field("1s", max_length=32, description="Length of a point: `1s`, `10s`, `1min`, `10min` or `1h`.")
    faces: bool = Field(False, description="Also tell which faces are in the picture, and where.")
    last_event_id: str | None = Field(
        None, description="Like the header `Last-Event-ID`, for clients that cannot set it; the header comes first."
    )


@router.get("/events", summary="Listen to streams", response_class=StreamingResponse, responses=_RESPONSES)
def listen(
    request: Request,
    ctx: Ctx,
    caller: Viewer,
    parameters: Annotated[EventParameters, Query()],
    last_event_id: Annotated[
        str | None, Header(description="`id` of the last event that came; the answer goes on there.")
    ] = None,
) -> StreamingResponse:
    """Tell points, states and alerts of streams as they come, as Server-Sent Events, until the client leaves."""
    identify_again = partial(identify, request)
    subscription = subscribe(ctx, caller, parameters, last_event_id or parameters.last_event_id, identify_again)
    # Proxies must pass events on as they come.
    return StreamingResponse(_texts(subscription), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def subscribe(
    ctx: Context,
    caller: Caller,
    asked: EventParameters,
    last_event_id: str | None = None,
    identify_again: Callable[[], Awaitable[Caller]] | None = None,
) -> Subscription:
    """Return what a caller hears, for whoever tells it on; iterate over its `batches`.

    Args:
        ctx: The API's collaborators.
        caller: Who listens.
        asked: What to hear.
        last_event_id: Where to go on; None: with the newest of each stream.
        identify_again: Tells, every few seconds, who the caller is by now; the answer ends where it has no right any more.

    Raises:
        QueryError: resolution or position cannot be used.
        StreamNotFoundError: a named stream is not there, or the caller may not see it. Not raised on resuming.
    """
    tier_s = parse_resolution(asked.resolution)
    if tier_s not in TIERS_S:
        raise QueryError("resolution", "events come at 1s, 10s, 1min, 10min or 1h")
    cursor = read_cursor(last_event_id) if last_event_id else None
    named = frozenset(asked.stream)
    if cursor is None:
        for stream_id in sorted(named):
            visible(ctx, caller, stream_id)
    selects = _selects(caller, named, asked.label)
    subscription_filter = SubscriptionFilter(selects, tier_s, asked.faces)

    async def renew() -> Selects | None:
        nonlocal caller, selects
        assert identify_again is not None
        try:
            present = require_role(await identify_again(), Role.VIEWER)
        except (UnauthorizedError, NotAllowedError):
            return None
        except MoodlineError:
            return selects  # who it is cannot be told just now
        if present != caller:
            caller, selects = present, _selects(present, named, asked.label)
        return selects

    return Subscription(
        ctx.feed, ctx.clock, subscription_filter, cursor=cursor, named=named, renew=renew if identify_again is not None else None
    )


def _selects(caller: Caller, named: frozenset[str], labels: list[str]) -> Selects:
    def selects(spec: StreamSpec) -> bool:
        return caller.may_see(spec) and (not named or spec.stream_id in named) and matches(spec, labels)

    return selects


async def _texts(subscription: Subscription) -> AsyncIterator[bytes]:
    yield b"retry: %d\n\n" % RETRY_MS
    try:
        async for batch in subscription.batches():
            yield b"".join(map(_text, batch)) if batch else b": keep-alive\n\n"
    except StoreError as error:
        # The answer has begun, so no error can be told in it. The client comes again with its position.
        log.warning("events.ended", extra={"reason": str(error)})


def _text(sent: Sent) -> bytes:
    lines = [b"event: " + sent.event.encode()]
    if sent.id:
        lines.append(b"id: " + sent.id.encode())
    lines += [b"data: " + line for line in sent.data.splitlines()]
    return b"\n".join(lines) + b"\n\n"
