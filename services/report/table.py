"""A timeline as a table in the terminal."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from moodline.services.report.document import PointDocument, TimelineDocument
from moodline.services.report.moments import clock_text, iso, length_text, to_datetime, to_us
from moodline.services.report.palette import EMOTION_COLORS, GAP_NAMES
from moodline.shared.emotions import EMOTIONS

BAR_CELLS: Final = 28


def timeline_table(document: TimelineDocument, *, color: bool = True) -> Table:
    """Return a table with a row per point; neighbouring points that are empty for the same reason share one.

    Times are media time for files, and UTC for live streams.

    Args:
        document: The timeline.
        color: Show emotions as coloured bars; without, as words and numbers.
    """
    table = Table(
        title=_title(document),
        title_justify="left",
        title_style="bold",
        caption=_caption(document, color=color),
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("mostly", no_wrap=True)
    table.add_column("emotions", no_wrap=True)
    table.add_column("faces", justify="right", no_wrap=True)
    table.add_column("frames", justify="right", no_wrap=True)
    for run in _runs(document.points):
        first = run[0]
        table.add_row(
            _time(document, run),
            Text(first.dominant, style=_style(first.dominant)) if first.dominant else Text("-", style="dim"),
            _bar(first) if color else _words(first),
            str(sum(point.faces for point in run)),
            _frames(run),
        )
    return table


def _title(document: TimelineDocument) -> str:
    return f"{document.stream} · {length_text(document.resolution_s)} per row" if document.points else document.stream


def _caption(document: TimelineDocument, *, color: bool) -> Text:
    if not document.points:
        return Text("nothing is in the timeline here yet")
    summary = document.summary
    parts = [f"{summary.sampled} frames", f"{summary.faces} faces"]
    if summary.sampled and summary.coverage < 1:
        parts.append(f"{summary.coverage:.1%} of the frames were looked at")
    if summary.shares is not None and summary.dominant is not None:
        parts.append(f"mostly {summary.dominant} ({summary.shares[summary.dominant]:.0%})")
    elif summary.empty is not None:
        parts.append(GAP_NAMES[summary.empty])
    text = Text(" · ".join(parts))
    if color:
        text.append("\n")
        for emotion in EMOTIONS:
            text.append("█ ", style=_style(emotion)).append(f"{emotion}  ")
    return text


def _runs(points: Sequence[PointDocument]) -> Iterator[list[PointDocument]]:
    run: list[PointDocument] = []
    for point in points:
        if run and (point.empty is None or point.empty is not run[-1].empty):
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def _time(document: TimelineDocument, run: Sequence[PointDocument]) -> str:
    if len(run) == 1:
        return _moment(run[0])
    end_us = to_us(run[-1].start) + document.resolution_s * 1_000_000
    last = run[-1].model_copy(
        update={
            "start": to_datetime(end_us),
            "position_s": None if run[-1].position_s is None else run[-1].position_s + document.resolution_s,
        }
    )
    return f"{_moment(run[0])} to {_moment(last)}"


def _moment(point: PointDocument) -> str:
    return iso(point.start) if point.position_s is None else clock_text(point.position_s)


def _bar(point: PointDocument) -> Text:
    """Return mean probabilities as a bar of coloured cells, or why there is none."""
    if point.smoothed is None:
        return _gap(point)
    bar = Text()
    drawn, sum_so_far = 0, 0.0
    for emotion in EMOTIONS:
        sum_so_far += point.smoothed[emotion]
        until = min(BAR_CELLS, round(sum_so_far * BAR_CELLS))
        bar.append("█" * (until - drawn), style=_style(emotion))
        drawn = max(drawn, until)
    return bar


def _words(point: PointDocument) -> Text:
    if point.smoothed is None:
        return _gap(point)
    best = sorted(point.smoothed.items(), key=lambda item: -item[1])[:3]
    return Text(", ".join(f"{emotion} {value:.0%}" for emotion, value in best))


def _gap(point: PointDocument) -> Text:
    return Text(GAP_NAMES[point.empty] if point.empty else "", style="dim italic")


def _frames(run: Sequence[PointDocument]) -> str:
    sampled, classified = sum(point.sampled for point in run), sum(point.classified for point in run)
    return str(sampled) if sampled == classified else f"{classified} of {sampled}"


def _style(emotion: str) -> str:
    return EMOTION_COLORS[emotion]
