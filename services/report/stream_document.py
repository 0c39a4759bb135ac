"""A stream as clients see it: its definition, its state and how far its timeline is."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from moodline.services.report.document import SourceDocument
from moodline.services.report.moments import Time
from moodline.shared.messages import StreamClass
from moodline.shared.streams import FailureReason, StreamState, Transport

STREAM_EXAMPLE: Final[dict[str, Any]] = {
    "id": "lobby",
    "url": "file:///srv/media/lobby.mp4",
    "lane": "file",
    "transport": None,
    "tls_verify": None,
    "hint": "",
    "has_credentials": False,
    "sample_fps": "5",
    "max_side_px": 1280,
    "recorded_at": "2026-05-01T12:00:00Z",
    "labels": {"site": "berlin"},
    "paused": False,
    "preview": False,
    "attempt": 0,
    "created_at": "2026-05-02T08:30:00Z",
    "revision": 1,
    "status": {
        "state": "playing",
        "reason": None,
        "detail": "",
        "since": "2026-05-02T08:30:01.250000Z",
        "attempts": None,
        "next_attempt": None,
        "last_frame": None,
        "fps": None,
        "clock_offset_ms": None,
        "lost_packets": None,
    },
    "video": {"width": 1920, "height": 1080, "codec": "h264", "source_fps": "30000/1001"},
    "progress": {
        "frames": 151,
        "last_time": "2026-05-01T12:00:30Z",
        "position_s": 30.0,
        "duration_s": 120.0,
        "percent": 25.0,
        "complete": False,
    },
    "source": None,
}


class Status(BaseModel):
    """The present state of a stream."""

    model_config = ConfigDict(json_schema_extra={"examples": [STREAM_EXAMPLE["status"]]})

    state: StreamState = Field(
        description="`pending` (no worker has taken it yet), `connecting`, `playing`, `paused`, `ended` (all of it is in the "
        "timeline), `failed`, `stalled` (frames were sent, and none reaches the timeline; or no frame comes); live sources also "
        "`live`, `backing_off`."
    )
    reason: FailureReason | None = Field(
        None, description="Why it failed, if it did; `truncated` or `corrupt` of a file that has ended and was not read whole."
    )
    detail: str = Field("", description="One sentence for people.")
    since: Time | None = Field(None, description="When this state began, if that is known.")
    attempts: int | None = Field(None, description="Live: attempts to connect since frames last came.")
    next_attempt: Time | None = Field(None, description="Live, `backing_off`: when it is tried again.")
    last_frame: Time | None = Field(None, description="Live: when the last frame arrived.")
    fps: float | None = Field(None, description="Live: frames per second that arrive.")
    clock_offset_ms: int | None = Field(
        None, description="Live: how far the camera's clock is ahead, in ms, where it tells a time."
    )
    lost_packets: int | None = Field(None, description="Live: network packets that never came.")


class Video(BaseModel):
    """The content as decoded."""

    model_config = ConfigDict(json_schema_extra={"examples": [STREAM_EXAMPLE["video"]]})

    width: int = Field(description="In px, after rotation.")
    height: int = Field(description="In px, after rotation.")
    codec: str = Field(description="FFmpeg's name of the codec.")
    source_fps: str = Field(description="Nominal frame rate, as a fraction.")


class ProgressAnswer(BaseModel):
    """The part of the stream that is in its timeline."""

    model_config = ConfigDict(json_schema_extra={"examples": [STREAM_EXAMPLE["progress"]]})

    frames: int = Field(description="Sampled frames in the timeline, skipped ones included.")
    last_time: Time | None = Field(None, description="Time on the timeline of the last of them.")
    position_s: float | None = Field(
        None, description="Media time up to which the timeline reaches, in s; null for live streams."
    )
    duration_s: float | None = Field(None, description="Length of the content, in s, where known.")
    percent: float | None = Field(None, description="Position in the content, 0 to 100, where the length is known.")
    complete: bool = Field(description="The content has ended and all of it is in the timeline.")


class StreamAnswer(BaseModel):
    """A registered stream: its definition, what it does now, and how far its timeline is."""

    model_config = ConfigDict(json_schema_extra={"examples": [STREAM_EXAMPLE]})

    id: str
    url: str = Field(description="Canonical: links are resolved; without credentials, and `***` for what may be a secret.")
    lane: StreamClass = Field(description="`file` (finite, lossless) or `live`.")
    transport: Transport | None = Field(None, description="Of a camera; else null.")
    tls_verify: bool | None = Field(None, description="Of a camera; else null.")
    hint: str = Field(
        "", description="What was corrected in the `url` that was given; only in the answer to a request that gave one."
    )
    has_credentials: bool = Field(False, description="Whether user, password or masked parts of the URL are kept, sealed.")
    sample_fps: str
    max_side_px: int
    recorded_at: Time | None = Field(None, description="Null for cameras.")
    labels: dict[str, str]
    paused: bool
    preview: bool = Field(False, description="Its newest analysed picture may be seen.")
    attempt: int = Field(description="Raised by `resume` when a failed stream is tried again.")
    created_at: Time
    revision: int = Field(description="Raised at every change of the definition; also in the header `ETag`.")
    status: Status
    video: Video | None = Field(None, description="Null until the content has been opened.")
    progress: ProgressAnswer
    source: SourceDocument | None = Field(
        None, description="The file and what became of its frames, when it was read to its end; else null."
    )
