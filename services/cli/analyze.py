"""`moodline analyze`: one video file, from start to end, in this process."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from moodline.services.cli.trouble import Verbose, is_verbose, logs_only_if_wanted, note_verbose
from moodline.services.report import (
    TimelineDocument,
    plot_timeline,
    timeline_csv,
    timeline_document,
    timeline_json,
    timeline_table,
    write_output,
)
from moodline.services.report.moments import to_us
from moodline.shared.errors import InvalidStreamError, SourceError
from moodline.shared.log import configure_logging
from moodline.shared.messages import StreamClass
from moodline.shared.settings import Settings, load_settings
from moodline.shared.streams import FailureReason, StreamSpec, parse_sample_fps
from moodline.shared.timeline import TimelineQuery, parse_resolution, timeline

if TYPE_CHECKING:
    from moodline.services.analysis.analyze import Analysis, AnalysisProgress

_TABLE_POINTS = 40


def analyze(  # noqa: PLR0913, PLR0917  # one for each option
    context: typer.Context,
    clip: Annotated[str, typer.Argument(help="A video file, or a built-in scene such as synthetic://astronaut.")],
    sample_fps: Annotated[str, typer.Option(help="Frames per second to analyse, or `all`.")] = "",
    resolution: Annotated[str, typer.Option(help="Length of a point, such as 1s or 10s; by default what fits.")] = "",
    recorded_at: Annotated[str, typer.Option(help="When it was recorded, ISO 8601; without it, times count from zero.")] = "",
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the timeline as JSON.")] = None,
    csv_path: Annotated[Path | None, typer.Option("--csv", help="Write the timeline as CSV.")] = None,
    plot_path: Annotated[Path | None, typer.Option("--plot", help="Draw the timeline as a PNG.")] = None,
    annotate_path: Annotated[Path | None, typer.Option("--annotate", help="Write a video with boxes and emotions.")] = None,
    *,
    verbose: Verbose = False,
) -> None:
    """Analyse one video file and show its emotion timeline."""
    from moodline.services.analysis.analyze import run_analysis

    note_verbose(context, verbose)
    settings = load_settings()
    configure_logging(settings.log.level if is_verbose() or settings.log.level != "info" else "error", settings.log.format)
    quiet = logs_only_if_wanted(is_verbose() or settings.log.level != "info")
    spec, settings = make_spec(clip, sample_fps, recorded_at, settings)
    console = Console(stderr=True)
    with quiet, progress_bar(console) as bar:
        task = bar.add_task("loading models", total=None)
        with run_analysis(
            settings, spec, keep_frames=annotate_path is not None, on_progress=lambda now: show_progress(bar, task, now)
        ) as analysis:
            bar.update(task, description="done", completed=1, total=1)
            bar.stop()
            _report(analysis, Path(clip).name, resolution, json_path, csv_path, plot_path)
            if annotate_path is not None:
                _annotate(analysis, settings, annotate_path)
                console.print(f"wrote {annotate_path}")
            frames = analysis.frames_in_timeline
            console.print(f"{frames} frames in {analysis.elapsed_s:.1f} s, {frames / analysis.elapsed_s:.0f} frames/s")


def make_spec(clip: str, sample_fps: str, recorded_at: str, settings: Settings) -> tuple[StreamSpec, Settings]:
    """Return the stream of a path or URL, and settings whose media root holds it.

    Raises:
        SourceError, InvalidStreamError: what is wrong with the arguments.
    """
    from moodline.services.analysis.analyze import STREAM_ID

    rate = sample_fps or settings.ingest.sample_fps
    parse_sample_fps(rate)
    if clip.startswith("synthetic:"):
        url = clip
    else:
        path = Path(clip)
        if not path.exists():
            raise SourceError(FailureReason.NOT_FOUND, f"{clip}: there is no such file")
        path = path.resolve()
        url = path.as_uri()
        settings = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"media_root": path.parent})})
    spec = StreamSpec(
        stream_id=STREAM_ID,
        url=url,
        sample_fps=rate,
        max_side_px=settings.ingest.max_side_px,
        recorded_at_us=_parse_recorded_at(recorded_at),
    )
    return spec, settings


def progress_bar(console: Console) -> Progress:
    """Return the progress bar of a running analysis, on standard error."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())


def show_progress(bar: Progress, task: TaskID, now: "AnalysisProgress") -> None:
    """Show how far an analysis is."""
    description = f"{now.frames} frames" if now.frames else "loading models"
    if now.duration_us:
        bar.update(task, description=description, completed=min(now.media_us, now.duration_us), total=now.duration_us)
    else:
        bar.update(task, description=description)


def _parse_recorded_at(text: str) -> int:
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidStreamError("recorded_at", f"recorded_at {text!r} is not ISO 8601, such as 2026-05-01T12:00:00Z") from None
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _document(analysis: "Analysis", name: str, query: TimelineQuery) -> TimelineDocument:
    spec = analysis.spec
    answer = timeline(analysis.store, spec.stream_id, StreamClass.FILE, query)
    return timeline_document(answer, stream=name, lane=StreamClass.FILE, recorded_at_us=spec.recorded_at_us)


def _report(
    analysis: "Analysis", name: str, resolution: str, json_path: Path | None, csv_path: Path | None, plot_path: Path | None
) -> None:
    asked = parse_resolution(resolution) if resolution else None
    fine = _document(analysis, name, TimelineQuery(resolution_s=asked))
    if json_path is not None:
        write_output(json_path, timeline_json(fine))
    if csv_path is not None:
        write_output(csv_path, timeline_csv(fine))
    if plot_path is not None:
        plot_timeline(fine, plot_path)
    shown = fine if asked else _document(analysis, name, TimelineQuery(max_points=_TABLE_POINTS))
    Console().print(timeline_table(shown))


def _annotate(analysis: "Analysis", settings: Settings, path: Path) -> None:
    from moodline.services.aggregator.tracker import StreamTracker
    from moodline.services.analysis.annotate import make_overlays, write_annotated
    from moodline.services.ingest.file.open import open_source
    from moodline.services.ingest.media.sampling import Sampler

    overlays = make_overlays(analysis.frames, StreamTracker(settings.aggregator))
    source = open_source(analysis.spec.url, settings.ingest)
    try:
        write_annotated(source, Sampler(analysis.spec.sample_fps), overlays, path)
    finally:
        source.close()
