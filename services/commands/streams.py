"""`moodline streams`: register streams and see what they do. Asks the API."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from services.api.client import Client
from services.api.models import StreamAnswer, StreamPage
from services.report.moments import clock_text, iso
from shared.clock import Clock, SystemClock
from shared.errors import SourceError
from shared.settings import load_settings
from shared.streams import StreamState

app = typer.Typer(name="streams", help="Register streams and see what they do.", no_args_is_help=True)

StreamId = Annotated[str, typer.Argument(metavar="ID", help="The stream's id.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

_POLL_S: Final = 0.25
_STATE_STYLES: Final = {
    StreamState.PLAYING: "green",
    StreamState.LIVE: "green",
    StreamState.ENDED: "bold",
    StreamState.FAILED: "red",
    StreamState.PAUSED: "yellow",
}


def open_client() -> Client:
    """Return a client of the API that the settings name."""
    return Client(load_settings().api_url())


@app.command()
def add(  # noqa: PLR0913  # one for each option
    stream_id: StreamId,
    url: Annotated[
        str, typer.Argument(metavar="URL_OR_PATH", help="A file's path, file:// or synthetic://.", show_default=False)
    ],
    sample_fps: Annotated[str | None, typer.Option(help='Frames per second to analyse: "5", "30000/1001", or "all".')] = None,
    max_side_px: Annotated[int | None, typer.Option(help="Longest side of a frame, in px.")] = None,
    recorded_at: Annotated[str | None, typer.Option(help="When the recording began, e.g. 2026-05-01T12:00:00Z.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; may be given several times.")] = None,
    *,
    paused: Annotated[bool, typer.Option("--paused", help="Register without reading anything yet.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the whole file is in its timeline.")] = False,
) -> None:
    """Register a stream."""
    if paused and wait:
        raise typer.BadParameter("a paused stream comes to no end", param_hint="--wait")
    definition: dict[str, Any] = {"id": stream_id, "url": _absolute(url), "labels": _labels(label or []), "paused": paused}
    options = {"sample_fps": sample_fps, "max_side_px": max_side_px, "recorded_at": recorded_at}
    definition |= {name: value for name, value in options.items() if value is not None}
    with open_client() as client:
        stream = client.add_stream(definition)
        typer.echo(f"{stream.id} is registered")
        if wait:
            stream = wait_until_ended(client, stream.id)
            typer.echo(f"{stream.id} is complete: {_progress_text(stream)}; see it with `moodline timeline {stream.id}`")


@app.command("ls")
def list_all(*, as_json: AsJson = False) -> None:
    """List streams."""
    with open_client() as client:
        streams = client.list_streams()
    if as_json:
        typer.echo(StreamPage(streams=streams).model_dump_json(indent=2))
    elif streams:
        Console().print(_table(streams))
    else:
        typer.echo("no streams are registered; add one with `moodline streams add ID PATH`")


@app.command()
def show(stream_id: StreamId, *, as_json: AsJson = False) -> None:
    """Show a stream's definition, state and progress."""
    with open_client() as client:
        stream = client.get_stream(stream_id)
    if as_json:
        typer.echo(stream.model_dump_json(indent=2))
    else:
        Console(soft_wrap=True).print(_card(stream))


@app.command()
def pause(stream_id: StreamId) -> None:
    """Stop reading a stream; its timeline stays."""
    with open_client() as client:
        stream = client.pause(stream_id)
    typer.echo(f"{stream.id} is {stream.status.state}")


@app.command()
def resume(stream_id: StreamId) -> None:
    """Go on reading a stream, or try a failed one again."""
    with open_client() as client:
        stream = client.resume(stream_id)
    typer.echo(f"{stream.id} is {stream.status.state}")


