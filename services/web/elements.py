"""The page's own browser parts: chart, file drop and camera. Their scripts lie in `static/`; ECharts comes with NiceGUI."""

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from moodline.services.api import PREFIX
from moodline.services.report.palette import EMOTION_COLORS, STACK
from moodline.services.web.chart_data import Chart

# Registers ECharts as a module that scripts can import.
assert ui.echart is not None

Handler = Callable[[Any], Awaitable[None]]


class MoodTimeline(Element, component="static/mood_timeline.js"):
    """The timeline's chart. Tells which window the visitor turned to, in ms since the Unix epoch."""

    def __init__(
        self, label: str, *, on_window: Callable[[int, int], Awaitable[None]], on_follow: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__()
        self._props |= {"label": label, "colors": EMOTION_COLORS, "stack": list(STACK), "payload": None}

        async def turned(event: GenericEventArguments) -> None:
            start, end = event.args.get("start"), event.args.get("end")
            if isinstance(start, int) and isinstance(end, int) and 0 <= start < end < 2**53:
                await on_window(start, end)

        self.on("window", turned)
        self.on("follow", lambda _event: on_follow())

    def show(self, chart: Chart) -> None:
        """Draw it."""
        self._props["payload"] = chart
        self.update()

    def save_picture(self, name: str) -> None:
        """Let the browser save what is drawn as PNG."""
        self.run_method("save_picture", name)

    def zoom(self, factor: float) -> None:
        """Let the browser zoom about the middle; below 1 closer."""
        self.run_method("zoom", factor)


class FileDrop(Element, component="static/file_drop.js"):
    """Takes files dropped anywhere on the page and uploads them through the API."""

    def __init__(self, on_uploaded: Callable[[str, dict[str, Any], bool], Awaitable[None]]) -> None:
        """`on_uploaded` gets a file's name, the API's answer, and whether it was the only one that was sent."""
        super().__init__()
        self._props["target"] = f"{PREFIX}/uploads"

        async def uploaded(event: GenericEventArguments) -> None:
            name, answer = event.args.get("name"), event.args.get("answer")
            if isinstance(name, str) and isinstance(answer, dict):
                await on_uploaded(name, answer, event.args.get("alone") is True)

        self.on("uploaded", uploaded)

    def opens_by(self, trigger: Element) -> None:
        """Let a click on `trigger` ask for files. In the browser alone: it allows that only during a click."""
        trigger.on("click", js_handler=f"() => getElement({self.id}).open()")


class CameraSender(Element, component="static/camera_sender.js"):
    """Sends the visitor's camera to a stream, once the visitor starts it."""

    def __init__(self, stream_id: str, *, fps: float, side_px: int) -> None:
        super().__init__()
        self._props |= {"path": f"{PREFIX}/streams/{stream_id}/frames", "fps": fps, "side": side_px}
