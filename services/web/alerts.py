"""Alerts that are on, above what they are about."""

from collections.abc import Sequence
from html import escape

from nicegui import ui

from moodline.services.api.alert_models import FiringAnswer
from moodline.services.web.visit import Visit
from moodline.services.web.words import span_text


class AlertBanner:
    """Shows what fires of all streams that the visitor may see, or of one. Builds itself where it is made."""

    def __init__(self, visit: Visit, stream_id: str | None = None) -> None:
        self._visit, self._stream_id = visit, stream_id
        # Announced as a whole when it changes, so the words hold no running clock.
        self._element = ui.html("", sanitize=False).props('role=alert aria-label="Alerts"')

    async def refresh(self) -> None:
        """Show what fires now. Raises `MoodlineError`."""
        firing = await self._visit.firing()
        shown = [each for each in firing if self._stream_id in (None, each.stream)]
        self._element.set_content(alerts_html(shown, self._visit.ctx.clock.now_s()))


def alerts_html(firing: Sequence[FiringAnswer], now_s: float) -> str:
    """Return one line for each alert; its names are the user's, and so escaped."""
    return "".join(
        f'<div class="alert"><b>{escape(each.rule)}</b><span>fires on <a href="/streams/{escape(each.stream)}">'
        f"{escape(each.stream)}</a>, for {_length(now_s - each.since.timestamp())}</span></div>"
        for each in firing
    )


def _length(seconds: float) -> str:
    return "less than a minute" if seconds < 60 else span_text(seconds)
