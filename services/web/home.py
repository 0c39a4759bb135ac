"""All streams as cards; where there are none, ways to begin."""

from typing import Any, Final

from fastapi import Request, Response
from nicegui import ui

from moodline.services.api.models import NewStream
from moodline.services.auth.callers import LOCAL
from moodline.services.report.stream_document import StreamAnswer
from moodline.services.web.alerts import AlertBanner
from moodline.services.web.cards import Acts, Card
from moodline.services.web.elements import FileDrop
from moodline.services.web.forms import StreamForm, confirm_delete
from moodline.services.web.layout import button, frame, leave_to_sign_in, refusals_shown
from moodline.services.web.visit import Visit, admit
from moodline.services.web.windows import Window
from moodline.services.web.words import id_from_name
from moodline.shared.errors import MoodlineError, UnauthorizedError
from moodline.shared.messages import StreamClass
from moodline.shared.sample import SAMPLE_URL
from moodline.shared.streams import PUSH_URL, StreamState

_TICK_S: Final = 1.0
_MOODS_EVERY: Final = 4
"""Ticks between two drawings of the strips: a quarter of a strip's point."""
_STRIP_S: Final = 300
_STRIP_POINTS: Final = 61
_PAGE: Final = 24


def register() -> None:
    """Register the page at `/`."""
    ui.page("/", title="Moodline")(show_home)


async def show_home(request: Request) -> Any:
    """Build the page for one visitor."""
    visit = await admit(request)
    if isinstance(visit, Response):
        return visit
    await Home(visit).build()
    return None