@app.command("rm")
def remove(stream_id: StreamId, *, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete a stream and all of its data."""
    if not yes:
        typer.confirm(f"Delete {stream_id} and its whole timeline?", abort=True)
    with open_client() as client:
        client.remove(stream_id)
    typer.echo(f"{stream_id} and its data are deleted")


def wait_until_ended(client: Client, stream_id: str, clock: Clock | None = None) -> StreamAnswer:
    """Return the stream when its whole content is in the timeline; shows the progress on standard error. Blocks.

    Raises:
        SourceError: the stream failed.
        ApiError: the API went away, or the stream was deleted.
    """
    clock = clock or SystemClock()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[detail]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(stream_id, total=None, detail="")
        while True:
            stream = client.get_stream(stream_id)
            _show_progress(bar, task, stream)
            if stream.progress.complete:
                return stream
            if stream.status.state is StreamState.FAILED:
                raise SourceError(stream.status.reason or "failed", f"{stream_id} failed: {_why(stream)}")
            clock.sleep(_POLL_S)


def _show_progress(bar: Progress, task: TaskID, stream: StreamAnswer) -> None:
    known = stream.progress.percent
    detail = f"{stream.status.state}, {_progress_text(stream)}"
    bar.update(task, total=None if known is None else 100, completed=known or 0, detail=detail)


def _absolute(url: str) -> str:
    """Return a local path as seen from the root, since the service may run in another directory."""
    return url if "://" in url or url.startswith("file:") else str(Path(url).expanduser().absolute())


def _labels(given: list[str]) -> dict[str, str]:
    labels = {}
    for label in given:
        key, has_value, value = label.partition("=")
        if not has_value or not key:
            raise typer.BadParameter("write KEY=VALUE", param_hint="--label")
        labels[key] = value
    return labels


def _table(streams: list[StreamAnswer]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("id", "state", "progress", "frames", "labels", "url"):
        is_short = name in ("id", "progress", "frames")
        table.add_column(name, justify="right" if name == "frames" else "left", overflow="fold", no_wrap=is_short)
    for stream in streams:
        table.add_row(
            Text(stream.id, style="bold"),
            _state_text(stream),
            Text(_position_text(stream)),
            Text(f"{stream.progress.frames:,}"),
            Text(_label_text(stream)),
            Text(stream.url, style="dim"),
        )
    return table


def _card(stream: StreamAnswer) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    video = stream.video
    rows: list[tuple[str, str | Text]] = [
        ("id", Text(stream.id, style="bold")),
        ("state", _state_text(stream)),
        ("progress", _progress_text(stream)),
        ("url", stream.url),
        ("video", f"{video.width}x{video.height} px, {video.codec}, {video.source_fps} frames/s" if video else "not opened yet"),
        ("analysed", f"{stream.sample_fps} frames/s, at most {stream.max_side_px} px"),
        ("recorded at", iso(stream.recorded_at)),
        ("registered at", iso(stream.created_at)),
        ("labels", _label_text(stream)),
        ("revision", str(stream.revision)),
    ]
    for name, value in rows:
        if value:
            table.add_row(name, value if isinstance(value, Text) else Text(value))
    return table


def _state_text(stream: StreamAnswer) -> Text:
    text = Text(stream.status.state, style=_STATE_STYLES.get(stream.status.state, ""))
    if stream.status.state is StreamState.FAILED:
        text.append(f" ({_why(stream)})", style="dim")
    return text


def _why(stream: StreamAnswer) -> str:
    return ": ".join(part for part in (stream.status.reason, stream.status.detail) if part) or "no reason is known"


def _position_text(stream: StreamAnswer) -> str:
    progress = stream.progress
    text = clock_text(progress.position_s)
    if progress.duration_s is not None:
        text += f" of {clock_text(progress.duration_s)}"
    return text if progress.percent is None else f"{text} ({progress.percent:.0f}%)"


def _progress_text(stream: StreamAnswer) -> str:
    return f"{_position_text(stream)}, {stream.progress.frames:,} frames"


def _label_text(stream: StreamAnswer) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(stream.labels.items()))
