"""A timeline as a picture: emotions over time, gaps with their reason, and how many faces there were."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moodline.services.report.document import PointDocument, TimelineDocument
from moodline.services.report.moments import clock_text, length_text, to_datetime, to_us
from moodline.services.report.outputs import write_output
from moodline.services.report.palette import EMOTION_COLORS, GAP_HATCHES, GAP_NAMES, STACK
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import OutputError
from moodline.shared.timeline.points import EmptyReason

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS: Final = ("png", "svg", "pdf")

_INK, _FAINT, _PAPER = "#222222", "#767676", "#F6F6F4"
_TICK_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_MOST_TICKS: Final = 9
_MINUTE_S, _DAY_S = 60, 86_400


def plot_timeline(document: TimelineDocument, path: Path) -> None:
    """Draw a timeline into a file; its extension says whether PNG, SVG or PDF.

    Raises:
        OutputError: the format is unknown, the file cannot be written, or matplotlib is not installed.
    """
    file_format = path.suffix.removeprefix(".").lower()
    if file_format not in FORMATS:
        raise OutputError(f"{path} has no extension that says which picture to draw; end it with .png, .svg or .pdf")
    write_output(path, render_timeline(document, file_format))


def render_timeline(document: TimelineDocument, file_format: str = "png") -> bytes:
    """Return a timeline as the bytes of a picture. Draws without a display and without global state.

    Raises:
        OutputError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError as error:
        raise OutputError(f"drawing needs the package {error.name}: pip install 'moodline[plot]'") from None
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.12, hspace=0.02)
    figure = Figure(figsize=(12, 5.6), dpi=150, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    _draw(figure, document)
    image = BytesIO()
    # No creation date: the same timeline gives the same bytes.
    metadata: dict[str, Any] = {} if file_format == "png" else {"Date" if file_format == "svg" else "CreationDate": None}
    figure.savefig(image, format=file_format, metadata=metadata)
    return image.getvalue()


def _draw(figure: Figure, document: TimelineDocument) -> None:
    emotions, faces = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    for axes in (emotions, faces):
        _style(axes)
    start_s, end_s = _span(document)
    emotions.set_xlim(start_s, end_s)
    emotions.set_ylim(0, 1)
    emotions.set_yticks((0, 0.25, 0.5, 0.75, 1), ("0", "25%", "50%", "75%", "100%"))
    emotions.set_ylabel("share of emotions", color=_FAINT)
    emotions.tick_params(labelbottom=False)
    for run in _runs(document.points):
        if run[0].smoothed is not None:
            _draw_emotions(emotions, document, run)
        elif run[0].empty is not None:
            _draw_gap(emotions, document, run, run[0].empty)
    _draw_faces(faces, document)
    _draw_time(faces, document, start_s, end_s)
    _draw_title(emotions, document)
    _draw_legend(emotions, document)


def _style(axes: Axes) -> None:
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#BBBBBB")
    axes.tick_params(length=0, labelsize=9.5, labelcolor=_INK, pad=5)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)


def _seconds(point: PointDocument) -> float:
    """Return where a point begins on the x axis: media time for files, else since the Unix epoch, in s."""
    return point.position_s if point.position_s is not None else to_us(point.start) / 1e6


def _span(document: TimelineDocument) -> tuple[float, float]:
    if not document.points:
        return 0.0, 1.0
    start_s = _seconds(document.points[0])
    return start_s, start_s + len(document.points) * document.resolution_s


def _runs(points: Sequence[PointDocument]) -> list[list[PointDocument]]:
    """Cut a timeline into stretches with emotions and stretches that are empty for one reason."""
    return [list(run) for _, run in groupby(points, key=lambda point: point.empty)]


def _draw_emotions(axes: Axes, document: TimelineDocument, run: Sequence[PointDocument]) -> None:
    half_s = document.resolution_s / 2
    centres = [_seconds(point) + half_s for point in run]
    # The first and last value reach to the edges of their buckets, so that a run is as wide as the time it stands for.
    x = [centres[0] - half_s, *centres, centres[-1] + half_s]
    lower = [0.0] * len(x)
    for emotion in STACK:
        values = [point.smoothed[emotion] for point in run if point.smoothed is not None]
        upper = [base + value for base, value in zip(lower, [values[0], *values, values[-1]], strict=True)]
        axes.fill_between(x, lower, upper, facecolor=EMOTION_COLORS[emotion], edgecolor="white", linewidth=0.6)
        lower = upper


