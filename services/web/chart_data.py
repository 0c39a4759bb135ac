"""From a timeline document to what the page's chart draws. Pure."""

from itertools import groupby
from typing import Any, Final, TypedDict

from moodline.services.report.document import PointDocument, TimelineDocument
from moodline.services.report.moments import to_us
from moodline.services.report.palette import GAP_NAMES
from moodline.shared.emotions import EMOTIONS

_DIGITS: Final = 4
_EDGE_MS: Final = 1


class Gap(TypedDict):
    """A stretch without emotions, in ms since the Unix epoch, with its reason for machines and for people."""

    start: int
    end: int
    reason: str
    label: str


class Chart(TypedDict):
    """The data of the chart. Times are in ms since the Unix epoch.

    Attributes:
        origin: Of a file: its first instant, so that the axis counts from there; None for live streams.
        times: Where the values of `emotions` lie: bucket centres, and both edges of every run without a gap.
        emotions: By emotion, one value per time, 0 to 1; None ends a run, so that a gap stays a gap.
        faces: Per bucket its start and the faces per frame looked at; None where nobody looked.
        points: Per bucket what a click tells.
    """

    start: int
    end: int
    origin: int | None
    step: int
    times: list[int]
    emotions: dict[str, list[float | None]]
    faces: list[tuple[int, float | None]]
    gaps: list[Gap]
    points: list[dict[str, Any]]


def chart_of(document: TimelineDocument) -> Chart:
    """Return a window of a timeline as the chart draws it."""
    step = document.resolution_s * 1000
    chart = Chart(
        start=to_us(document.start) // 1000,
        end=to_us(document.end) // 1000,
        origin=None if document.recorded_at is None else to_us(document.recorded_at) // 1000,
        step=step,
        times=[],
        emotions={emotion: [] for emotion in EMOTIONS},
        faces=[(_ms(point), faces_per_frame(point)) for point in document.points],
        gaps=[],
        points=[_json_point(point) for point in document.points],
    )
    for reason, group in groupby(document.points, key=lambda point: point.empty):
        run = list(group)
        if reason is None:
            _add_run(chart, run, step)
        else:
            chart["gaps"].append(Gap(start=_ms(run[0]), end=_ms(run[-1]) + step, reason=str(reason), label=GAP_NAMES[reason]))
    return chart


def faces_per_frame(point: PointDocument) -> float | None:
    """Return faces per frame that was looked at; None where none was: that is not zero faces but an unknown number."""
    return round(point.faces / point.classified, 2) if point.classified else None


def _add_run(chart: Chart, run: list[PointDocument], step: int) -> None:
    """The first and last value reach to the edges of their buckets: a run is as wide as the time it stands for."""
    centres = [_ms(point) + step // 2 for point in run]
    chart["times"] += [_ms(run[0]), *centres, _ms(run[-1]) + step - 2 * _EDGE_MS, _ms(run[-1]) + step - _EDGE_MS]
    for emotion, values in chart["emotions"].items():
        shown = [round(point.smoothed[emotion], _DIGITS) for point in run if point.smoothed is not None]
        values += [shown[0], *shown, shown[-1], None]


def _json_point(point: PointDocument) -> dict[str, Any]:
    return {
        "start": _ms(point),
        "faces": faces_per_frame(point),
        "frames": point.classified,
        "dominant": point.dominant,
        "share": None if point.shares is None or point.dominant is None else round(point.shares[point.dominant], _DIGITS),
        "empty": None if point.empty is None else GAP_NAMES[point.empty],
    }


def _ms(point: PointDocument) -> int:
    return to_us(point.start) // 1000
