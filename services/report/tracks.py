"""Tracked faces as documents."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from moodline.services.report.document import ByEmotion, by_emotion
from moodline.services.report.moments import Time, to_datetime
from moodline.shared.emotions import EMOTIONS
from moodline.shared.timeline.track_query import Track, TrackAnswer, TrackPoint, TrackReading

_HAPPY: Final[dict[str, Any]] = {**dict.fromkeys(EMOTIONS, 0.0), "happy": 0.9, "neutral": 0.1}
_TRACK_EXAMPLE: Final[dict[str, Any]] = {
    "track": 1,
    "first": "2026-05-01T12:00:00Z",
    "last": "2026-05-01T12:00:09.800000Z",
    "position_s": 0.0,
    "frames": 50,
    "dominant": "happy",
    "shares": _HAPPY,
    "smoothed": _HAPPY,
    "ended": False,
}

_POINT_EXAMPLE: Final[dict[str, Any]] = {
    "start": "2026-05-01T12:00:00Z",
    "position_s": 0.0,
    "frames": 50,
    "dominant": "happy",
    "shares": _HAPPY,
    "smoothed": _HAPPY,
    "models": ["fer-seed"],
}


class TrackDocument(BaseModel):
    """One tracked face over its whole life. A person who leaves and comes back is a new track: nobody is recognised."""

    model_config = ConfigDict(json_schema_extra={"examples": [_TRACK_EXAMPLE]})

    track: int = Field(description="Counts from 1 in each stream, in the order in which faces came.")
    first: Time = Field(description="Time of the first frame with it.")
    last: Time = Field(description="Time of the last.")
    position_s: float | None = Field(description="`first` as media time of the file, in s; null for live streams.")
    frames: int = Field(description="Frames in which it was seen.")
    dominant: str = Field(description="The emotion that leads most of these frames.")
    shares: ByEmotion = Field(description="Of these frames, the share that each emotion leads.")
    smoothed: ByEmotion = Field(description="Mean probabilities, smoothed over time.")
    ended: bool = Field(description="It will not be seen again under this number.")


class TrackPage(BaseModel):
    """Some of a stream's tracks, ordered by number."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"stream": "lobby", "tracks": [_TRACK_EXAMPLE], "next_cursor": None}]}
    )

    stream: str
    tracks: list[TrackDocument]
    next_cursor: str | None = Field(description="Send it as `cursor` to get the next page; null on the last.")


class TrackPointDocument(BaseModel):
    """One stretch of a track's timeline; emotions are null, and no model is named, where the face was not seen."""

    model_config = ConfigDict(json_schema_extra={"examples": [_POINT_EXAMPLE]})

    start: Time
    position_s: float | None = Field(description="The same as media time of the file, in s; null for live streams.")
    frames: int = Field(description="Frames in which the face was seen.")
    dominant: str | None
    shares: ByEmotion | None
    smoothed: ByEmotion | None
    models: list[str] = Field(description="Names of the models that looked at the frames, in order of time.")


class TrackTimelineDocument(BaseModel):
    """A window of one face's timeline, clipped to the face's life."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "stream": "lobby",
                    "track": _TRACK_EXAMPLE,
                    "start": "2026-05-01T12:00:00Z",
                    "end": "2026-05-01T12:00:10Z",
                    "resolution_s": 10,
                    "points": [_POINT_EXAMPLE],
                }
            ]
        }
    )

    stream: str
    track: TrackDocument
    start: Time = Field(description="Start of the first point.")
    end: Time = Field(description="End of the last point.")
    resolution_s: int = Field(description="Length of every point, in s.")
    points: list[TrackPointDocument]


def track_document(track: Track, origin_us: int | None) -> TrackDocument:
    """Return a track as a document; `origin_us` is the time of a file's first instant, None for live streams."""
    return TrackDocument(
        track=track.track_id,
        first=to_datetime(track.first_us),
        last=to_datetime(track.last_us),
        position_s=_position_s(track.first_us, origin_us),
        frames=track.faces,
        ended=track.ended,
        dominant=track.reading.dominant,
        shares=by_emotion(track.reading.shares),
        smoothed=by_emotion(track.reading.smoothed),
    )


def track_timeline_document(answer: TrackAnswer, *, stream: str, origin_us: int | None) -> TrackTimelineDocument:
    """Return a track's timeline as a document; `origin_us` as in `track_document`."""
    return TrackTimelineDocument(
        stream=stream,
        track=track_document(answer.track, origin_us),
        start=to_datetime(answer.from_us),
        end=to_datetime(answer.to_us),
        resolution_s=answer.resolution_s,
        points=[_point(point, origin_us) for point in answer.points],
    )


def _point(point: TrackPoint, origin_us: int | None) -> TrackPointDocument:
    reading: TrackReading | None = point.reading
    return TrackPointDocument(
        start=to_datetime(point.start_us),
        position_s=_position_s(point.start_us, origin_us),
        frames=point.faces,
        dominant=reading.dominant if reading else None,
        shares=by_emotion(reading.shares) if reading else None,
        smoothed=by_emotion(reading.smoothed) if reading else None,
        models=list(point.models),
    )


def _position_s(time_us: int, origin_us: int | None) -> float | None:
    return None if origin_us is None else (time_us - origin_us) / 1e6
