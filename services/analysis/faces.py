"""The rows of every face of an analysis, with the tracks and smoothed emotions that the timeline has."""

from collections.abc import Iterable, Iterator

from moodline.services.aggregator.tracker import StreamTracker, TrackedFace
from moodline.services.analysis.analyze import Analysis
from moodline.services.report.faces import FaceRow, face_rows
from moodline.shared.messages import Emotions, StreamClass
from moodline.shared.settings import AggregatorSettings


def track_frames(frames: Iterable[Emotions], settings: AggregatorSettings) -> Iterator[tuple[Emotions, list[TrackedFace]]]:
    """Yield each frame of a stream with its tracked faces, as the timeline has them; a new session follows nobody across."""
    tracker, session = StreamTracker(settings), None
    for message in frames:
        if message.lane is StreamClass.LIVE and session not in (None, message.session):
            tracker.end_all()
        session = message.session
        yield message, tracker.observe(message)


def analysis_rows(analysis: Analysis, settings: AggregatorSettings) -> Iterator[FaceRow]:
    """Yield a row for each face of each sampled frame, and one for each frame without faces."""
    spec, size_px = analysis.spec, (analysis.status.width, analysis.status.height)
    origin_us = spec.recorded_at_us if spec.lane is StreamClass.FILE else None
    for message, tracked in track_frames(analysis.frames(), settings):
        yield from face_rows(message, [(face.track_id, face.smoothed) for face in tracked], size_px, origin_us)
