"""`moodline timeline`: a stream's timeline as table, JSON, CSV or picture. Asks the API."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from moodline import Timeline
from moodline.services.cli.connection import open_client
from moodline.services.cli.console import TableConsole
from moodline.services.report import palette_of, plot_timeline, timeline_csv, timeline_table
from moodline.services.report.document import TimelineDocument
from moodline.services.report.export import timeline_json
from moodline.services.report.outputs import STDOUT, Output, check_outputs, shown
from moodline.services.report.plot import FORMATS
from moodline.shared.errors import OutputError

TABLE_POINTS: Final = 60
"""Rows that a terminal can be scrolled through, where the user asks for no other number."""


class Format(StrEnum):
    """The output formats of a timeline."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def timeline(  # noqa: PLR0913  # one for each option
    stream_id: Annotated[str, typer.Argument(metavar="ID", help="The stream's id.", show_default=False)],
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="ISO 8601, seconds since 1970, now, or relative like -1h or now-5m.",
            show_default="the beginning of what is kept",
        ),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="The same; not included.", show_default="the end")] = None,
    resolution: Annotated[
        str | None, typer.Option(help="Length of a point: 1s, 10s, 1min, 10min, 1h.", show_default="what fits")
    ] = None,
    max_points: Annotated[
        int | None,
        typer.Option(
            min=2, help="The finest points of which there are at most so many.", show_default="60 rows of a table, else 600"
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TABLE,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw it into this file (.png, .svg or .pdf).", show_default="not drawn")
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a picture that is there.")] = False,
) -> None:
    """Show a stream's timeline. Relative times count from a file's end, from the present for a live stream."""
    if resolution is not None and max_points is not None:
        raise typer.BadParameter("give --resolution or --max-points, not both", param_hint="--max-points")
    if max_points is None and resolution is None and output is Format.TABLE and plot is None:
        max_points = TABLE_POINTS
    if plot is not None:
        judge_plot(plot, force=force)
    with open_client() as client:
        answer = client.timeline(stream_id, start=start, end=end, resolution=resolution, max_points=max_points)
    document = document_of(answer)
    print_timeline(document, output)
    if plot is not None:
        plot_timeline(document, plot)
        typer.echo(f"drawn into {shown(plot)}", err=True)


def judge_plot(path: Path, *, force: bool) -> None:
    """Make sure that a picture can be drawn into a file. Raises `OutputError`."""
    if path == STDOUT:
        raise OutputError("--plot writes a file, and cannot write to standard output")
    check_outputs([Output("--plot", path, tuple(f".{name}" for name in FORMATS))], [], force=force)


def document_of(timeline: Timeline) -> TimelineDocument:
    """Return a timeline that the API answered in the form from which reports are made."""
    return TimelineDocument.model_validate_json(timeline.to_json())


def print_timeline(document: TimelineDocument, output: Format) -> None:
    """Print a timeline on standard output."""
    if output is Format.TABLE:
        console = TableConsole()
        console.print(timeline_table(document, palette=palette_of(console.color_system), width=console.width))
        if document.coarser_than_asked:
            typer.echo("the asked resolution is no longer kept for this window", err=True)
    else:
        sys.stdout.write(timeline_json(document) if output is Format.JSON else timeline_csv(document))
