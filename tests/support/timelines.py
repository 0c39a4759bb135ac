"""Timeline documents to show."""

from moodline.services.report.document import TimelineDocument, timeline_document
from moodline.shared.messages import StreamClass
from moodline.shared.timeline.bucket import Bucket, merge_all
from moodline.shared.timeline.points import TimelineAnswer, make_point

START_US = 1_777_636_800_000_000
"""2026-05-01T12:00:00Z"""


def make_document(
    buckets: list[Bucket], *, lane: StreamClass = StreamClass.FILE, resolution_s: int = 1, offset_us: int = 0
) -> TimelineDocument:
    """Return the document of a timeline that begins at `START_US`; the file began `offset_us` later."""
    step_us = resolution_s * 1_000_000
    answer = TimelineAnswer(
        from_us=START_US,
        to_us=START_US + len(buckets) * step_us,
        resolution_s=resolution_s,
        tier_s=resolution_s,
        coarser_than_asked=False,
        points=[make_point(bucket, START_US + n * step_us, lane) for n, bucket in enumerate(buckets)],
        summary=make_point(merge_all(buckets), START_US, lane),
    )
    return timeline_document(answer, stream="lobby", lane=lane, recorded_at_us=START_US + offset_us)
