"""One stream as a card."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from html import escape

from nicegui import ui

from moodline.services.report.document import TimelineDocument
from moodline.services.report.moments import clock_text
from moodline.services.report.stream_document import StreamAnswer
from moodline.services.web.chart_data import faces_per_frame
from moodline.services.web.eta import Eta
from moodline.services.web.layout import button, relabel
from moodline.services.web.strip import strip_svg
from moodline.services.web.words import age_text, frame_rate, span_text, state_words, why_text
from moodline.shared.messages import StreamClass
from moodline.shared.streams import StreamState


@dataclass(frozen=True, slots=True)
class Acts:
    """The actions of a card's buttons."""

    change: Callable[[StreamAnswer], None]
    toggle: Callable[[StreamAnswer], Awaitable[None]]
    delete: Callable[[StreamAnswer], None]


class Card:
    """Builds itself where it is made; `show` fills it, again and again."""

    def __init__(self, stream: StreamAnswer, acts: Acts, *, may_change: bool = True) -> None:
        self._stream, self._acts = stream, acts
        self._eta = Eta()
        self._facts: dict[str, str] = {}
        name = escape(stream.id)
        self.element = ui.element("article").classes("card").props(f'aria-label="{name}"')
        with self.element:
            with ui.element("div").classes("top"):
                ui.html(f'<h2><a href="/streams/{name}">{name}</a></h2>', sanitize=False).style("flex:1;min-width:0")
                self._chip = ui.label().classes("chip")
            self._strip = ui.html(strip_svg(None), sanitize=False)
            self._numbers = ui.html("", sanitize=False)
            self._progress = ui.html("", sanitize=False)
            self._why = ui.label().classes("why")
            with ui.element("div").classes("acts"):
                ui.link("Timeline", f"/streams/{name}").style("align-self:center;padding:0 8px;font-size:14px")
                ui.element("div").classes("grow")
                if may_change:
                    self._buttons(name)
        self.show(stream, 0.0)

    def _buttons(self, name: str) -> None:
        self._toggle = button(icon="pause", kind="icon", label=f"Pause {name}").on_click(lambda: self._acts.toggle(self._stream))
        button(icon="edit", kind="icon", label=f"Change {name}").on_click(lambda: self._acts.change(self._stream))
        button(icon="delete_outline", kind="icon", label=f"Delete {name}").on_click(lambda: self._acts.delete(self._stream))

    def show(self, stream: StreamAnswer, now_s: float) -> None:
        """Show what the stream does at a wall-clock time; draws only what differs."""
        self._stream = stream
        word, kind = state_words(stream)
        self._chip.set_text(word)
        self._chip.classes(replace=f"chip {kind}")
        last = stream.status.last_frame
        if stream.lane is StreamClass.LIVE:
            first = age_text(None if last is None else now_s - last.timestamp())
        else:
            first = "—" if stream.progress.duration_s is None else clock_text(round(stream.progress.duration_s))
        self._set_facts(first=first, fps=frame_rate(stream))
        self._show_progress(stream, now_s)
        why = why_text(stream)
        self._why.set_text(why)
        self._why.set_visibility(bool(why))
        if hasattr(self, "_toggle"):
            self._show_toggle(stream)

    def show_mood(self, document: TimelineDocument) -> None:
        """Draw the strip, and how many faces its newest point has."""
        self._strip.set_content(strip_svg(document))
        newest = next((point for point in reversed(document.points) if point.classified), None)
        faces = faces_per_frame(newest) if newest is not None else None
        self._set_facts(faces="—" if faces is None else f"{faces:.1f}".removesuffix(".0"))

    def _set_facts(self, **facts: str) -> None:
        self._facts |= facts
        rows = (
            ("first", "last frame" if self._stream.lane is StreamClass.LIVE else "length"),
            ("fps", "frames/s"),
            ("faces", "faces"),
        )
        cells = "".join(f"<div><dt>{name}</dt><dd>{escape(self._facts.get(key, '—'))}</dd></div>" for key, name in rows)
        self._numbers.set_content(f'<dl class="facts">{cells}</dl>')

    def _show_progress(self, stream: StreamAnswer, now_s: float) -> None:
        percent = stream.progress.percent
        reads = stream.lane is StreamClass.FILE and stream.status.state is StreamState.PLAYING and percent is not None
        self._progress.set_visibility(reads)
        if reads and percent is not None:
            self._progress.set_content(progress_html(percent, self._eta.left_s(percent, now_s)))

    def _show_toggle(self, stream: StreamAnswer) -> None:
        tries_again = stream.status.state is StreamState.FAILED
        act = "Resume" if stream.paused else "Try again" if tries_again else "Pause"
        self._toggle.set_visibility(stream.status.state is not StreamState.ENDED)
        icon = {"Resume": "play_arrow", "Try again": "refresh", "Pause": "pause"}[act]
        relabel(self._toggle, f"{act} {stream.id}", icon)


def progress_html(percent: float, left_s: float | None) -> str:
    """Return a bar with its number and how long it may still take."""
    left = "" if left_s is None else f", about {span_text(left_s)} left"
    return (
        f'<div class="progress" role="progressbar" aria-valuenow="{percent:.0f}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-label="read so far"><i style="width:{percent:.1f}%"></i></div>'
        f'<span class="soft nums">{percent:.0f}% read{left}</span>'
    )
