"""A real headless Chromium that visits the page: what it asked for, what it complained about, and pictures for the docs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import cv2
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, WebSocket, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
_PICTURE_LIMIT_BYTES = 200_000
_SHOWN = {"file", "data", "blob", "about"}


class Visitor:
    """One tab of a browser, with all that it asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", self._note_request)
        page.on("websocket", self._note_socket)
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def foreign(self) -> list[str]:
        """Return what was asked of any other host than this one."""
        hosts = {url: urlsplit(url) for url in self.asked}
        return [url for url, parts in hosts.items() if parts.scheme not in _SHOWN and parts.hostname != "127.0.0.1"]

    def chart(self) -> dict[str, Any]:
        """Return what ECharts draws: its options."""
        found: dict[str, Any] = self.page.evaluate(
            """async () => {
              const { echarts } = await import("nicegui-echart");
              const option = echarts.getInstanceByDom(document.querySelector(".chart")).getOption();
              const plain = (each) => ({ name: each.name, data: each.data, markArea: each.markArea, markLine: each.markLine });
              return { series: option.series.map(plain), min: option.xAxis[0].min, max: option.xAxis[0].max };
            }"""
        )
        return found

    def picture(self, name: str, *, full: bool = False) -> None:
        """Take a picture for the docs, where MOODLINE_TEST_SCREENSHOTS names a folder. Nobody who is on a video is on it."""
        folder = os.environ.get("MOODLINE_TEST_SCREENSHOTS")
        if not folder:
            return
        path = Path(folder) / f"{name}.png"
        self.page.screenshot(
            path=path, full_page=full, animations="disabled", mask=[self.page.locator("video")], mask_color="#5b6770"
        )
        assert path.stat().st_size < _PICTURE_LIMIT_BYTES, f"{name} is too large for the repository"

    def _note_request(self, request: Request) -> None:
        self.asked.append(request.url)

    def _note_socket(self, socket: WebSocket) -> None:
        self.asked.append(socket.url)

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)


@contextmanager
def open_browser(capture: Path | None = None) -> Iterator[Browser]:
    """Start Chromium; skip where it is missing, fail in CI. `capture` is an MJPEG file that plays as its camera."""
    if not CHROMIUM.exists():
        reason = "no Chromium: run deploy/local/system-packages.sh"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"CI must have a browser: {reason}")
        pytest.skip(reason)
    arguments = ["--no-sandbox", "--disable-background-networking", "--use-fake-ui-for-media-stream"]
    if capture is not None:
        arguments += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={capture}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, **options: Any) -> Iterator[Visitor]:
    """Open a tab of its own; `options` are those of a browser context, such as `viewport` or `color_scheme`."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}} | options)
    yield Visitor(context.new_page())
    context.close()


def make_capture(clip: Path, path: Path, *, width: int = 640, height: int = 360, fps: int = 10) -> Path:
    """Write a clip as the MJPEG file that Chromium plays, over and over, as a camera."""
    due_s, pictures = 0.0, []
    with av.open(str(clip)) as source:
        for frame in source.decode(video=0):
            if frame.time is None or frame.time < due_s:
                continue
            due_s += 1 / fps
            done, picture = cv2.imencode(".jpg", frame.to_ndarray(width=width, height=height, format="bgr24"))
            assert done
            pictures.append(picture.tobytes())
    path.write_bytes(b"".join(pictures))
    return path
