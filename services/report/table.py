"""A timeline as a table in the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from moodline.services.report.document import PointDocument, TimelineDocument
from moodline.services.report.moments import clock_text, length_text
from moodline.services.report.palette import EMOTION_COLORS, EMOTION_COLORS_16, GAP_NAMES
from moodline.shared.emotions import EMOTIONS

BAR_CELLS: Final = 28
_ROOM_FOR_BAR: Final = 110
_ROOM_FOR_THREE: Final = 100
_ROOM_FOR_WHOLE_LINES: Final = 60


def palette_of(color_system: str | None) -> Mapping[str, str] | None:
    """Return the seven colours for a terminal, by rich's name of its colour system; None for one without colours."""
    if color_system in ("256", "truecolor"):
        return EMOTION_COLORS
    return None if color_system is None else EMOTION_COLORS_16


def timeline_table(document: TimelineDocument, *, palette: Mapping[str, str] | None = None, width: int = 80) -> Table:
    """Return a table with a row per point; neighbouring points that are empty for the same reason share one.

    Numbers and words say all there is; colours and bars say it again. Times are media time for files, and UTC for live streams.

    Args:
        document: The timeline.
        palette: Colour of each emotion; None: no colour.
        width: Characters of a line. Narrow tables name two emotions in place of three, and have no bars; very narrow ones name
            the leading one, and break lines at spaces.
    """
    runs = list(_runs(document.points))
    times = [_time(document, run) for run in runs]
    has_bar = palette is not None and width >= _ROOM_FOR_BAR
    table = Table(
        title=Text(_title(document)),
        title_justify="left",
        title_style="bold",
        caption=_caption(document, palette if has_bar else None),
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE_HEAD,
    )
    is_narrow = width < _ROOM_FOR_WHOLE_LINES
    # The column that identifies a row is never cut.
    least = max((len(word) for time in times for word in (time.split() if is_narrow else [time])), default=4)
    table.add_column("time", justify="right", no_wrap=not is_narrow, min_width=least)
    if not is_narrow:
        table.add_column("mostly", no_wrap=True, min_width=8)
    table.add_column("emotions", no_wrap=not is_narrow)
    if has_bar:
        table.add_column("", no_wrap=True, min_width=BAR_CELLS)
    table.add_column("faces", justify="right", no_wrap=True)
    table.add_column("frames", justify="right", no_wrap=True)
    for time, run in zip(times, runs, strict=True):
        first = run[0]
        style = palette[first.dominant] if palette and first.dominant else ""
        mostly = Text(first.dominant, style=style) if first.dominant else Text("-", style="dim")
        table.add_row(
            time,
            *([] if is_narrow else [mostly]),
            _words(first, 3 if width >= _ROOM_FOR_THREE else 1 if is_narrow else 2),
            *([_bar(first, palette)] if has_bar and palette is not None else []),
            str(sum(point.faces for point in run)),
            _frames(run),
        )
    return table


def _title(document: TimelineDocument) -> str:
    if not document.points:
        return document.stream
    title = f"{document.stream} · {length_text(document.resolution_s)} per row"
    if document.points[0].position_s is None:
        title += f" · {document.start:%Y-%m-%d} UTC" if _is_one_day(document) else " · UTC"
    return title


def _caption(document: TimelineDocument, palette: Mapping[str, str] | None) -> Text:
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
    if palette is not None:
        text.append("\n")
        for emotion in EMOTIONS:
            text.append("█ ", style=palette[emotion]).append(f"{emotion}  ")
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
    first, last = run[0], run[-1]
    if first.position_s is not None and last.position_s is not None:
        begin, end = clock_text(first.position_s), clock_text(last.position_s + document.resolution_s)
    else:
        form = "%H:%M:%S" if _is_one_day(document) else "%m-%d %H:%M:%S"
        begin, end = f"{first.start:{form}}", f"{last.start + timedelta(seconds=document.resolution_s):{form}}"
    return begin if len(run) == 1 else f"{begin} to {end}"


def _is_one_day(document: TimelineDocument) -> bool:
    return document.start.date() == document.end.date()


def _bar(point: PointDocument, palette: Mapping[str, str]) -> Text:
    """Return mean probabilities as a bar of coloured cells."""
    bar = Text()
    drawn, sum_so_far = 0, 0.0
    for emotion in EMOTIONS:
        sum_so_far += (point.smoothed or {}).get(emotion, 0.0)
        until = min(BAR_CELLS, round(sum_so_far * BAR_CELLS))
        bar.append("█" * (until - drawn), style=palette[emotion])
        drawn = max(drawn, until)
    return bar


def _words(point: PointDocument, count: int) -> Text:
    """Return the strongest emotions with their mean probabilities, or why there are none."""
    if point.smoothed is None:
        return Text(GAP_NAMES[point.empty] if point.empty else "", style="dim italic")
    best = sorted(point.smoothed.items(), key=lambda item: -item[1])[:count]
    return Text(", ".join(f"{emotion} {value:.0%}" for emotion, value in best))


def _frames(run: Sequence[PointDocument]) -> str:
    sampled, classified = sum(point.sampled for point in run), sum(point.classified for point in run)
    return str(sampled) if sampled == classified else f"{classified} of {sampled}"
