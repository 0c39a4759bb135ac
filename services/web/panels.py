"""Totals and faces as HTML. Pure: numbers and fixed words only, nothing that a user wrote."""

from collections.abc import Sequence

from moodline.services.report.document import ByEmotion, PointDocument
from moodline.services.report.palette import EMOTION_COLORS, GAP_NAMES, STACK
from moodline.services.report.tracks import TrackDocument
from moodline.services.web.chart_data import faces_per_frame
from moodline.services.web.words import span_text


def bars_html(values: ByEmotion, label: str) -> str:
    """Return seven bars with their names and numbers, pleasant ones first, as in the chart from the top."""
    rows = "".join(
        f'<span>{emotion}</span><span class="track" role="meter" aria-label="{emotion}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{values[emotion] * 100:.0f}">'
        f'<i class="e-{emotion}" style="width:{values[emotion] * 100:.1f}%"></i></span>'
        f'<span class="pc" aria-hidden="true">{values[emotion]:.0%}</span>'
        for emotion in reversed(STACK)
    )
    return f'<div class="bars" role="group" aria-label="{label}">{rows}</div>'


def legend_html() -> str:
    """Return the colours with their names."""
    items = "".join(f'<li><b class="swatch e-{emotion}"></b>{emotion}</li>' for emotion in reversed(STACK))
    assert set(STACK) == set(EMOTION_COLORS)
    return f'<ul class="legend" aria-label="Colours">{items}</ul>'


def totals_html(summary: PointDocument) -> str:
    """Return a window as one: what leads, the mean of each emotion, and what it is made of."""
    faces = faces_per_frame(summary)
    tiles = {
        "faces per frame": "—" if faces is None else f"{faces:.1f}",
        "new faces": f"{summary.tracks_begun:,}",
        "frames looked at": f"{summary.classified:,}",
        "coverage": f"{summary.coverage:.0%}" if summary.sampled else "—",
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles.items())
    skipped = ", ".join(f"{count:,} {reason}" for reason, count in summary.skipped.items() if count)
    note = f'<p class="soft" style="margin:12px 0 0">Not looked at: {skipped}</p>' if skipped else ""
    return f'{_lead(summary)}<dl class="tiles">{cells}</dl>{note}'


def _lead(summary: PointDocument) -> str:
    if summary.dominant is None or summary.shares is None or summary.smoothed is None:
        why = GAP_NAMES[summary.empty] if summary.empty is not None else "nothing yet"
        return f'<div class="big">—</div><p class="soft" style="margin:0">No emotions here: {why}</p>'
    return (
        f'<div class="big"><b class="swatch e-{summary.dominant}"></b>{summary.dominant}</div>'
        f'<p class="soft" style="margin:0 0 12px">leads {summary.shares[summary.dominant]:.0%} of the faces</p>'
        f"{bars_html(summary.smoothed, 'Mean of each emotion')}"
    )


def faces_html(tracks: Sequence[TrackDocument], more: int) -> str:
    """Return tracked faces, each with its bars; `more` is how many others there are."""
    if not tracks:
        return '<p class="soft" style="margin:0">No face here now.</p>'
    items = "".join(
        f"<li><h3>Face {track.track}<span>{_seen(track)}</span></h3>{bars_html(track.smoothed, f'Face {track.track}')}</li>"
        for track in tracks
    )
    rest = f'<p class="soft" style="margin:14px 0 0">and {more} more</p>' if more else ""
    return f'<ul class="faces">{items}</ul>{rest}'


def _seen(track: TrackDocument) -> str:
    length = span_text((track.last - track.first).total_seconds())
    return f"for {length}" if not track.ended else f"{length}, gone"
