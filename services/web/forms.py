"""Dialogs about a stream: add, change, delete. What is wrong is said next to its field."""

from collections.abc import Awaitable, Callable
from html import escape
from typing import Any, Final

from nicegui import ui
from pydantic import ValidationError

from moodline.services.api.models import CameraTestAnswer, NewCameraTest, NewStream, StreamChange
from moodline.services.report.stream_document import StreamAnswer
from moodline.services.web.layout import button, refusals_shown, set_state
from moodline.services.web.visit import Visit
from moodline.services.web.words import labels_from, labels_text, problems_of
from moodline.shared.errors import MoodlineError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import Transport, is_pushed

Done = Callable[[StreamAnswer], Awaitable[None]]

_ADDRESS_HINT: Final = "rtsp://…, http://…, device://0, or a file's path"


class StreamForm:
    """A dialog with the fields of a stream. Closes when the API has taken what was given."""

    def __init__(self, visit: Visit, done: Done, stream: StreamAnswer | None = None, **given: str) -> None:
        """Build it; `stream` is the one to change, and `given` are first values for a new one."""
        self._visit, self._done, self._stream = visit, done, stream
        self._fields: dict[str, Any] = {}
        title = "Add a stream" if stream is None else f"Change {stream.id}"
        with ui.dialog() as self._dialog, ui.card().classes("dialog"):
            self._dialog.props["aria-label"] = title
            ui.html(f"<h2>{escape(title)}</h2>", sanitize=False)
            self._build(given)
            self._general = ui.label().props("role=alert").style("color:var(--bad)")
            self._general.set_visibility(False)
            self._steps = ui.element("div").props("role=status").classes("steps")
            with ui.element("div").classes("row-end"):
                if stream is None or (stream.lane is StreamClass.LIVE and not is_pushed(stream.url)):
                    self._test = button("Test", label="Test the camera").on_click(self._try).style("margin-right:auto")
                button("Cancel").on_click(self._dialog.close)
                self._send = button("Add" if stream is None else "Save", kind="act").on_click(self._submit)

    def open(self) -> None:
        """Show it."""
        self._dialog.open()

    def _build(self, given: dict[str, str]) -> None:
        stream = self._stream
        if stream is None:
            self._text("id", "Name", given.get("id", ""), "letters, digits, . _ -").props("autofocus")
        self._text("url", "Address", given.get("url", stream.url if stream else ""), _ADDRESS_HINT)
        with ui.expansion("More").props("dense").classes("full-width").style("width:100%"):
            if stream is None or stream.lane is StreamClass.LIVE:
                self._text("username", "User name", "", "Of the camera; kept sealed, never shown").props("autocomplete=off")
                self._text("password", "Password", "", "Of the camera; kept sealed, never shown", password=True)
                transport = ui.select(
                    {None: "TCP (usual)" if stream is None else "unchanged", **{each: each.upper() for each in Transport}},
                    label="RTSP over",
                    value=None,
                )
                self._fields["transport"] = transport.props("outlined dense bottom-slots").style("width:100%")
            self._text("sample_fps", "Frames per second to look at", stream.sample_fps if stream else "", 'e.g. 5, 0.5, or "all"')
            self._text("labels", "Labels", labels_text(stream.labels) if stream else "", "site=berlin, floor=2")

    def _text(self, name: str, label: str, value: str, hint: str, *, password: bool = False) -> ui.input:
        field = ui.input(label, value=value, password=password).props("outlined dense bottom-slots").style("width:100%")
        field.props["hint"] = hint
        field.props["name"] = f"stream-{name}"
        field.on("keydown.enter", self._submit)
        self._fields[name] = field
        return field

    async def _submit(self) -> None:
        self._forget_problems()
        self._send.disable()
        try:
            answer = await self._sent()
        except (ValidationError, MoodlineError) as error:
            self._show(problems_of(error))
            return
        finally:
            self._send.enable()
        self._dialog.close()
        if answer.hint:
            set_state(answer.hint)
        await self._done(answer)

    async def _try(self) -> None:
        """Test the camera as it stands in the form, and show each step with what to change."""
        self._forget_problems()
        self._test.disable()
        self._steps.clear()
        with self._steps:
            ui.label("Trying the camera; this can take a minute …").classes("soft")
        try:
            tried = await self._visit.test(self._as_test())
        except (ValidationError, MoodlineError) as error:
            self._steps.clear()
            self._show(problems_of(error))
            return
        finally:
            self._test.enable()
        self._steps.clear()
        with self._steps:
            show_steps(tried)

    def _as_test(self) -> NewCameraTest:
        names = ("url", "username", "password", "transport")
        given = {name: self._fields[name].value for name in names if name in self._fields}
        body = {name: value for name, value in given.items() if value not in (None, "")}
        if self._stream is not None:
            body["stream"] = self._stream.id
        return NewCameraTest.model_validate(body)

    def _forget_problems(self) -> None:
        for field in self._fields.values():
            field.error = None
        self._general.set_visibility(False)

    async def _sent(self) -> StreamAnswer:
        values = {name: field.value for name, field in self._fields.items()}
        body: dict[str, Any] = {name: value for name, value in values.items() if value not in (None, "")}
        if "labels" in values:
            body["labels"] = labels_from(values["labels"])
        if self._stream is None:
            return await self._visit.add(NewStream.model_validate({"id": "", "url": ""} | body))
        # What stands there as it was is no change; the revision keeps what somebody else changed meanwhile.
        known = {"url": self._stream.url, "sample_fps": self._stream.sample_fps, "labels": self._stream.labels}
        changes = {name: value for name, value in body.items() if known.get(name) != value}
        change = StreamChange.model_validate(changes | {"revision": self._stream.revision})
        return await self._visit.change(self._stream.id, change)

    def _show(self, problems: dict[str, str]) -> None:
        rest = []
        for name, text in problems.items():
            if name in self._fields:
                self._fields[name].error = text
            else:
                rest.append(text)
        self._general.set_text("; ".join(rest))
        self._general.set_visibility(bool(rest))
        first = next((self._fields[name] for name in problems if name in self._fields), None)
        if first is not None:
            first.run_method("focus")


def show_steps(tried: CameraTestAnswer) -> None:
    """Show here what works with a camera, and what to change; what a camera says of itself stays text."""
    ui.label("This camera works." if tried.works else "Something is to be changed:").style("font-weight:600")
    if tried.hint:
        ui.label(tried.hint)
    for step in tried.steps:
        with ui.element("div").classes("step good" if step.good else "step bad"):
            ui.label("✓" if step.good else "✗").props("aria-hidden=true")
            with ui.element("div"):
                ui.label(f"{step.name}: {step.found}" if step.found else step.name)
                if step.cure:
                    ui.label(step.cure).classes("soft")


def confirm_delete(visit: Visit, stream_id: str, done: Callable[[], Awaitable[None]]) -> None:
    """Ask whether a stream shall go with all of its data, and delete it."""

    async def delete() -> None:
        dialog.close()
        async with refusals_shown():
            await visit.delete(stream_id)
            set_state(f"{stream_id} is deleted")
        await done()

    with ui.dialog() as dialog, ui.card().classes("dialog"):
        dialog.props["aria-label"] = f"Delete {stream_id}?"
        ui.html(f"<h2>Delete {escape(stream_id)}?</h2>", sanitize=False)
        ui.label("Its timeline and all that is kept of it go too. This cannot be undone.").classes("soft")
        with ui.element("div").classes("row-end"):
            button("Keep it").on_click(dialog.close).props("autofocus")
            button("Delete", kind="danger").on_click(delete)
    dialog.on("hide", dialog.delete)
    dialog.open()
