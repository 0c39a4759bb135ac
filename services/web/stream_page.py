"""One stream: its timeline, the faces that are there, totals, and what can be done with it."""

from html import escape
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request, Response
from nicegui import ui

from moodline.services.api import PREFIX
from moodline.services.api.timelines import TrackListParameters
from moodline.services.auth.callers import LOCAL
from moodline.services.report.document import TimelineDocument
from moodline.services.report.moments import iso, length_text, to_datetime, to_us
from moodline.services.report.stream_document import StreamAnswer
from moodline.services.web.alerts import AlertBanner
from moodline.services.web.cards import progress_html
from moodline.services.web.chart_data import chart_of
from moodline.services.web.elements import CameraSender, MoodTimeline
from moodline.services.web.eta import Eta
from moodline.services.web.forms import StreamForm, confirm_delete
from moodline.services.web.home import toggle
from moodline.services.web.layout import button, frame, leave_to_sign_in, refusals_shown
from moodline.services.web.panels import faces_html, legend_html, totals_html
from moodline.services.web.visit import Visit, admit
from moodline.services.web.windows import SECOND_US, SPANS, Window
from moodline.services.web.words import age_text, file_facts, frame_rate, state_words, why_text
from moodline.shared.errors import MoodlineError, StreamNotFoundError, UnauthorizedError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import StreamState, is_pushed

_TICK_S: Final = 1.0
_LIVE_SPAN_S: Final = 600
_NOW_US: Final = 3 * SECOND_US
"""A face seen this shortly before the newest point is there now."""
_MOST_FACES: Final = 6
_MOST_TRACKS: Final = 500
_CAMERA_FPS: Final = 8.0
_CAMERA_SIDE_PX: Final = 640


def register() -> None:
    """Register the page at `/streams/{id}`."""
    ui.page("/streams/{stream_id}")(show_stream)


async def show_stream(request: Request, stream_id: str) -> Any:
    """Build the page for one visitor."""
    visit = await admit(request)
    if isinstance(visit, Response):
        return visit
    try:
        stream = await visit.stream(stream_id)
    except StreamNotFoundError:
        with frame("Not found"):
            ui.html("<h1>There is no such stream</h1>", sanitize=False)
            ui.link("All streams", "/")
        return None
    await StreamPage(visit, stream).build()
    return None


