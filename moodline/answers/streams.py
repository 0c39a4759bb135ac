"""Streams: what they are, do and have brought; frames and files that are pushed."""

from datetime import datetime

from moodline.answers.base import Answer


class Status(Answer, frozen=True, kw_only=True):
    """The present state of a stream.

    Attributes:
        state: `pending`, `connecting`, `playing`, `paused`, `ended`, `failed`; live also `live`, `stalled`, `backing_off`.
        reason: Why it failed, if it did: `auth`, `not_found`, `unreachable`, …
        detail: One sentence for people.
        since: When this state began, if that is known.
        attempts: Live: attempts to connect since frames last came.
        next_attempt: Live, `backing_off`: when it is tried again.
        last_frame: Live: when the last frame arrived.
        fps: Live: frames per second that arrive.
        clock_offset_ms: Live: how far the camera's clock is ahead, in ms.
        lost_packets: Live: network packets that never came.
    """

    state: str
    reason: str | None = None
    detail: str = ""
    since: datetime | None = None
    attempts: int | None = None
    next_attempt: datetime | None = None
    last_frame: datetime | None = None
    fps: float | None = None
    clock_offset_ms: int | None = None
    lost_packets: int | None = None


class Video(Answer, frozen=True, kw_only=True):
    """The content as decoded: `width` and `height` in px, `codec`, and the nominal frame rate as a fraction."""

    width: int
    height: int
    codec: str
    source_fps: str


class Progress(Answer, frozen=True, kw_only=True):
    """The part of a stream that is in its timeline.

    Attributes:
        frames: Sampled frames in the timeline, skipped ones included.
        last_time: Time on the timeline of the last of them.
        position_s: Media time up to which the timeline reaches, in s; None for live streams.
        duration_s: Length of the content, in s, where known.
        percent: Position in the content, 0 to 100, where the length is known.
        complete: The content has ended and all of it is in the timeline.
    """

    frames: int
    last_time: datetime | None = None
    position_s: float | None = None
    duration_s: float | None = None
    percent: float | None = None
    complete: bool


class Source(Answer, frozen=True, kw_only=True):
    """A file that was read to its end, and what became of its frames.

    Attributes:
        length_s: Length that the file declares, in s; None where it declares none.
        played_s: Length that was played, in s.
        fps: Nominal frame rate as a fraction, or empty.
        width: Of the shown picture, in px.
        height: Of the shown picture, in px.
        codec: FFmpeg's name of the codec.
        decoded: Frames that came out of the decoder.
        corrupt: Frames that are damaged.
        lost: Of these, frames that did not come out of the decoder.
        reason: `truncated` or `corrupt` where the file was not read whole; else None.
        detail: One sentence about that.
    """

    length_s: float | None = None
    played_s: float | None = None
    fps: str
    width: int
    height: int
    codec: str
    decoded: int
    corrupt: int
    lost: int
    reason: str | None = None
    detail: str


class Stream(Answer, frozen=True, kw_only=True):
    """A registered stream: its definition, what it does now, and how far its timeline is.

    Attributes:
        id: Its name.
        url: Without credentials, and `***` for what may be a secret.
        lane: `file` or `live`.
        transport: `tcp` or `udp`; of a camera, else None.
        tls_verify: Of a camera, else None.
        hint: What was corrected in the `url` that was given; only in the answer to a request that gave one.
        has_credentials: Whether user, password or masked parts of the URL are kept, sealed.
        sample_fps: Frames per second that are analysed, as text; or `all`.
        max_side_px: Frames are reduced to at most this on the longer side.
        recorded_at: Time of a file's first instant; None for live streams.
        labels: Free key-value pairs.
        paused: Nothing is read.
        preview: Its newest analysed picture may be seen.
        attempt: Raised when a failed stream is tried again.
        created_at: When it was registered.
        revision: Raised at every change of the definition.
        status: What it does now.
        video: None until the content has been opened.
        progress: How far its timeline is.
        source: The file and what became of its frames, when it was read to its end; else None.
    """

    id: str
    url: str
    lane: str
    transport: str | None = None
    tls_verify: bool | None = None
    hint: str = ""
    has_credentials: bool = False
    sample_fps: str
    max_side_px: int
    recorded_at: datetime | None = None
    labels: dict[str, str]
    paused: bool
    preview: bool = False
    attempt: int
    created_at: datetime
    revision: int
    status: Status
    video: Video | None = None
    progress: Progress
    source: Source | None = None


class StreamPage(Answer, frozen=True, kw_only=True):
    """Some of the streams, ordered by id; `next_cursor` leads to the next ones."""

    streams: list[Stream]
    next_cursor: str | None = None


class Pushed(Answer, frozen=True, kw_only=True):
    """The result of one pushed frame.

    Attributes:
        sampled: Whether it is analysed; else `sample_fps` leaves it out.
        replaced: It took the place of a frame that was still waiting.
        time: Its place on the timeline.
        wait_ms: The sender may spare itself frames for so long, in ms: they would be left out.
    """

    sampled: bool
    replaced: bool
    time: datetime
    wait_ms: int


class PushTotals(Answer, frozen=True, kw_only=True):
    """The results of many pushed frames, as counts.

    Attributes:
        sent: Frames that the service took.
        sampled: Of these, those that are analysed.
        spared: Frames that were not sent, because they would have been left out.
        lost: Frames that came while the service was busy or not there.
    """

    sent: int = 0
    sampled: int = 0
    spared: int = 0
    lost: int = 0


class Upload(Answer, frozen=True, kw_only=True):
    """An uploaded file.

    Attributes:
        url: To register the file with.
        name: As it was given.
        bytes: Size of the file.
        duration_s: Nominal length in s, where known.
        video: What its first frame is, where the service looked.
        stream: The stream, where one was to be registered.
    """

    url: str
    name: str
    bytes: int
    duration_s: float | None = None
    video: Video | None = None
    stream: Stream | None = None
