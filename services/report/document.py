"""A timeline as a document: times in ISO 8601, values by name. What the API sends and what every report is made from."""

from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from moodline.services.report.moments import Time, to_datetime
from moodline.services.report.statistics import STATISTICS_EXAMPLE, WindowStatistics, window_statistics
from moodline.shared.emotions import EMOTIONS
from moodline.shared.messages import StreamClass
from moodline.shared.streams import StreamStatus
from moodline.shared.timeline.points import EmptyReason, Shares, TimelineAnswer, TimelinePoint

DIGITS: Final = 6


ByEmotion = dict[str, float]

_SEVEN: Final = {"angry": 0.01, "disgust": 0.0, "fear": 0.02, "happy": 0.8, "sad": 0.04, "surprise": 0.03, "neutral": 0.1}
_POINT_EXAMPLE: Final[dict[str, Any]] = {
    "start": "2026-05-01T12:00:00Z",
    "position_s": 0.0,
    "sampled": 50,
    "classified": 49,
    "skipped": {"expired": 0, "overloaded": 0, "corrupt": 1, "lost": 0},
    "coverage": 0.98,
    "frames_with_faces": 40,
    "faces": 41,
    "tracks_begun": 1,
    "unreadable": 3,
    "too_small": 2,
    "dominant": "happy",
    "shares": {**dict.fromkeys(EMOTIONS, 0.0), "happy": 0.9, "neutral": 0.1},
    "smoothed": _SEVEN,
    "raw": _SEVEN,
    "empty": None,
    "models": ["fer-seed"],
    "final": True,
}


class PointDocument(BaseModel):
    """One stretch of a timeline. `empty` says why there are no emotions; emptiness is never neutral."""

    model_config = ConfigDict(json_schema_extra={"examples": [_POINT_EXAMPLE]})

    start: Time = Field(description="Where it begins.")
    position_s: float | None = Field(description="The same as media time of the file, in s; null for live streams.")
    sampled: int = Field(description="Frames sampled: classified ones and every counted skip.")
    classified: int = Field(description="Frames that were looked at.")
    skipped: dict[str, int] = Field(description="Frames that were not, by reason.")
    coverage: float = Field(description="Share of the sampled frames that were looked at, 0 to 1.")
    frames_with_faces: int = Field(description="Frames with at least one face that could be read.")
    faces: int = Field(description="Faces over all frames that could be read; all emotions are theirs.")
    tracks_begun: int = Field(description="Faces read for the first time.")
    unreadable: int = Field(
        description="Faces over all frames from which no expression can be read: too small, dark, blurred, covered or turned "
        "away; none of them is in `faces`."
    )
    too_small: int = Field(description="Of these, faces below MOODLINE_DETECTOR_MIN_FACE_PX.")
    dominant: str | None = Field(description="The emotion that leads most faces; null where there is none.")
    shares: ByEmotion | None = Field(description="Of all faces, the share that each emotion leads.")
    smoothed: ByEmotion | None = Field(description="Mean probabilities, smoothed over time for each tracked face.")
    raw: ByEmotion | None = Field(description="Mean probabilities as the model gave them.")
    empty: EmptyReason | None = Field(
        description="Why there are no emotions: `no_face` (looked, nobody there), `unreadable` (faces, none of which could be "
        "read), `corrupt` (sampled, damaged), `overloaded` (sampled, not looked at), "
        "`not_sampled` (file: nothing sampled here), `offline` (live: nothing came); null where there are some."
    )
    models: list[str] = Field(
        description="Names of the models that looked at these frames, in order of time; more than one where the model was "
        "changed, none where nothing was looked at."
    )
    final: bool = Field(description="The point will not change any more.")


class _Window(BaseModel):
    stream: str = Field(description="Id of the stream, or name of the file.")
    lane: StreamClass
    recorded_at: Time | None = Field(description="Time of a file's first instant; null for live streams.")
    start: Time = Field(description="Start of the window.")
    end: Time = Field(description="End of the window.")


_TIMELINE_EXAMPLE: Final[dict[str, Any]] = {
    "stream": "lobby",
    "lane": "file",
    "recorded_at": "2026-05-01T12:00:00Z",
    "start": "2026-05-01T12:00:00Z",
    "end": "2026-05-01T12:00:10Z",
    "resolution_s": 10,
    "level_s": 10,
    "coarser_than_asked": False,
    "points": [_POINT_EXAMPLE],
    "summary": _POINT_EXAMPLE,
}


class TimelineDocument(_Window):
    """A window of a stream's timeline: one point for every stretch, empty ones included."""

    model_config = ConfigDict(json_schema_extra={"examples": [_TIMELINE_EXAMPLE]})

    resolution_s: int = Field(description="Length of every point, in s.")
    level_s: int = Field(description="Length of the stored buckets that the points were made of, in s.")
    coarser_than_asked: bool = Field(description="The asked resolution is no longer kept for this window.")
    points: list[PointDocument]
    summary: PointDocument = Field(description="The whole window as one point.")


SOURCE_EXAMPLE: Final[dict[str, Any]] = {
    "length_s": 10.0,
    "played_s": 6.0,
    "fps": "25",
    "width": 1280,
    "height": 720,
    "codec": "h264",
    "decoded": 150,
    "corrupt": 0,
    "lost": 0,
    "reason": "truncated",
    "detail": "6.0 of 10.0 s",
}


