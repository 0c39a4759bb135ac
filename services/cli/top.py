"""`moodline top`: a live table of streams and workers in the terminal. Asks the API."""

import sys
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from moodline import Client, Ready, Stream
from moodline.services.cli.connection import open_client
from moodline.services.cli.console import TableConsole, fitted
from moodline.services.cli.streams import STATE_STYLES, position_text, why
from moodline.services.report.palette import GAP_NAMES
from moodline.services.report.table import palette_of
from moodline.shared.clock import Clock, SystemClock
from moodline.shared.errors import MoodlineError
from moodline.shared.streams import StreamState
from moodline.shared.timeline.points import EmptyReason

_ORDER: Final = (
    *(StreamState.FAILED, StreamState.STALLED, StreamState.BACKING_OFF, StreamState.CONNECTING),
    *(StreamState.LIVE, StreamState.PLAYING, StreamState.PENDING, StreamState.PAUSED, StreamState.ENDED),
)
"""States in the order of the table: those that need attention come first."""
_WINDOW: Final = "-10s"
_RESERVED_LINES: Final = 7


def top(
    interval_s: Annotated[float, typer.Option("--interval", min=0.5, max=60, help="Seconds between two looks.")] = 2.0,
    *,
    once: Annotated[bool, typer.Option("--once", help="Print one table and end, also where output is no terminal.")] = False,
) -> None:
    """Watch streams and workers; what needs somebody comes first. Ends by Ctrl-C."""
    console, clock = TableConsole(), SystemClock()
    with open_client() as client:
        if once or not sys.stdout.isatty():
            console.print(_screen(client, console, limit=None))
            return
        with Live(_screen(client, console, _limit(console)), console=console, screen=True, auto_refresh=False) as live:
            for screen in _screens(client, console, clock, interval_s):
                live.update(screen, refresh=True)


def _screens(client: Client, console: Console, clock: Clock, interval_s: float) -> Iterator[RenderableType]:
    try:
        while True:
            clock.sleep(interval_s)
            try:
                yield _screen(client, console, _limit(console))
            except MoodlineError as error:
                # A service that restarts is watched on.
                yield Text(f"{error}; tried again every {interval_s:g} s", style="red")
    except KeyboardInterrupt:
        return


def _limit(console: Console) -> int:
    return max(1, console.height - _RESERVED_LINES)


def _screen(client: Client, console: Console, limit: int | None) -> RenderableType:
    streams = sorted(client.list_streams(), key=lambda one: (_rank(one), one.id))
    shown = streams if limit is None else streams[:limit]
    parts: list[RenderableType] = [_head(streams, client.ready()), fitted(_table(client, shown, console), console.width)]
    if len(shown) < len(streams):
        parts.append(Text(f"and {len(streams) - len(shown)} more; the terminal has no room for them", style="dim"))
    return Group(*parts)


def _rank(stream: Stream) -> int:
    return _ORDER.index(StreamState(stream.status.state)) if stream.status.state in set(_ORDER) else 0


def _head(streams: list[Stream], ready: Ready) -> Text:
    counts = {state: sum(one.status.state == state for one in streams) for state in _ORDER}
    summary = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no streams"
    text = Text(f"{len(streams)} streams: {summary}\n")
    text.append("service: ").append("ready" if ready.ready else "not ready", style="green" if ready.ready else "red")
    for name, state in sorted(ready.checks.items()):
        text.append(f"  {name} ").append("yes" if state is True else "no" if state is False else str(state))
    return text


def _table(client: Client, streams: list[Stream], console: Console) -> Table:
    palette = palette_of(console.color_system)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("id", "state", "now", "progress", "frames", "reason"):
        table.add_column(name, justify="right" if name == "frames" else "left", no_wrap=name != "reason", overflow="fold")
    for stream in streams:
        emotion = _now(client, stream)
        table.add_row(
            Text(stream.id, style="bold"),
            Text(stream.status.state, style=STATE_STYLES.get(stream.status.state, "")),
            Text(emotion, style=palette.get(emotion.partition(" ")[0], "") if palette else ""),
            Text(position_text(stream)),
            f"{stream.progress.frames:,}",
            Text(why(stream) if stream.status.reason or stream.status.detail else "", style="dim"),
        )
    return table


def _now(client: Client, stream: Stream) -> str:
    """Return the leading emotion of the last ten seconds, or why there is none."""
    if stream.status.state not in (StreamState.LIVE, StreamState.PLAYING):
        return "-"
    try:
        summary = client.summary(stream.id, start=_WINDOW).summary
    except MoodlineError:
        return "-"
    if summary.dominant is not None and summary.shares is not None:
        return f"{summary.dominant} {summary.shares[summary.dominant]:.0%}"
    return GAP_NAMES.get(EmptyReason(summary.empty), "-") if summary.empty else "-"
