"""`moodline analyze`: video files, from start to end, in this process."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from moodline.services.cli.analysis_bar import AnalysisBar
from moodline.services.cli.analysis_plan import Options, Plan, judge_plans, make_spec, outputs_of
from moodline.services.cli.console import TableConsole, fitted
from moodline.services.cli.interruption import Interruption, interruptible
from moodline.services.cli.trouble import Verbose, is_verbose, logs_only_if_wanted, note_verbose, sentence_of
from moodline.services.report import (
    TimelineDocument,
    palette_of,
    plot_timeline,
    timeline_csv,
    timeline_json,
    timeline_table,
    write_output,
)
from moodline.services.report.faces import require_faces_format
from moodline.services.report.moments import clock_text
from moodline.services.report.outputs import STDOUT, replacing, shown
from moodline.shared.errors import MoodlineError, OutputError
from moodline.shared.log import configure_logging, masked
from moodline.shared.messages import Emotions, StreamClass
from moodline.shared.settings import Settings, load_settings
from moodline.shared.streams import stream_class_of_url
from moodline.shared.timeline import TimelineQuery, parse_resolution

if TYPE_CHECKING:
    from moodline.services.analysis.analyze import Analysis
    from moodline.services.analysis.results import Results
    from moodline.services.analysis.work import WorkFolder

_TABLE_POINTS: Final = 40
_DAMAGED: Final = 3
"""Exit code with `--strict` where a file was not read whole."""
_OUTPUTS: Final = "Outputs"


def analyze(  # noqa: PLR0913, PLR0917  # one for each option
    context: typer.Context,
    clips: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIP…",
            help="Video files, folders, patterns such as '*.mp4' or img%03d.png (with --fps), or synthetic://astronaut.",
            show_default=False,
        ),
    ],
    sample_fps: Annotated[str, typer.Option(help="Frames per second to analyse, or `all`.", show_default="5")] = "",
    resolution: Annotated[str, typer.Option(help="Length of a point, such as 1s or 10s.", show_default="what fits")] = "",
    recorded_at: Annotated[
        str,
        typer.Option(help="When it was recorded, ISO 8601, or `auto`: as the file says.", show_default="times count from zero"),
    ] = "",
    seconds: Annotated[
        float | None,
        typer.Option(help="Look at a camera (rtsp://, http://, …) for so long.", min=1, max=86_400, show_default="files only"),
    ] = None,
    fps: Annotated[
        str,
        typer.Option(
            help="Pictures are frames of one video, so many a second, such as 25.", show_default="each picture is a video"
        ),
    ] = "",
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Write the timeline as JSON; - is standard output.",
            rich_help_panel=_OUTPUTS,
            show_default="not written",
        ),
    ] = None,
    csv_path: Annotated[
        Path | None,
        typer.Option(
            "--csv", help="Write the timeline as CSV; - is standard output.", rich_help_panel=_OUTPUTS, show_default="not written"
        ),
    ] = None,
    faces_path: Annotated[
        Path | None,
        typer.Option(
            "--faces",
            help="Write each face of each frame (.csv, .ndjson, .parquet); - is NDJSON.",
            rich_help_panel=_OUTPUTS,
            show_default="not written",
        ),
    ] = None,
    plot_path: Annotated[
        Path | None,
        typer.Option(
            "--plot", help="Draw the timeline (.png, .svg, .pdf).", rich_help_panel=_OUTPUTS, show_default="not written"
        ),
    ] = None,
    annotate_path: Annotated[
        Path | None,
        typer.Option(
            "--annotate",
            help="Write a video with boxes and emotions (.mp4, .mkv, .mov, .webm).",
            rich_help_panel=_OUTPUTS,
            show_default="not written",
        ),
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace outputs that are there.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an analysis that was interrupted.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help=f"End with {_DAMAGED} where a file was not read whole.")] = False,
    verbose: Verbose = False,
) -> None:
    """Analyse video files and show their emotion timelines.

    Ctrl-C writes what there is so far; the same command with --resume goes on from there.
    """
    note_verbose(context, verbose)
    settings = load_settings()
    configure_logging(settings.log.level if is_verbose() or settings.log.level != "info" else "error", settings.log.format)
    from moodline.services.analysis.inputs import clips_of

    wanted = {"--json": json_path, "--csv": csv_path, "--faces": faces_path, "--plot": plot_path, "--annotate": annotate_path}
    options = Options(sample_fps, resolution, recorded_at, force or resume, resume, strict, seconds or 0.0)
    found = clips_of(clips, fps, live=seconds is not None)
    plans = [Plan(clip, outputs_of(clip, wanted, several=len(found) > 1), options) for clip in found]
    judge_plans(plans, force=options.force)
    quiet = logs_only_if_wanted(is_verbose() or settings.log.level != "info")
    with quiet, interruptible() as interruption:
        code = _run_all(plans, settings, interruption)
    if code:
        raise typer.Exit(code)


def _run_all(plans: Sequence[Plan], settings: Settings, interruption: Interruption) -> int:
    console = TableConsole(stderr=True)
    several = len(plans) > 1
    for number, plan in enumerate(plans):
        if interruption.asked():
            plan.failures.append("not begun")
            continue
        title = f"{number + 1}/{len(plans)} {plan.clip.name}" if several else ""
        try:
            _Work(plan, settings, interruption, console, title, shows_table=not several).run()
        except MoodlineError as error:
            if not several:
                raise
            plan.failures.append(masked(sentence_of(error, "analyze")))
            _print_line(console, f"moodline: {plan.clip.name}: {plan.failures[-1]}")
        if plan.warning:
            _print_line(console, f"moodline: warning: {plan.clip.name}: {plan.warning}")
    if several:
        table_console = TableConsole(stderr=any(plan.prints for plan in plans))
        table_console.print(fitted(_summary(plans), table_console.width))
    if interruption.asked():
        return interruption.exit_code
    if any(plan.failures for plan in plans):
        return 1
    return _DAMAGED if any(plan.warning and plan.options.strict for plan in plans) else 0


class _Work:
    """The work on one clip."""

    def __init__(
        self, plan: Plan, settings: Settings, interruption: Interruption, console: Console, title: str, *, shows_table: bool
    ) -> None:
        self._plan = plan
        self._interruption = interruption
        self._console = console
        self._title = title
        self._shows_table = shows_table
        self._spec, self._settings = make_spec(plan.clip, plan.options, settings)

    def run(self) -> None:
        """Analyse the clip and write its outputs."""
        from moodline.services.analysis.analyze import run_analysis
        from moodline.services.analysis.results import Results, warning_of
        from moodline.services.analysis.work import open_work

        if stream_class_of_url(self._spec.url) is StreamClass.LIVE:
            self._poll()
            return
        plan = self._plan
        with ExitStack() as stack:
            bar = stack.enter_context(AnalysisBar(self._console, self._title, annotates="--annotate" in plan.outputs))
            work = stack.enter_context(open_work(self._settings, self._spec, resume=plan.options.resume))
            analysis = stack.enter_context(
                run_analysis(
                    self._settings,
                    self._spec,
                    work=work,
                    on_begin=self._report_kept,
                    on_progress=bar.analysed,
                    interrupted=self._interruption.asked,
                )
            )
            plan.frames, plan.elapsed_s = analysis.frames_in_timeline, analysis.elapsed_s
            if not analysis.complete:
                work.keep = plan.frames > 0
            else:
                plan.warning = warning_of(analysis.status)
            self._write(Results(analysis, plan.clip.name, self._settings), bar, work)
            bar.close()
            self._report_end(analysis, work)

    def _poll(self) -> None:
        """Look at a camera for some seconds and write the outputs."""
        from moodline.services.analysis.analyze import AnalysisProgress
        from moodline.services.analysis.live import run_live
        from moodline.services.analysis.results import Results, Seen

        plan, seconds_us = self._plan, int(self._plan.options.seconds * 1e6)
        if "--annotate" in plan.outputs:
            raise OutputError("--annotate reads a file a second time, and a camera cannot be; leave it out")
        with (
            AnalysisBar(self._console, self._title, annotates=False) as bar,
            run_live(self._settings, self._spec) as run,
        ):
            messages: list[Emotions] = []
            for message, _ in run.frames():
                seen_us = message.event_time_us - (messages[0].event_time_us if messages else message.event_time_us)
                if seen_us >= seconds_us or self._interruption.asked():
                    break
                messages.append(message)
                bar.analysed(AnalysisProgress(len(messages), seen_us, seconds_us))
            run.close()
            if messages:
                run.settle(messages[-1].event_time_us)
            plan.frames = len(messages)
            status = run.store.statuses([run.spec.stream_id])[0]
            self._write(Results(Seen(run.store, run.spec, status, messages), plan.clip.name, self._settings), bar, None)
        for failure in plan.failures:
            _print_line(self._console, f"moodline: {failure}")

    def _write(self, results: "Results", bar: AnalysisBar, work: "WorkFolder | None") -> None:
        plan, resolution = self._plan, self._plan.options.resolution
        asked = parse_resolution(resolution) if resolution else None
        fine = results.document(TimelineQuery(resolution_s=asked))
        plan.faces, plan.summary = fine.summary.faces, _mostly(fine)
        writers: dict[str, Callable[[Path], None]] = {
            "--json": lambda path: _write_text(path, timeline_json(fine)),
            "--csv": lambda path: _write_text(path, timeline_csv(fine)),
            "--faces": lambda path: _write_faces(path, results),
            "--plot": lambda path: plot_timeline(fine, path),
        }
        for option, write in writers.items():
            self._try(option, write)
        if self._shows_table:
            bar.hide()
            shown_document = fine if asked else results.document(TimelineQuery(max_points=_TABLE_POINTS))
            table = TableConsole(stderr=plan.prints)
            table.print(timeline_table(shown_document, palette=palette_of(table.color_system), width=table.width))
        if work is None:
            return
        if "--annotate" in plan.outputs:
            self._try("--annotate", lambda path: self._annotate(path, results, bar, work))
        if plan.failures:
            work.keep = True

    def _annotate(self, path: Path, results: "Results", bar: AnalysisBar, work: "WorkFolder") -> None:
        if self._interruption.asked():
            raise OutputError(f"{shown(path)} is not begun: it is made of the whole analysis")
        bar.show()
        done = results.write_annotated(path, lambda at_s: self._goes_on(bar, at_s))
        if self._interruption.asked():
            work.keep = True
            _print_line(self._console, f"{shown(path)} ends early, at {clock_text(float(done.end_s))}")
        if done.silent:
            _print_line(self._console, f"moodline: warning: {shown(path)}: {done.silent}")

    def _goes_on(self, bar: AnalysisBar, at_s: Fraction) -> bool:
        bar.annotated(at_s)
        return not self._interruption.asked()

    def _try(self, option: str, write: Callable[[Path], None]) -> None:
        """Write one output; one that fails does not take the others along."""
        path = self._plan.outputs.get(option)
        if path is None:
            return
        try:
            write(path)
        except MoodlineError as error:
            self._plan.failures.append(f"{option}: {masked(str(error))}")
        except Exception as error:
            if is_verbose():
                raise
            self._plan.failures.append(f"{option}: {sentence_of(error, 'analyze')}")
        else:
            if path != STDOUT:
                _print_line(self._console, f"wrote {shown(path)}")

    def _report_kept(self, work: "WorkFolder") -> None:
        if work.kept is not None:
            _print_line(self._console, f"goes on after {_extent_text(work.kept)}")
        elif self._plan.options.resume:
            _print_line(self._console, "nothing is kept of this analysis, with these options; it begins at the start")
        elif work.left is not None:
            _print_line(
                self._console,
                f"an interrupted analysis of this clip is kept ({_extent_text(work.left)}); --resume goes on with it",
            )

    def _report_end(self, analysis: "Analysis", work: "WorkFolder") -> None:
        plan = self._plan
        for failure in plan.failures:
            _print_line(self._console, f"moodline: {failure}")
        if not analysis.complete:
            again = "; --resume goes on from there" if work.keep and work.can_keep else ""
            _print_line(self._console, f"moodline: interrupted after {plan.frames} frames{again}")
        elif work.keep and work.can_keep:
            _print_line(self._console, "moodline: the analysis is kept; --resume writes what is missing without analysing again")
        if plan.elapsed_s:
            speed = plan.frames / plan.elapsed_s
            _print_line(self._console, f"{plan.frames} frames in {plan.elapsed_s:.1f} s, {speed:.0f} frames/s")


def _write_text(path: Path, text: str) -> None:
    if path == STDOUT:
        _to_stdout(text.encode())
    else:
        write_output(path, text)


def _write_faces(path: Path, results: "Results") -> None:
    if path == STDOUT:
        results.write_faces(sys.stdout.buffer, "ndjson")
        sys.stdout.buffer.flush()
        return
    with replacing(path) as partial, partial.open("wb") as file:
        results.write_faces(file, require_faces_format(path))


def _to_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _print_line(console: Console, text: str) -> None:
    """Say a line on standard error, as it is: names may look like markup."""
    console.print(Text(text), soft_wrap=True, highlight=False)


def _extent_text(extent: Any) -> str:
    whole = f" of {clock_text(extent.duration_us / 1e6)}" if extent.duration_us else ""
    return f"{clock_text(extent.media_us / 1e6)}{whole}, {extent.frames} frames"


def _mostly(document: TimelineDocument) -> str:
    summary = document.summary
    if summary.dominant is None or summary.shares is None:
        return str(summary.empty or "")
    return f"{summary.dominant} {summary.shares[summary.dominant]:.0%}"


def _summary(plans: Sequence[Plan]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("clip", "frames", "faces", "mostly", "result"):
        table.add_column(title, justify="right" if title in ("frames", "faces") else "left", overflow="fold")
    for plan in plans:
        result = "; ".join(plan.failures) or plan.warning or "complete"
        table.add_row(Text(plan.clip.name), str(plan.frames), str(plan.faces), Text(plan.summary), Text(result))
    return table