class SourceDocument(BaseModel):
    """The file that was analysed, and what became of its frames."""

    model_config = ConfigDict(json_schema_extra={"examples": [SOURCE_EXAMPLE]})

    length_s: float | None = Field(description="Length that the file declares, in s; null where it declares none.")
    played_s: float | None = Field(description="Length that was played, in s; null before the end.")
    fps: str = Field(description="Nominal frame rate as a fraction, or empty.")
    width: int = Field(description="Of the shown picture, in px.")
    height: int = Field(description="Of the shown picture, in px.")
    codec: str = Field(description="FFmpeg's name of the codec.")
    decoded: int = Field(description="Frames that came out of the decoder.")
    corrupt: int = Field(description="Frames that are damaged.")
    lost: int = Field(description="Of these, frames that did not come out of the decoder.")
    reason: str | None = Field(description="`truncated` or `corrupt` where the file was not read whole; else null.")
    detail: str = Field(description="One sentence about that, such as `6.0 of 10.0 s`.")


class AnalysisDocument(TimelineDocument):
    """The timeline of one file that was analysed; `end` is exact."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_TIMELINE_EXAMPLE, "source": SOURCE_EXAMPLE}]})

    source: SourceDocument


class SummaryDocument(_Window):
    """A window of a stream's timeline as one point."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "stream": "lobby",
                    "lane": "file",
                    "recorded_at": "2026-05-01T12:00:00Z",
                    "start": "2026-05-01T12:00:00Z",
                    "end": "2026-05-01T12:00:10Z",
                    "summary": _POINT_EXAMPLE,
                    "window": STATISTICS_EXAMPLE,
                }
            ]
        }
    )

    summary: PointDocument
    window: WindowStatistics = Field(description="What the window comes to: entropy, and how much of the time is covered.")


def timeline_document(answer: TimelineAnswer, *, stream: str, lane: StreamClass, recorded_at_us: int) -> TimelineDocument:
    """Return a timeline answer as a document.

    Args:
        answer: What the store says.
        stream: Id of the stream, or name of the file.
        lane: File or live.
        recorded_at_us: Time of a file's first instant, microseconds since the Unix epoch; not used for live streams.
    """
    origin_us = recorded_at_us if lane is StreamClass.FILE else None
    return TimelineDocument(
        stream=stream,
        lane=lane,
        recorded_at=None if origin_us is None else to_datetime(origin_us),
        start=to_datetime(answer.from_us),
        end=to_datetime(answer.to_us),
        resolution_s=answer.resolution_s,
        level_s=answer.tier_s,
        coarser_than_asked=answer.coarser_than_asked,
        points=[point_document(point, origin_us) for point in answer.points],
        summary=point_document(answer.summary, origin_us),
    )


def source_document(status: StreamStatus) -> SourceDocument:
    """Return what the status of a file's stream says of the file."""
    return SourceDocument(
        length_s=None if status.duration_us is None else status.duration_us / 1e6,
        played_s=None if status.played_us is None else status.played_us / 1e6,
        fps=status.source_fps,
        width=status.width,
        height=status.height,
        codec=status.codec,
        decoded=status.frames_decoded,
        corrupt=status.frames_corrupt,
        lost=status.frames_lost,
        reason=status.reason,
        detail=status.detail,
    )


def analysis_document(timeline: TimelineDocument, status: StreamStatus) -> AnalysisDocument:
    """Return the timeline of a file with what is known of the file.

    Args:
        timeline: Its timeline.
        status: Its stream's.
    """
    end = timeline.end
    if status.played_us is not None and timeline.recorded_at is not None:
        end = min(end, timeline.recorded_at + timedelta(microseconds=status.played_us))
    source = source_document(status)
    # Checked when the timeline was made: nothing is copied or checked again.
    fields = {name: getattr(timeline, name) for name in TimelineDocument.model_fields}
    return AnalysisDocument.model_construct(**(fields | {"end": end, "source": source}))


def summary_document(timeline: TimelineDocument) -> SummaryDocument:
    """Return a timeline's summary alone."""
    summary = timeline.summary
    return SummaryDocument(
        stream=timeline.stream,
        lane=timeline.lane,
        recorded_at=timeline.recorded_at,
        start=timeline.start,
        end=timeline.end,
        summary=summary,
        window=window_statistics(
            (point.empty for point in timeline.points), summary.shares, summary.dominant, summary.faces, timeline.resolution_s
        ),
    )


def by_emotion(values: Shares) -> ByEmotion:
    """Return seven values by name, rounded to what their quantisation carries."""
    return {name: round(value, DIGITS) for name, value in zip(EMOTIONS, values, strict=True)}


def point_document(point: TimelinePoint, origin_us: int | None) -> PointDocument:
    """Return one point as a document; `origin_us` is the time of a file's first instant, None for live streams."""
    reading = point.reading
    return PointDocument(
        start=to_datetime(point.start_us),
        position_s=None if origin_us is None else (point.start_us - origin_us) / 1e6,
        sampled=point.sampled,
        classified=point.classified,
        skipped=point.skipped,
        coverage=round(point.coverage, DIGITS),
        frames_with_faces=point.frames_with_faces,
        faces=point.faces,
        tracks_begun=point.tracks_begun,
        unreadable=point.unreadable,
        too_small=point.too_small,
        dominant=reading.dominant if reading else None,
        shares=by_emotion(reading.shares) if reading else None,
        smoothed=by_emotion(reading.smoothed) if reading else None,
        raw=by_emotion(reading.raw) if reading else None,
        empty=point.empty,
        models=list(point.models),
        final=point.final,
    )
