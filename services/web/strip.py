"""The small live strip of a stream's mood, as SVG. Pure: numbers and fixed words only, nothing that a user wrote."""

from itertools import groupby
from typing import Final

from moodline.services.report.document import PointDocument, TimelineDocument
from moodline.services.report.palette import GAP_NAMES, STACK
from moodline.shared.timeline.points import EmptyReason

HEIGHT: Final = 40
_WIDTH: Final = 300


def strip_svg(document: TimelineDocument | None) -> str:
    """Return the mood over a window as a picture with a text for those who do not see it."""
    points = document.points if document is not None else []
    body = _layers(points) if points else ""
    hint = "" if points else "<span>nothing yet</span>"
    return (
        f'<div class="strip-box"><svg class="strip" viewBox="0 0 {_WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{_text(document)}">{body}</svg>{hint}</div>'
    )


def hatch_patterns() -> str:
    """Return the patterns that gaps are filled with; once per page."""
    patterns = "".join(
        f'<pattern id="gap-{reason}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<path d="{path}" class="hatch"/></pattern>'
        for reason, path in _HATCHES.items()
    )
    return f'<svg width="0" height="0" class="defs" aria-hidden="true"><defs>{patterns}</defs></svg>'


_HATCHES: Final[dict[EmptyReason, str]] = {
    EmptyReason.NO_FACE: "M-2 10 10 -2M-2 2 2 -2M6 10 10 6",
    EmptyReason.UNREADABLE: "M-1 4H9M4 -1V9",
    EmptyReason.CORRUPT: "M4 -1V9",
    EmptyReason.OVERLOADED: "M0 0 8 8M0 8 8 0",
    EmptyReason.NOT_SAMPLED: "M4 3.9v.2M0 0v.2",
    EmptyReason.OFFLINE: "M-2 -2 10 10M-2 6 2 10M6 -2 10 2",
}


def _layers(points: list[PointDocument]) -> str:
    width = _WIDTH / len(points)
    parts: list[str] = []
    index = 0
    for reason, group in groupby(points, key=lambda point: point.empty):
        run = list(group)
        left, right = index * width, (index + len(run)) * width
        if reason is None:
            parts += _areas(run, left, width)
        else:
            box = f'x="{left:.1f}" y="0" width="{right - left:.1f}" height="{HEIGHT}"'
            parts.append(f'<rect class="gap" {box} fill="url(#gap-{reason})"><title>{GAP_NAMES[reason]}</title></rect>')
        index += len(run)
    return "".join(parts)


def _areas(run: list[PointDocument], left: float, width: float) -> list[str]:
    """One stepped area per emotion, each drawn from its top edge down to the ground, the topmost first."""
    tops = [0.0] * len(run)
    areas: list[str] = []
    for emotion in STACK:
        tops = [top + (point.smoothed or {}).get(emotion, 0.0) for top, point in zip(tops, run, strict=True)]
        steps = "".join(f"V{HEIGHT * (1 - min(1.0, top)):.1f}H{left + (index + 1) * width:.1f}" for index, top in enumerate(tops))
        areas.append(f'<path class="e-{emotion}" d="M{left:.1f} {HEIGHT}{steps}V{HEIGHT}Z"/>')
    return areas[::-1]


def _text(document: TimelineDocument | None) -> str:
    if document is None or not document.points:
        return "no timeline yet"
    summary = document.summary
    if summary.dominant is None or summary.shares is None:
        return "mood: " + (GAP_NAMES[summary.empty] if summary.empty is not None else "nothing yet")
    gaps = sum(point.empty is not None for point in document.points)
    text = f"mood: mostly {summary.dominant}, {summary.shares[summary.dominant]:.0%}"
    return f"{text}; {gaps / len(document.points):.0%} of the time without faces" if gaps else text