def _draw_gap(axes: Axes, document: TimelineDocument, run: Sequence[PointDocument], reason: EmptyReason) -> None:
    from matplotlib.patches import Rectangle

    start_s, width_s = _seconds(run[0]), len(run) * document.resolution_s
    hatch = GAP_HATCHES[reason]
    axes.add_patch(Rectangle((start_s, 0), width_s, 1, facecolor=_PAPER, edgecolor="#C4C4C0", hatch=hatch, linewidth=0))
    share_of_width = len(run) / len(document.points)
    if share_of_width > 0.035:
        axes.text(
            start_s + width_s / 2,
            0.5,
            GAP_NAMES[reason],
            rotation=0 if share_of_width > 0.12 else 90,
            ha="center",
            va="center",
            fontsize=10,
            color="#555555",
            bbox={"facecolor": _PAPER, "edgecolor": "none", "boxstyle": "round,pad=0.35"},
        )


def _draw_faces(axes: Axes, document: TimelineDocument) -> None:
    edges = [_seconds(point) for point in document.points]
    means = [point.faces / point.classified if point.classified else 0.0 for point in document.points]
    if edges:
        edges.append(edges[-1] + document.resolution_s)
        axes.stairs(means, edges, fill=True, color="#5B6770")
    for run in _runs(document.points):
        if not any(point.classified for point in run):
            # No frame was analysed, so the number of faces is unknown, not zero.
            start_s = _seconds(run[0])
            axes.axvspan(start_s, start_s + len(run) * document.resolution_s, facecolor=_PAPER, linewidth=0)
    top = max([1.0, *means])
    axes.set_ylim(0, top * 1.08)
    axes.set_yticks((0, round(top, 1)), ("0", f"{top:.1f}".removesuffix(".0")))
    axes.set_ylabel("faces\nper frame", color=_FAINT)


def _draw_time(axes: Axes, document: TimelineDocument, start_s: float, end_s: float) -> None:
    step_s = next((step for step in _TICK_STEPS_S if (end_s - start_s) / step <= _MOST_TICKS), None)
    if step_s is None:
        step_s = -(-int(end_s - start_s) // (_MOST_TICKS * _DAY_S)) * _DAY_S
    first = -int(-start_s // step_s)
    ticks = [number * step_s for number in range(first, int(end_s // step_s) + 1)]
    is_file = document.recorded_at is not None
    labels = [clock_text(tick) if is_file else _wall_text(tick, step_s, dated=tick == ticks[0]) for tick in ticks]
    axes.set_xticks(ticks, labels)
    axes.set_xlabel("time in the file" if is_file else "time (UTC)", color=_FAINT, labelpad=6)


def _wall_text(tick_s: float, step_s: float, *, dated: bool) -> str:
    moment = to_datetime(round(tick_s * 1e6))
    if step_s >= _DAY_S:
        return f"{moment:%d %b}"
    text = f"{moment:%H:%M:%S}" if step_s < _MINUTE_S else f"{moment:%H:%M}"
    return f"{text}\n{moment:%d %b}" if dated or tick_s % _DAY_S == 0 else text


def _draw_title(axes: Axes, document: TimelineDocument) -> None:
    summary = document.summary
    # As it is: a name may hold `$`, which would begin a formula.
    title = axes.set_title(document.stream, loc="left", fontsize=16, fontweight="bold", color=_INK, pad=28)
    title.set_parse_math(False)
    parts = [f"{length_text(document.resolution_s)} per point", f"{summary.sampled:,} frames", f"{summary.faces:,} faces"]
    if summary.dominant is not None and summary.shares is not None:
        parts.append(f"mostly {summary.dominant} ({summary.shares[summary.dominant]:.0%})")
    if summary.sampled and summary.coverage < 1:
        parts.append(f"{summary.coverage:.1%} of the frames were looked at")
    text = " · ".join(parts) if document.points else "nothing is in the timeline here yet"
    axes.text(0, 1.035, text, transform=axes.transAxes, fontsize=10.5, color=_FAINT, va="bottom")


def _draw_legend(axes: Axes, document: TimelineDocument) -> None:
    from matplotlib.patches import Patch

    assert set(STACK) == set(EMOTIONS)
    handles = [Patch(facecolor=EMOTION_COLORS[emotion], label=emotion) for emotion in reversed(STACK)]
    reasons = {point.empty for point in document.points if point.empty is not None}
    for reason in sorted(reasons):
        handles.append(
            Patch(facecolor=_PAPER, edgecolor="#B0B0AC", hatch=GAP_HATCHES[reason], linewidth=0, label=GAP_NAMES[reason])
        )
    legend = axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.005, 1.02),
        frameon=False,
        fontsize=10.5,
        labelcolor=_INK,
        handlelength=1.1,
        handleheight=1.1,
        labelspacing=0.55,
    )
    legend.set_in_layout(True)
