"""Timelines as JSON and CSV, with a stable order of fields."""

import csv
import io
from typing import Final

from moodline.services.report.document import AnalysisDocument, ByEmotion, PointDocument, TimelineDocument
from moodline.services.report.moments import iso
from moodline.shared.emotions import EMOTIONS
from moodline.shared.messages import DropReason

_COUNTS: Final = ("sampled", "classified")
_FACES: Final = ("coverage", "frames_with_faces", "faces", "tracks_begun", "dominant", "empty")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Also as full-width characters, which East Asian spreadsheets take for the same."""
_VECTORS: Final = ("shares", "smoothed", "raw")
_LATER: Final = ("unreadable", "too_small")
"""The columns that came later. They follow all others, so that the others keep their places."""

CSV_FIELDS: Final = (
    "start",
    "position_s",
    *_COUNTS,
    *(f"skipped_{reason}" for reason in DropReason),
    *_FACES,
    "models",
    "final",
    *(f"{vector}_{emotion}" for vector in _VECTORS for emotion in EMOTIONS),
    *_LATER,
)
"""The columns of a timeline's CSV, in their order."""


def timeline_json(document: TimelineDocument) -> str:
    """Return the timeline as indented JSON, ending with a newline."""
    return document.model_dump_json(indent=2) + "\n"


def timeline_csv(document: TimelineDocument) -> str:
    """Return the timeline as CSV with a header (RFC 4180): one row per point, nothing in cells that have no value."""
    columns, rows = timeline_rows(document)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([csv_cell(value) for value in row.values()] for row in rows)
    return text.getvalue()


def timeline_rows(document: TimelineDocument) -> tuple[tuple[str, ...], list[dict[str, object]]]:
    """Return the columns of the timeline's CSV, and its points by these names; None where a point has no value."""
    source = _source_values(document)
    rows = [dict(zip(CSV_FIELDS, _point_values(point), strict=True)) | source for point in document.points]
    return (*CSV_FIELDS, *source), rows


def _source_values(document: TimelineDocument) -> dict[str, object]:
    """Return the columns about the file that was analysed, the same in every row; none for other timelines."""
    if not isinstance(document, AnalysisDocument):
        return {}
    return {f"source_{name}": value for name, value in document.source.model_dump().items()}


def _point_values(point: PointDocument) -> list[object]:
    """Return the values of a point in the order of `CSV_FIELDS`."""
    row: list[object] = [iso(point.start), point.position_s]
    row += [getattr(point, name) for name in _COUNTS]
    row += [point.skipped.get(reason, 0) for reason in DropReason]
    row += [getattr(point, name) for name in _FACES]
    row += [" ".join(point.models), point.final]
    for vector in _VECTORS:
        values: ByEmotion = getattr(point, vector) or {}
        row += [values.get(emotion) for emotion in EMOTIONS]
    row += [getattr(point, name) for name in _LATER]
    return row


def csv_cell(value: object) -> object:
    """Return a value as all tables of CSV have it: `true` or `false` for a flag, and no text that is taken for a formula."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return csv_text(value) if isinstance(value, str) else value


def csv_text(text: str) -> str:
    """Return a text for a cell of CSV, so that no spreadsheet takes it for a formula: it then begins with an apostrophe.

    Numbers are written as numbers, so a minus sign there stays what it is.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text
