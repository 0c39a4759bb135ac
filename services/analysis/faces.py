"""The rows of every face of an analysis, with the tracks and smoothed emotions that the timeline has."""

from collections.abc import Iterable, Iterator

from moodline.services.aggregator.tracker import StreamTracker, TrackedFace
from moodline.services.report.faces import FaceRow, face_rows
from moodline.shared.messages import Emotions, StreamClass
from moodline.shared.settings import AggregatorSettings
from moodline.shared.streams import StreamSpec, StreamStatus
from moodline.shared.timeline.faces import seen_frame


def track_frames(frames: Iterable[Emotions], settings: AggregatorSettings) -> Iterator[tuple[Emotions, list[TrackedFace]]]:
    """Yield each frame of a stream with its tracked faces, as the timeline has them; a new epoch follows nobody across."""
    tracker, epoch = StreamTracker(settings), None
    for message in frames:
        if message.lane is StreamClass.LIVE and epoch not in (None, message.epoch):
            tracker.end_all()
        epoch = message.epoch
        yield message, tracker.observe(message)


def rows_of(
    frames: Iterable[Emotions], spec: StreamSpec, status: StreamStatus, settings: AggregatorSettings
) -> Iterator[FaceRow]:
    """Yield a row for each face of each sampled frame, and one for each frame without faces."""
    size_px = (status.width, status.height)
    origin_us = spec.recorded_at_us if spec.lane is StreamClass.FILE else None
    for message, tracked in track_frames(frames, settings):
        seen = seen_frame(message, message.event_time_us, [(face.track_id, face.read) for face in tracked])
        yield from face_rows(seen, size_px, origin_us)
