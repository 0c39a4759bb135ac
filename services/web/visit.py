"""Moodline as one visitor of the page may use it: the API's own functions, each in a thread, so that the page never waits."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from starlette.responses import PlainTextResponse, RedirectResponse

from moodline.services.api import alerts, streams, timelines, try_camera
from moodline.services.api.access import identify, require_role
from moodline.services.api.alert_models import FiringAnswer
from moodline.services.api.context import Context, context_of
from moodline.services.api.models import CameraTestAnswer, NewCameraTest, NewStream, StreamChange
from moodline.services.api.timelines import PointsWindow, TimelineParameters, TrackListParameters
from moodline.services.auth.callers import Caller, Role
from moodline.services.report.document import TimelineDocument
from moodline.services.report.moments import iso, to_datetime
from moodline.services.report.stream_document import StreamAnswer
from moodline.services.report.tracks import TrackDocument
from moodline.services.web.words import sign_in_path
from moodline.shared.errors import MoodlineError, UnauthorizedError
from moodline.shared.timeline.query import extent
from moodline.shared.timeline.tiers import Extent

_PAGE: Final = 500
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Visit:
    """One visitor. Every method raises what the API's function raises: a `MoodlineError`."""

    ctx: Context
    request: Request

    async def caller(self) -> Caller:
        """Return who the visitor is. Asked again each time, so that a key that was removed ends what its visitor sees."""
        return await identify(self.request)

    async def may_change(self) -> bool:
        """Return whether the visitor may change streams."""
        return (await self.caller()).role.includes(Role.OPERATOR)

    async def list_streams(self) -> list[StreamAnswer]:
        """Return all streams that the visitor may see, ordered by id."""
        return await asyncio.to_thread(self._list_streams, await self.caller())

    async def stream(self, stream_id: str) -> StreamAnswer:
        """Return one stream."""
        return await self._ask(streams.get_stream, stream_id, Response())

    async def add(self, definition: NewStream) -> StreamAnswer:
        """Register a stream."""
        return await self._change(streams.add_stream, definition, Response())

    async def test(self, camera: NewCameraTest) -> CameraTestAnswer:
        """Try a camera."""
        return await self._change(try_camera.try_camera, camera)

    async def change(self, stream_id: str, change: StreamChange) -> StreamAnswer:
        """Change a stream."""
        return await self._change(streams.change_stream, stream_id, change, Response())

    async def pause(self, stream_id: str) -> StreamAnswer:
        """Stop reading a stream."""
        return await self._change(streams.pause_stream, stream_id, Response())

    async def resume(self, stream_id: str) -> StreamAnswer:
        """Go on reading a stream, or try a failed one again."""
        return await self._change(streams.resume_stream, stream_id, Response())

    async def delete(self, stream_id: str) -> None:
        """Delete a stream and all of its data."""
        await self._change(streams.delete_stream, stream_id)

    async def timeline(self, stream_id: str, parameters: TimelineParameters) -> TimelineDocument:
        """Return a window of a timeline."""
        return await self._ask(timelines.read_timeline, stream_id, parameters)

    async def tracks(self, stream_id: str, parameters: TrackListParameters) -> list[TrackDocument]:
        """Return the faces that were seen in a window."""
        page = await self._ask(timelines.read_tracks, stream_id, parameters)
        return page.tracks

    async def track_now(self, stream_id: str, track: TrackDocument, since_us: int) -> TrackDocument:
        """Return a face with what it shows of late, instead of over its whole life."""
        window = PointsWindow.model_validate({"from": iso(to_datetime(since_us)), "resolution": "1s"})
        answer = await self._ask(timelines.read_track, stream_id, track.track, window)
        newest = next((point for point in reversed(answer.points) if point.smoothed is not None), None)
        return track if newest is None else track.model_copy(update={"smoothed": newest.smoothed, "dominant": newest.dominant})

    async def firing(self) -> list[FiringAnswer]:
        """Return the alerts that are on."""
        page = await self._ask(alerts.list_firing)
        return page.firing

    async def extent(self, stream_id: str) -> Extent | None:
        """Return what the timeline of a stream covers; None where nothing is in it yet."""
        await self.stream(stream_id)
        return await asyncio.to_thread(extent, self.ctx.store, stream_id)

    def _list_streams(self, caller: Caller) -> list[StreamAnswer]:
        found: list[StreamAnswer] = []
        cursor: str | None = None
        while True:
            page = streams.list_streams(self.ctx, caller, limit=_PAGE, cursor=cursor)
            found += page.streams
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def _ask(self, handler: Callable[..., _Answer], *arguments: Any) -> _Answer:
        return await asyncio.to_thread(handler, self.ctx, await self.caller(), *arguments)

    async def _change(self, handler: Callable[..., _Answer], *arguments: Any) -> _Answer:
        # What a route's parameter type demands of its caller is demanded here of the visitor.
        caller = require_role(await self.caller(), Role.OPERATOR)
        return await asyncio.to_thread(handler, self.ctx, caller, *arguments)


async def admit(request: Request) -> Visit | Response:
    """Return who asks for a page; or, where the page cannot be shown, what to answer instead: the way to the sign-in page."""
    visit = Visit(context_of(request), request)
    try:
        await visit.caller()
    except UnauthorizedError:
        return RedirectResponse(sign_in_path(request.url.path), 303)
    except MoodlineError as error:
        return PlainTextResponse(f"{error}\n", 503)
    return visit