class StreamPage:
    """The page of one visitor."""

    def __init__(self, visit: Visit, stream: StreamAnswer) -> None:
        self._visit, self._stream = visit, stream
        self._window = Window(_LIVE_SPAN_S if stream.lane is StreamClass.LIVE else None)
        self._seen: tuple[TimelineDocument, StreamState] | None = None
        self._eta = Eta()
        self._chart: MoodTimeline

    async def build(self) -> None:
        """Lay the page out, and keep it up to date while the visitor is there."""
        name = escape(self._stream.id)
        caller = await self._visit.caller()
        self._may_change = await self._visit.may_change()
        with frame(self._stream.id, signed_in=caller is not LOCAL):
            ui.link("← All streams", "/").classes("soft")
            with ui.element("div").classes("head"):
                ui.html(f"<h1>{name}</h1>", sanitize=False)
                self._chip = ui.label().classes("chip").props("role=status")
                self._facts = ui.label().classes("soft nums")
                ui.element("div").classes("grow")
                self._toggle = button("Pause", icon="pause").on_click(self._on_toggle)
                if self._may_change:
                    button("Change", icon="edit").on_click(self._on_change)
                    button("Delete", icon="delete_outline").on_click(self._on_delete)
            self._alerts = AlertBanner(self._visit, self._stream.id)
            self._why = ui.label().classes("why").style("margin-bottom:12px")
            self._progress = ui.html("", sanitize=False).style("margin-bottom:12px")
            with ui.element("div").classes("columns"):
                with ui.element("div").classes("side"):
                    self._build_timeline()
                    with ui.element("section").classes("panel").props('aria-label="Faces"'):
                        self._faces_title = ui.html("<h2>Faces</h2>", sanitize=False)
                        self._faces = ui.html("", sanitize=False).style("margin-top:12px")
                with ui.element("div").classes("side"):
                    self._build_side()
        await self._tick()
        ui.timer(_TICK_S, self._tick, immediate=False)

    def _build_timeline(self) -> None:
        with ui.element("section").classes("panel").props('aria-label="Timeline"'):
            with ui.element("div").classes("tools"):
                self._spans: dict[int | None, ui.element] = {}
                with ui.element("div").classes("spans").props('role=group aria-label="How much to show"'):
                    for text, span_s in SPANS:
                        with ui.element("button").props("type=button") as chosen:
                            ui.html(text, sanitize=False, tag="span")
                        chosen.on("click", lambda _event, span_s=span_s: self._on_span(span_s))
                        self._spans[span_s] = chosen
                button(icon="zoom_in", kind="icon", label="Zoom in").on_click(lambda: self._chart.zoom(0.5))
                button(icon="zoom_out", kind="icon", label="Zoom out").on_click(lambda: self._chart.zoom(2.0))
                self._follow = button("Newest", icon="last_page").on_click(self._on_follow)
                ui.element("div").style("flex:1")
                self._csv = ui.link("CSV", "#").props(f'download="{escape(self._stream.id)}.csv" aria-label="Save as CSV"')
                self._csv.classes("tool")
                button("PNG", icon="download", label="Save as PNG").on_click(lambda: self._chart.save_picture(self._stream.id))
            ui.html(legend_html(), sanitize=False)
            label = f"Timeline of {self._stream.id}: share of each emotion over time"
            self._chart = MoodTimeline(label, on_window=self._on_window, on_follow=self._on_follow)
            self._resolution = ui.label().classes("soft nums").style("margin-top:6px")

    def _build_side(self) -> None:
        if self._may_change and is_pushed(self._stream.url):
            with ui.element("section").classes("panel").props('aria-label="Camera"'):
                ui.html("<h2>Your camera</h2>", sanitize=False).style("margin-bottom:8px")
                CameraSender(self._stream.id, fps=_CAMERA_FPS, side_px=_CAMERA_SIDE_PX)
        with ui.element("section").classes("panel").props('aria-label="Totals"'):
            ui.html("<h2>In this window</h2>", sanitize=False).style("margin-bottom:8px")
            self._totals = ui.html("", sanitize=False)

    async def _tick(self) -> None:
        try:
            self._stream = await self._visit.stream(self._stream.id)
            await self._refresh()
            await self._alerts.refresh()
        except UnauthorizedError:
            leave_to_sign_in()
            return
        except StreamNotFoundError:
            ui.navigate.to("/")
            return
        except MoodlineError as error:
            self._why.set_text(str(error))
            self._why.set_visibility(True)
            return
        self._show_state()

    async def _refresh(self) -> None:
        """Read the window again; draw where something is new."""
        covered = await self._visit.extent(self._stream.id)
        window = self._window
        parameters = window.parameters(self._stream.lane, covered, self._visit.ctx.now_us())
        document = await self._visit.timeline(self._stream.id, parameters)
        if window is not self._window:
            return  # the visitor turned meanwhile, and that is answered by itself
        self._mark_span()
        seen = (document, self._stream.status.state)
        if seen == self._seen:
            return
        self._seen = seen
        self._chart.show(chart_of(document))
        self._totals.set_content(totals_html(document.summary))
        points = len(document.points)
        unit = "point" if points == 1 else "points"
        self._resolution.set_text(f"{points:,} {unit} of {length_text(document.resolution_s)}" if points else "nothing here yet")
        self._csv.props["href"] = self._csv_link(document)
        self._csv.update()
        await self._show_faces(document)

    def _csv_link(self, document: TimelineDocument) -> str:
        query = urlencode(
            {"from": iso(document.start), "to": iso(document.end), "resolution": f"{document.resolution_s}s", "format": "csv"}
        )
        return f"{PREFIX}/streams/{self._stream.id}/timeline?{query}"

    async def _show_faces(self, document: TimelineDocument) -> None:
        is_now = self._window.follows and self._stream.status.state in (StreamState.LIVE, StreamState.PLAYING)
        end_us = max(to_us(document.end), to_us(self._stream.progress.last_time) if self._stream.progress.last_time else 0)
        last_us = to_us(self._stream.progress.last_time) if self._stream.progress.last_time else end_us
        start_us = last_us - _NOW_US if is_now else to_us(document.start)
        if start_us >= end_us:
            return
        edges = {"from": iso(to_datetime(start_us)), "to": iso(to_datetime(end_us)), "limit": _MOST_TRACKS}
        tracks = await self._visit.tracks(self._stream.id, TrackListParameters.model_validate(edges))
        newest = sorted(tracks, key=lambda track: (track.last, track.frames), reverse=True)[:_MOST_FACES]
        if is_now:
            newest = [await self._visit.track_now(self._stream.id, track, start_us) for track in newest]
        self._faces_title.set_content(f"<h2>{'Faces now' if is_now else 'Faces in this window'}</h2>")
        newest.sort(key=lambda track: track.track)
        self._faces.set_content(faces_html(newest, len(tracks) - len(newest)))

    def _show_state(self) -> None:
        stream, now_s = self._stream, self._visit.ctx.clock.now_s()
        word, kind = state_words(stream)
        self._chip.set_text(word)
        self._chip.classes(replace=f"chip {kind}")
        last = stream.status.last_frame
        parts = [f"{frame_rate(stream)} frames/s"]
        if stream.lane is StreamClass.LIVE:
            parts.insert(0, f"last frame {age_text(None if last is None else now_s - last.timestamp())}")
        if stream.video is not None:
            parts.append(f"{stream.video.width} x {stream.video.height}")
        parts += file_facts(stream)
        self._facts.set_text(" · ".join(parts))
        why = why_text(stream)
        self._why.set_text(why)
        self._why.set_visibility(bool(why))
        percent = stream.progress.percent
        reads = stream.lane is StreamClass.FILE and percent is not None and stream.status.state is StreamState.PLAYING
        self._progress.set_visibility(reads)
        if reads and percent is not None:
            self._progress.set_content(progress_html(percent, self._eta.left_s(percent, now_s)))
        act, icon = ("Resume", "play_arrow") if stream.paused else ("Pause", "pause")
        if stream.status.state is StreamState.FAILED:
            act, icon = "Try again", "refresh"
        self._toggle.set_text(act)
        self._toggle.set_icon(icon)
        self._toggle.set_visibility(self._may_change and stream.status.state is not StreamState.ENDED)

    def _mark_span(self) -> None:
        for span_s, chosen in self._spans.items():
            is_chosen = self._window.follows and self._window.span_s == span_s
            pressed = "true" if is_chosen else "false"
            if chosen.props.get("aria-pressed") != pressed:
                chosen.props["aria-pressed"] = pressed
                chosen.update()
        self._follow.set_visibility(not self._window.follows)

    async def _pending_update(self, window: Window) -> None:
        self._window = window
        await self._tick()

    async def _on_span(self, span_s: int | None) -> None:
        await self._pending_update(self._window.of_span(span_s))

    async def _on_follow(self) -> None:
        await self._pending_update(self._window.following())

    async def _on_window(self, start_ms: int, end_ms: int) -> None:
        await self._pending_update(self._window.turned_to(start_ms * 1000, end_ms * 1000))

    async def _on_toggle(self) -> None:
        async with refusals_shown():
            await toggle(self._visit, self._stream)
        await self._tick()

    def _on_change(self) -> None:
        StreamForm(self._visit, self._changed, self._stream).open()

    async def _changed(self, _stream: StreamAnswer) -> None:
        await self._tick()

    def _on_delete(self) -> None:
        confirm_delete(self._visit, self._stream.id, self._gone)

    async def _gone(self) -> None:
        ui.navigate.to("/")