class Home:
    """The page of one visitor."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._streams: dict[str, StreamAnswer] = {}
        self._cards: dict[str, Card] = {}
        self._drawn: dict[str, int] = {}
        self._limit = _PAGE
        self._ticks = 0

    async def build(self) -> None:
        """Lay the page out, and keep it up to date while the visitor is there."""
        caller = await self._visit.caller()
        self._may_change = await self._visit.may_change()
        with frame("", signed_in=caller is not LOCAL) as actions:
            with actions:
                upload = button("Upload", icon="upload", label="Upload a file")
                webcam = button("Webcam", icon="photo_camera_front", label="Use my webcam").on_click(self._webcam)
                add = button("Add stream", icon="add", kind="act", label="Add stream").on_click(self._add)
                self._actions = (upload, webcam, add)
            if self._may_change:
                self._drop = FileDrop(self._uploaded)
                self._drop.opens_by(upload)
            self._problem = ui.label().classes("alert").props("role=alert")
            self._problem.set_visibility(False)
            self._alerts = AlertBanner(self._visit)
            self._build_empty()
            with ui.element("section").props('aria-label="Streams"') as self._list:
                with ui.element("div").classes("head"):
                    ui.html("<h1>Streams</h1>", sanitize=False)
                    self._count = ui.label().classes("soft nums")
                self._grid = ui.element("div").classes("cards")
                self._more = button("Show more").on_click(self._show_more).style("margin:20px auto 0;display:block")
        await self._tick()
        ui.timer(_TICK_S, self._tick, immediate=False)

    def _build_empty(self) -> None:
        with ui.element("section").classes("empty").props('aria-label="Begin"') as self._empty:
            if not self._may_change:
                ui.html("<h1>Nothing to see yet</h1>", sanitize=False)
                ui.label("There is no stream that your key may see.").classes("soft")
                return
            ui.html("<h1>Whose mood shall it be?</h1>", sanitize=False)
            ui.label("Nothing is watched yet. Four ways to begin:").classes("soft")
            with ui.element("div").classes("ways"):
                _way("videocam", "Add a camera", "RTSP, HTTP or USB; its address is all it takes.").on("click", self._add)
                _way("play_circle", "Try the sample", "Two faces, thirty seconds, nothing to install.").on("click", self._sample)
                _way("photo_camera_front", "Use my webcam", "This browser sends pictures once you allow it.").on(
                    "click", self._webcam
                )
                self._drop.opens_by(_way("upload_file", "Drop a file", "Anywhere on this page, or click to choose one."))

    async def _tick(self) -> None:
        try:
            streams = await self._visit.list_streams()
            await self._alerts.refresh()
        except UnauthorizedError:
            leave_to_sign_in()
            return
        except MoodlineError as error:
            self._problem.set_text(str(error))
            self._problem.set_visibility(True)
            return
        self._problem.set_visibility(False)
        self._streams = {stream.id: stream for stream in streams}
        self._arrange()
        now_s = self._visit.ctx.clock.now_s()
        for stream_id, card in self._cards.items():
            card.show(self._streams[stream_id], now_s)
        fresh = [stream_id for stream_id in self._cards if stream_id not in self._drawn]
        due = list(self._cards) if self._ticks % _MOODS_EVERY == 0 else fresh
        self._ticks += 1
        for stream_id in due:
            # Another update, for example after a deletion, may have run in between.
            stream = self._streams.get(stream_id)
            if stream is not None:
                await self._draw_mood(stream)

    def _arrange(self) -> None:
        """Let there be one card for each stream in sight, in order; what stays is not built again, so focus stays too."""
        shown = list(self._streams)[: self._limit]
        for stream_id in [known for known in self._cards if known not in shown]:
            self._cards.pop(stream_id).element.delete()
            self._drawn.pop(stream_id, None)
        acts = Acts(self._change, self._toggle, self._delete)
        for index, stream_id in enumerate(shown):
            if stream_id not in self._cards:
                with self._grid:
                    card = Card(self._streams[stream_id], acts, may_change=self._may_change)
                card.element.move(target_index=index)
                self._cards[stream_id] = card
        some = bool(self._streams)
        self._empty.set_visibility(not some)
        self._list.set_visibility(some)
        for each in self._actions:
            each.set_visibility(some and self._may_change)
        self._more.set_visibility(len(self._streams) > self._limit)
        self._count.set_text(f"{len(self._streams)}" if some else "")

    async def _draw_mood(self, stream: StreamAnswer) -> None:
        if stream.lane is StreamClass.FILE and self._drawn.get(stream.id) == stream.progress.frames:
            return
        window = Window(_STRIP_S if stream.lane is StreamClass.LIVE else None)
        try:
            covered = await self._visit.extent(stream.id)
            now_us = self._visit.ctx.now_us()
            document = await self._visit.timeline(stream.id, window.parameters(stream.lane, covered, now_us, _STRIP_POINTS))
        except MoodlineError:
            # Deleted meanwhile, or the store is away: the next turn says so.
            return
        self._drawn[stream.id] = stream.progress.frames
        if stream.id in self._cards:
            self._cards[stream.id].show_mood(document)

    async def _show_more(self) -> None:
        self._limit += _PAGE
        await self._tick()

    def _add(self) -> None:
        StreamForm(self._visit, self._added).open()

    def _change(self, stream: StreamAnswer) -> None:
        StreamForm(self._visit, self._added, stream).open()

    async def _added(self, _stream: StreamAnswer) -> None:
        await self._tick()

    async def _toggle(self, stream: StreamAnswer) -> None:
        async with refusals_shown():
            await toggle(self._visit, stream)
        await self._tick()

    def _delete(self, stream: StreamAnswer) -> None:
        confirm_delete(self._visit, stream.id, self._tick)

    async def _sample(self) -> None:
        async with refusals_shown():
            stream = await self._visit.add(NewStream(id=id_from_name("sample", set(self._streams)), url=SAMPLE_URL))
            ui.navigate.to(f"/streams/{stream.id}")

    async def _webcam(self) -> None:
        async with refusals_shown():
            stream = await self._visit.add(NewStream(id=id_from_name("webcam", set(self._streams)), url=PUSH_URL))
            ui.navigate.to(f"/streams/{stream.id}")

    async def _uploaded(self, name: str, answer: dict[str, Any], alone: bool) -> None:
        async with refusals_shown():
            url = answer.get("url")
            if isinstance(url, str):
                stream = await self._visit.add(NewStream(id=id_from_name(name, set(self._streams)), url=url))
                if alone:
                    ui.navigate.to(f"/streams/{stream.id}")
                else:
                    await self._tick()


async def toggle(visit: Visit, stream: StreamAnswer) -> StreamAnswer:
    """Pause a stream that is read, resume a paused one, try a failed one again."""
    works = not stream.paused and stream.status.state is not StreamState.FAILED
    return await (visit.pause(stream.id) if works else visit.resume(stream.id))


def _way(icon: str, title: str, text: str) -> ui.element:
    with ui.element("button").classes("way").props("type=button") as way:
        ui.icon(icon).props("aria-hidden=true")
        ui.html(f"<b>{title}</b>", sanitize=False)
        ui.html(f"<small>{text}</small>", sanitize=False)
    return way
