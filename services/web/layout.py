"""The common parts of all pages: style, header, theme, and messages of refused requests."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from nicegui import ui

from moodline.services.api import PREFIX
from moodline.services.report.palette import EMOTION_COLORS
from moodline.services.web.strip import hatch_patterns
from moodline.shared.errors import MoodlineError, UnauthorizedError

_STATIC: Final = Path(__file__).parent / "static"

# Set before anything is drawn, so that a page never flashes in the other theme.
_THEME: Final = """<script>
window.moodlineTheme = {
  chosen: () => localStorage.getItem("moodline.theme"),
  apply: () => { const c = window.moodlineTheme.chosen(); Quasar.Dark.set(c === null ? "auto" : c === "dark"); },
  toggle: () => {
    localStorage.setItem("moodline.theme", document.body.classList.contains("body--dark") ? "light" : "dark");
    window.moodlineTheme.apply();
  },
};
document.addEventListener("DOMContentLoaded", () => setTimeout(() => {
  if (window.moodlineTheme.chosen() !== null) window.moodlineTheme.apply();
}, 0));
</script>"""


_SIGN_OUT: Final = f"""() => fetch("{PREFIX}/session", {{ method: "DELETE" }}).then(() => location.assign("/sign-in"))"""


@cache
def _head() -> str:
    emotions = "".join(
        f".e-{emotion}{{fill:{color}}}i.e-{emotion},b.e-{emotion}{{background:{color}}}"
        for emotion, color in EMOTION_COLORS.items()
    )
    return f"<style>{(_STATIC / 'moodline.css').read_text()}{emotions}</style>{_THEME}"


@contextmanager
def frame(title: str, *, signed_in: bool = False) -> Iterator[ui.element]:
    """Lay out a page: header with skip link, then the main part, within which the caller builds; yields the header's end."""
    ui.page_title(f"{title} · Moodline" if title else "Moodline")
    ui.add_head_html(_head())
    ui.html('<a class="skip" href="#main">Skip to content</a>' + hatch_patterns(), sanitize=False)
    with ui.element("header").classes("bar"):
        ui.html(
            '<a class="brand" href="/"><img src="/favicon.ico" alt="" width="28" height="28">Moodline</a>', sanitize=False
        ).style("margin-right:auto")
        actions = ui.element("div").style("display:flex;gap:8px;align-items:center")
        theme = ui.button(icon="contrast").props('flat aria-label="Light or dark" no-caps color=none').classes("icon")
        theme.on("click", js_handler="() => window.moodlineTheme.toggle()")
        if signed_in:
            button(icon="logout", kind="icon", label="Sign out").on("click", js_handler=_SIGN_OUT)
    with ui.element("main").props("id=main tabindex=-1").classes("main"):
        yield actions


def button(text: str = "", *, icon: str | None = None, kind: str = "quiet", label: str = "") -> ui.button:
    """Return a button; `kind` is `act`, `quiet`, `icon` or `danger`; `label` is what a screen reader says."""
    made = ui.button(text, icon=icon, color=None).props("unelevated no-caps" if kind != "icon" else "flat no-caps").classes(kind)
    if label:
        made.props["aria-label"] = label
        if not text:
            made.tooltip(label)
    return made


def relabel(made: ui.button, label: str, icon: str) -> None:
    """Give a button of `kind` icon another meaning; nothing is sent where it has it already."""
    if made.props["aria-label"] == label:
        return
    made.props.update({"aria-label": label, "icon": icon})
    for tooltip in made:
        if isinstance(tooltip, ui.tooltip):
            tooltip.set_text(label)
    made.update()


@asynccontextmanager
async def refusals_shown() -> AsyncIterator[None]:
    """Show what the API refuses within as a message on the page, instead of failing."""
    try:
        yield
    except UnauthorizedError:
        leave_to_sign_in()
    except MoodlineError as error:
        set_state(str(error), bad=True)


def leave_to_sign_in() -> None:
    """Take the visitor, whose session is over, to the sign-in page, and back here afterwards."""
    ui.run_javascript('location.assign("/sign-in?next=" + encodeURIComponent(location.pathname))')


def set_state(text: str, *, bad: bool = False) -> None:
    """Tell the visitor something, also by screen reader."""
    ui.notify(text, type="negative" if bad else "positive", position="bottom", close_button="OK" if bad else False, timeout=9000)
