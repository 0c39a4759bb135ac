"""`moodline streams`: register streams and see what they do. Asks the API."""

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from moodline import Client, Stream, StreamChanges, StreamOptions, Video
from moodline.answers import StreamPage
from moodline.services.cli.connection import open_client
from moodline.services.cli.console import TableConsole, echo_json, fitted
from moodline.services.report.moments import clock_text, iso
from moodline.shared.camera_url import corrected_url
from moodline.shared.clock import SystemClock
from moodline.shared.errors import InvalidStreamError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import StreamState, Transport, stream_class_of_url

app = typer.Typer(name="streams", help="Register streams and see what they do.", no_args_is_help=True)

StreamId = Annotated[str, typer.Argument(metavar="ID", help="The stream's id.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

_ROOM_FOR_ALL: Final = 150
STATE_STYLES: Final[dict[str, str]] = {
    StreamState.PLAYING: "green",
    StreamState.LIVE: "green",
    StreamState.ENDED: "bold",
    StreamState.FAILED: "red",
    StreamState.PAUSED: "yellow",
    StreamState.STALLED: "yellow",
    StreamState.BACKING_OFF: "red",
}


@app.command()
def add(  # noqa: PLR0913  # one for each option
    stream_id: StreamId,
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL_OR_PATH",
            help="A file's path, file://, synthetic://, or a camera: rtsp://, rtsps://, http://, https://, device://0.",
            show_default=False,
        ),
    ],
    sample_fps: Annotated[
        str | None,
        typer.Option(
            help='Frames per second to analyse: "5", "30000/1001", or "all".', show_default="MOODLINE_INGEST_SAMPLE_FPS"
        ),
    ] = None,
    max_side_px: Annotated[
        int | None, typer.Option(help="Longest side of a frame, in px.", show_default="MOODLINE_INGEST_MAX_SIDE_PX")
    ] = None,
    recorded_at: Annotated[
        str | None, typer.Option(help="When the recording began, e.g. 2026-05-01T12:00:00Z.", show_default="now")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; may be given several times.", show_default="none")] = None,
    *,
    username: Annotated[str | None, typer.Option(help="Of a camera.", show_default="none")] = None,
    transport: Annotated[Transport | None, typer.Option(help="How an RTSP camera sends.", show_default="tcp")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the camera's password, one line, from standard input.")
    ] = False,
    no_tls_verify: Annotated[bool, typer.Option("--no-tls-verify", help="Take any certificate of the camera.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Let its newest analysed picture be seen.")] = False,
    paused: Annotated[bool, typer.Option("--paused", help="Register without reading anything yet.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the whole file is in its timeline.")] = False,
) -> None:
    """Register a stream."""
    if paused and wait:
        raise typer.BadParameter("a paused stream comes to no end", param_hint="--wait")
    if wait and stream_class_of_url(url) is StreamClass.LIVE:
        raise typer.BadParameter("a camera comes to no end", param_hint="--wait")
    if password_stdin and username is None:
        raise typer.BadParameter("give --username too", param_hint="--password-stdin")
    given: dict[str, Any] = {"sample_fps": sample_fps, "max_side_px": max_side_px, "recorded_at": recorded_at}
    given |= {"username": username, "transport": transport, "tls_verify": False if no_tls_verify else None}
    given |= {"preview": preview or None}
    given |= {"labels": _labels(label or []), "paused": paused, "password": _read_password() if password_stdin else None}
    options = cast(StreamOptions, {name: value for name, value in given.items() if value is not None})
    _warn_of_password(url)
    with open_client() as client:
        stream = client.add_stream(stream_id, _absolute(url), **options)
        typer.echo(f"{stream.id} is registered")
        if wait:
            stream = wait_until_ended(client, stream.id)
            typer.echo(f"{stream.id} is complete: {_progress_text(stream)}; see it with `moodline timeline {stream.id}`")


@app.command("ls")
def list_all(*, as_json: AsJson = False) -> None:
    """List streams."""
    with open_client() as client:
        streams = list(client.list_streams())
    if as_json:
        echo_json(StreamPage(streams=streams).to_json())
    elif streams:
        _print_list(TableConsole(), streams)
    else:
        typer.echo("no streams are registered; add one with `moodline streams add ID PATH`")


@app.command()
def show(stream_id: StreamId, *, as_json: AsJson = False) -> None:
    """Show a stream's definition, state and progress."""
    with open_client() as client:
        stream = client.get_stream(stream_id)
    if as_json:
        echo_json(stream.to_json())
    else:
        TableConsole(soft_wrap=True).print(_card(stream))


@app.command()
def change(  # noqa: PLR0913  # one for each option
    stream_id: StreamId,
    url: Annotated[str | None, typer.Option(help="Another path or address.", show_default="unchanged")] = None,
    sample_fps: Annotated[
        str | None, typer.Option(help='Frames per second to analyse: "5", "30000/1001", or "all".', show_default="unchanged")
    ] = None,
    max_side_px: Annotated[int | None, typer.Option(help="Longest side of a frame, in px.", show_default="unchanged")] = None,
    recorded_at: Annotated[
        str | None, typer.Option(help="When the recording began, e.g. 2026-05-01T12:00:00Z.", show_default="unchanged")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE; may be given several times; replaces all labels.", show_default="unchanged"),
    ] = None,
    *,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Remove all labels.")] = False,
    username: Annotated[
        str | None, typer.Option(help="Of a camera; empty removes the credentials.", show_default="unchanged")
    ] = None,
    transport: Annotated[Transport | None, typer.Option(help="How an RTSP camera sends.", show_default="unchanged")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the camera's password, one line, from standard input.")
    ] = False,
    tls_verify: Annotated[
        bool | None,
        typer.Option(
            "--tls-verify/--no-tls-verify", help="Whether a camera's certificate must be valid.", show_default="unchanged"
        ),
    ] = None,
    preview: Annotated[
        bool | None,
        typer.Option("--preview/--no-preview", help="Whether its newest analysed picture may be seen.", show_default="unchanged"),
    ] = None,
) -> None:
    """Change a stream; what is not named stays. Of a file most of it only before its first frame."""
    if label and no_labels:
        raise typer.BadParameter("give --label or --no-labels, not both", param_hint="--no-labels")
    given: dict[str, Any] = {"sample_fps": sample_fps, "max_side_px": max_side_px, "recorded_at": recorded_at}
    given |= {"username": username, "transport": transport, "tls_verify": tls_verify, "url": url and _absolute(url)}
    given |= {"preview": preview}
    given |= {"labels": _labels(label) if label else {} if no_labels else None}
    given |= {"password": _read_password() if password_stdin else None}
    changes = cast(StreamChanges, {name: value for name, value in given.items() if value is not None})
    if not changes:
        raise typer.BadParameter("name what is to change, such as --label site=berlin")
    if url:
        _warn_of_password(url)
    with open_client() as client:
        stream = client.change_stream(stream_id, **changes)
    typer.echo(f"{stream.id} is changed: {', '.join(sorted(name for name in changes))}")


@app.command()
def pause(stream_id: StreamId) -> None:
    """Stop reading a stream; its timeline stays."""
    with open_client() as client:
        if client.get_stream(stream_id).status.state == StreamState.ENDED:
            raise InvalidStreamError(
                "paused", f"{stream_id} has ended: the whole file is in its timeline, there is nothing to pause"
            )
        stream = client.pause_stream(stream_id)
    typer.echo(f"{stream.id} is {stream.status.state}")


@app.command()
def resume(stream_id: StreamId) -> None:
    """Go on reading a stream, or try a failed one again."""
    with open_client() as client:
        stream = client.resume_stream(stream_id)
    typer.echo(f"{stream.id} is {stream.status.state}")


@app.command("rm")
def remove(stream_id: StreamId, *, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete a stream and all of its data."""
    if not yes:
        typer.confirm(f"Delete {stream_id} and its whole timeline?", abort=True)
    with open_client() as client:
        client.delete_stream(stream_id)
    typer.echo(f"{stream_id} and its data are deleted")


def wait_until_ended(client: Client, stream_id: str, tell: Callable[[], None] = lambda: None) -> Stream:
    """Return the stream when its whole content is in the timeline; shows the progress on standard error. Blocks.

    Args:
        client: Asks the API.
        stream_id: A file's stream.
        tell: Called each time before the progress is shown.

    Raises:
        SourceError: the stream failed.
        ApiError: the API went away, or the stream was deleted.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[detail]}"))
    with Progress(*columns, console=TableConsole(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(stream_id, total=None, detail="")

        def show_progress(stream: Stream) -> None:
            tell()
            _show_progress(bar, task, stream)

        return client.wait_until_ended(stream_id, tell=show_progress)


def _show_progress(bar: Progress, task: TaskID, stream: Stream) -> None:
    known = stream.progress.percent
    detail = f"{stream.status.state}, {_progress_text(stream)}"
    bar.update(task, total=None if known is None else 100, completed=known or 0, detail=detail)


def _read_password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, default="", show_default=False, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def _warn_of_password(url: str) -> None:
    authority = url.partition("://")[2].partition("/")[0]
    if stream_class_of_url(url) is StreamClass.LIVE and ":" in authority.rpartition("@")[0]:
        typer.echo(
            "moodline: others on this machine can see a password on the command line; use --username and --password-stdin",
            err=True,
        )


def _absolute(url: str) -> str:
    """Return a local path as seen from the root, since the service may run in another directory; other urls as they are meant."""
    if not Path(url).expanduser().exists():
        meant, hint = corrected_url(url)
        if hint and stream_class_of_url(meant) is StreamClass.LIVE:
            typer.echo(f"moodline: {hint}", err=True)
            return meant
    return url if "://" in url or url.startswith("file:") else str(Path(url).expanduser().absolute())


def _labels(given: list[str]) -> dict[str, str]:
    labels = {}
    for label in given:
        key, has_value, value = label.partition("=")
        if not has_value or not key:
            raise typer.BadParameter("write KEY=VALUE", param_hint="--label")
        labels[key] = value
    return labels


def _table(streams: list[Stream], *, wide: bool) -> Table:
    """Return the list of streams; a wide one has labels and addresses, too."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("id", "state", "progress", "frames", *(("labels", "url") if wide else ())):
        # Ids, and words of fixed length, are never broken.
        is_whole = name in ("id", "progress", "frames") or (name == "state" and not wide)
        table.add_column(name, justify="right" if name == "frames" else "left", overflow="fold", no_wrap=is_whole)
    for stream in streams:
        state = _state_text(stream) if wide else Text(stream.status.state, style=STATE_STYLES.get(stream.status.state, ""))
        cells = [Text(stream.id, style="bold"), state, Text(position_text(stream)), Text(f"{stream.progress.frames:,}")]
        table.add_row(*cells, *((Text(_label_text(stream)), Text(stream.url, style="dim")) if wide else ()))
    return table


def _narrow_table(streams: list[Stream]) -> Table:
    """Return the list of streams for cards: few rows for each."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "state", "reason", "labels", "url"):
        table.add_column(name, no_wrap=True)
    for stream in streams:
        state = Text(stream.status.state, style=STATE_STYLES.get(stream.status.state, "")).append(f", {_progress_text(stream)}")
        cells = (_reason_text(stream), _label_text(stream), stream.url)
        table.add_row(Text(stream.id, style="bold"), state, *(Text(cell, style="dim") for cell in cells))
    return table


def _print_list(console: Console, streams: list[Stream]) -> None:
    """Print the list. In a narrow terminal reason, labels and address take a line below, in a very narrow one all is a card."""
    wide = _table(streams, wide=True)
    if console.width >= _ROOM_FOR_ALL and fitted(wide, console.width) is wide:
        console.print(wide)
        return
    narrow = _table(streams, wide=False)
    if fitted(narrow, console.width) is not narrow:
        console.print(fitted(_narrow_table(streams), width=0))
        return
    console.print(narrow)
    for stream in streams:
        parts = [_reason_text(stream), _label_text(stream), stream.url]
        console.print(Text(f"{stream.id}: {'  '.join(part for part in parts if part)}", style="dim"), soft_wrap=True)


def _reason_text(stream: Stream) -> str:
    return why(stream) if stream.status.reason or stream.status.detail else ""


def _card(stream: Stream) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    video = stream.video
    rows: list[tuple[str, str | Text]] = [
        ("id", Text(stream.id, style="bold")),
        ("state", _state_text(stream)),
        ("progress", _progress_text(stream)),
        ("url", stream.url),
        ("video", _video_text(video) if video else "not opened yet"),
        *_live_rows(stream),
        ("analysed", f"{stream.sample_fps} frames/s, at most {stream.max_side_px} px"),
        ("recorded at", iso(stream.recorded_at) if stream.recorded_at else ""),
        ("registered at", iso(stream.created_at)),
        ("pictures", "may be seen" if stream.preview else ""),
        ("labels", _label_text(stream)),
        ("revision", str(stream.revision)),
    ]
    for name, value in rows:
        if value:
            table.add_row(name, value if isinstance(value, Text) else Text(value))
    return table


def _state_text(stream: Stream) -> Text:
    text = Text(stream.status.state, style=STATE_STYLES.get(stream.status.state, ""))
    if stream.status.state == StreamState.FAILED or stream.status.reason or stream.status.detail:
        text.append(f" ({why(stream)})", style="dim")
    return text


def why(stream: Stream) -> str:
    """Return why a stream is in its state, for people."""
    return ": ".join(part for part in (stream.status.reason, stream.status.detail) if part) or "no reason is known"


def _live_rows(stream: Stream) -> list[tuple[str, str | Text]]:
    if stream.lane != StreamClass.LIVE:
        return []
    status = stream.status
    offset_ms = status.clock_offset_ms
    way = [str(stream.transport).upper()] if stream.transport else []
    if stream.tls_verify is False:
        way.append("its certificate is not checked")
    if stream.has_credentials:
        way.append("with user name and password")
    return [
        ("reached by", ", ".join(way)),
        ("last frame", _ago(status.last_frame)),
        ("attempts", str(status.attempts) if status.attempts else ""),
        ("next attempt", _ahead(status.next_attempt)),
        ("camera's clock", "" if offset_ms is None else _offset_text(offset_ms)),
        ("lost packets", f"{status.lost_packets:,}" if status.lost_packets else ""),
    ]


def _video_text(video: Video) -> str:
    rate = f"{video.source_fps} frames/s" if video.source_fps else ""
    return ", ".join(part for part in (f"{video.width}x{video.height} px", video.codec, rate) if part)


def _offset_text(offset_ms: int) -> str:
    tenths = round(abs(offset_ms) / 100)
    if not tenths:
        return "as this one"
    return f"{tenths / 10:.1f} s {'ahead of' if offset_ms > 0 else 'behind'} this one"


def _ago(moment: datetime | None) -> str:
    return "" if moment is None else f"{max(0.0, _now_s() - moment.timestamp()):.0f} s ago"


def _ahead(moment: datetime | None) -> str:
    return "" if moment is None else f"in {max(0.0, moment.timestamp() - _now_s()):.0f} s"


def _now_s() -> float:
    return SystemClock().now_s()


def _live_text(stream: Stream) -> str:
    status = stream.status
    parts = ["" if status.fps is None else f"{status.fps:.1f} fps", _ago(status.last_frame)]
    if status.attempts:
        parts.append(f"{status.attempts} attempts")
    if status.next_attempt:
        parts.append(f"next {_ahead(status.next_attempt)}")
    return ", ".join(part for part in parts if part)


def position_text(stream: Stream) -> str:
    """Return how far a file is, or how a camera does, for people."""
    progress = stream.progress
    if progress.position_s is None:
        return _live_text(stream)
    text = clock_text(progress.position_s)
    if progress.duration_s is not None:
        text += f" of {clock_text(progress.duration_s)}"
    return text if progress.percent is None else f"{text} ({progress.percent:.0f}%)"


def _progress_text(stream: Stream) -> str:
    return ", ".join(part for part in (position_text(stream), f"{stream.progress.frames:,} frames") if part)


def _label_text(stream: Stream) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(stream.labels.items()))
