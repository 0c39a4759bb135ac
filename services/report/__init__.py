"""Showing a timeline: as a document (JSON), as CSV, as a table in the terminal, and as a picture.

All of them start from a `TimelineDocument`, which `timeline_document` makes of the store's answer and the API sends.
"""

from moodline.services.report.document import (
    PointDocument,
    SummaryDocument,
    TimelineDocument,
    summary_document,
    timeline_document,
)
from moodline.services.report.export import timeline_csv, timeline_json
from moodline.services.report.outputs import write_output
from moodline.services.report.palette import EMOTION_COLORS
from moodline.services.report.plot import plot_timeline
from moodline.services.report.table import palette_of, timeline_table

__all__ = [
    "EMOTION_COLORS",
    "PointDocument",
    "SummaryDocument",
    "TimelineDocument",
    "palette_of",
    "plot_timeline",
    "summary_document",
    "timeline_csv",
    "timeline_document",
    "timeline_json",
    "timeline_table",
    "write_output",
]
