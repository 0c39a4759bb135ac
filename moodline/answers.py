"""What the API answers, as frozen structs. A newer Moodline may answer more fields; those are passed over."""

from datetime import datetime
from typing import Any

import msgspec

Shares = dict[str, float]
"""Seven fractions, 0 to 1, by name of the emotion."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything that the API answers."""

    def to_json(self) -> str:
        """Return it as indented JSON, as the API writes it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()


class Status(Answer, frozen=True, kw_only=True):
    """What a stream does now.

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
    """What the decoder found: `width` and `height` in px, `codec`, and the nominal frame rate as a fraction."""

    width: int
    height: int
    codec: str
    source_fps: str


class Progress(Answer, frozen=True, kw_only=True):
    """How much of a stream is in its timeline.

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


class Stream(Answer, frozen=True, kw_only=True):
    """A registered stream: its definition, what it does now, and how far its timeline is.

    Attributes:
        id: Its name.
        url: Without credentials, and `***` for what may be a secret.
        lane: `file` or `live`.
        transport: `tcp` or `udp`; of a camera, else None.
        tls_verify: Of a camera, else None.
        has_credentials: Whether user, password or masked parts of the URL are kept, sealed.
        sample_fps: Frames per second that are analysed, as text; or `all`.
        max_side_px: Frames are reduced to at most this on the longer side.
        recorded_at: Time of a file's first instant; None for live streams.
        labels: Free key-value pairs.
        paused: Nothing is read.
        attempt: Raised when a failed stream is tried again.
        created_at: When it was registered.
        revision: Raised at every change of the definition.
        status: What it does now.
        video: None until the content has been opened.
        progress: How far its timeline is.
    """

    id: str
    url: str
    lane: str
    transport: str | None = None
    tls_verify: bool | None = None
    has_credentials: bool = False
    sample_fps: str
    max_side_px: int
    recorded_at: datetime | None = None
    labels: dict[str, str]
    paused: bool
    attempt: int
    created_at: datetime
    revision: int
    status: Status
    video: Video | None = None
    progress: Progress


class StreamPage(Answer, frozen=True, kw_only=True):
    """Some of the streams, ordered by id; `next_cursor` leads to the next ones."""

    streams: list[Stream]
    next_cursor: str | None = None


class Point(Answer, frozen=True, kw_only=True):
    """One stretch of a timeline. `empty` says why there are no emotions; emptiness is never neutral.

    Attributes:
        start: Where it begins.
        position_s: The same as media time of the file, in s; None for live streams.
        sampled: Frames sampled: classified ones and every counted skip.
        classified: Frames that were looked at.
        skipped: Frames that were not, by reason.
        coverage: Share of the sampled frames that were looked at, 0 to 1.
        frames_with_faces: Frames with at least one face.
        faces: Faces over all frames.
        tracks_begun: Faces seen for the first time.
        dominant: The emotion that leads most faces; None where there is none.
        shares: Of all faces, the share that each emotion leads.
        smoothed: Mean probabilities, smoothed over time for each tracked face.
        raw: Mean probabilities as the model gave them.
        empty: `no_face`, `overloaded`, `not_sampled` or `offline`; None where there are emotions.
        models: Names of the models that looked at these frames.
        final: The point will not change any more.
    """

    start: datetime
    position_s: float | None = None
    sampled: int
    classified: int
    skipped: dict[str, int]
    coverage: float
    frames_with_faces: int
    faces: int
    tracks_begun: int
    dominant: str | None = None
    shares: Shares | None = None
    smoothed: Shares | None = None
    raw: Shares | None = None
    empty: str | None = None
    models: list[str] = []
    final: bool


class Timeline(Answer, frozen=True, kw_only=True):
    """A window of a stream's timeline: one point for every stretch, empty ones included.

    Attributes:
        stream: Id of the stream.
        lane: `file` or `live`.
        recorded_at: Time of a file's first instant; None for live streams.
        start: Start of the window.
        end: End of the window.
        resolution_s: Length of every point, in s.
        level_s: Length of the stored buckets that the points were made of, in s.
        coarser_than_asked: The asked resolution is no longer kept for this window.
        points: In order of time.
        summary: The whole window as one point.
    """

    stream: str
    lane: str
    recorded_at: datetime | None = None
    start: datetime
    end: datetime
    resolution_s: int
    level_s: int
    coarser_than_asked: bool
    points: list[Point]
    summary: Point


class Summary(Answer, frozen=True, kw_only=True):
    """A window of a stream's timeline as one point, `summary`."""

    stream: str
    lane: str
    recorded_at: datetime | None = None
    start: datetime
    end: datetime
    summary: Point


class Track(Answer, frozen=True, kw_only=True):
    """One tracked face over its whole life. Who leaves and comes back is a new track: nobody is recognised.

    Attributes:
        track: Its number; counts from 1 in each stream.
        first: Time of the first frame with it.
        last: Time of the last.
        position_s: `first` as media time of the file, in s; None for live streams.
        frames: Frames in which it was seen.
        dominant: The emotion that leads most of these frames.
        shares: Of these frames, the share that each emotion leads.
        smoothed: Mean probabilities, smoothed over time.
        ended: It will not be seen again under this number.
    """

    track: int
    first: datetime
    last: datetime
    position_s: float | None = None
    frames: int
    dominant: str
    shares: Shares
    smoothed: Shares
    ended: bool


class TrackPage(Answer, frozen=True, kw_only=True):
    """Some of a stream's tracks, ordered by number; `next_cursor` leads to the next ones."""

    stream: str
    tracks: list[Track]
    next_cursor: str | None = None


class TrackPoint(Answer, frozen=True, kw_only=True):
    """One stretch of a track's timeline; emotions are None where the face was not seen."""

    start: datetime
    position_s: float | None = None
    frames: int
    dominant: str | None = None
    shares: Shares | None = None
    smoothed: Shares | None = None
    models: list[str] = []


class TrackTimeline(Answer, frozen=True, kw_only=True):
    """A window of one face's timeline, clipped to the face's life; points of `resolution_s` s."""

    stream: str
    track: Track
    start: datetime
    end: datetime
    resolution_s: int
    points: list[TrackPoint]


class Model(Answer, frozen=True, kw_only=True):
    """An installed model.

    Attributes:
        name: As points of timelines name it.
        active: Classifiers use it, or will within seconds.
        parameters: How many weights it has.
        accuracy: Share of right answers on `measured_on`, 0 to 1; None where not measured.
        measured_on: What its accuracy was measured on.
        sha256: Of its weights.
        source: The folder that it was read from.
        problem: Why it cannot be used; empty where it can.
    """

    name: str
    active: bool
    parameters: int
    accuracy: float | None = None
    measured_on: str
    sha256: str
    source: str
    problem: str


class Refusal(Answer, frozen=True, kw_only=True):
    """A classifier could not load the model `name`, and goes on with the one that it had."""

    name: str
    reason: str
    at: datetime


class Models(Answer, frozen=True, kw_only=True):
    """The installed models, by name: which is `active`, since when it was `chosen`, and whether a classifier `refused` it."""

    active: str
    chosen: datetime | None = None
    refused: Refusal | None = None
    models: list[Model]


class Pushed(Answer, frozen=True, kw_only=True):
    """What became of a pushed frame.

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


class Ready(Answer, frozen=True, kw_only=True):
    """Whether every part that is needed works, and which do; `reason` is for people where not."""

    ready: bool
    checks: dict[str, bool] = {}
    reason: str = ""


class Alert(Answer, frozen=True, kw_only=True):
    """Something that happened to an alert.

    Attributes:
        id: The same for the same event, however often it comes.
        rule: Id of the rule.
        stream: Id of the stream.
        kind: `firing` or `resolved`.
        reason: `condition`, `cleared`, `no_data` or `withdrawn`.
        at: Event time of the decision.
        since: When the condition began to hold.
        value: The measure: a share, or percentage points from the baseline; None where nothing is measured.
        baseline: Of `change` rules: the usual share.
        faces: Faces in the window of the measure.
        notify: Whether others are told.
        written: When it was logged.
    """

    id: str
    rule: str
    stream: str
    kind: str
    reason: str
    at: datetime
    since: datetime
    value: float | None = None
    baseline: float | None = None
    faces: int = 0
    notify: bool = True
    written: datetime | None = None


class Key(Answer, frozen=True, kw_only=True):
    """An API key, without what is secret of it.

    Attributes:
        name: Who uses it.
        role: `viewer`, `operator` or `admin`.
        streams: Ids of streams that it is limited to; None: not by id.
        labels: Labels that it is limited to; None: not by label.
        expires_at: From when on it is worth nothing.
        prefix: How it begins.
        created_at: When it was made.
        last_used: To the minute.
    """

    name: str
    role: str
    streams: list[str] | None = None
    labels: list[str] | None = None
    expires_at: datetime | None = None
    prefix: str
    created_at: datetime
    last_used: datetime | None = None


class NewKey(Key, frozen=True, kw_only=True):
    """A new key; `key` is the key itself, shown this once. It is not part of `repr`."""

    key: str

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return all fields but the key."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name != "key"]

    def __repr__(self) -> str:
        return f"NewKey(name={self.name!r}, role={self.role!r}, prefix={self.prefix!r}, key='***')"


class KeyPage(Answer, frozen=True, kw_only=True):
    """All keys, ordered by name."""

    keys: list[Key]


class Caller(Answer, frozen=True, kw_only=True):
    """Who asks, and what they may do and see; `open` where the service asks for no key."""

    name: str
    role: str
    streams: list[str] | None = None
    labels: list[str] | None = None
    open: bool = False


class Change(Answer, frozen=True, kw_only=True):
    """An entry of the audit log.

    Attributes:
        number: Grows by one with every change.
        at: When.
        who: Name of the key.
        role: Of the key.
        what: The route.
        ids: What was changed.
    """

    number: int
    at: datetime
    who: str
    role: str
    what: str
    ids: dict[str, str]


class ChangePage(Answer, frozen=True, kw_only=True):
    """Some changes, newest first; `next_cursor` leads to older ones."""

    changes: list[Change]
    next_cursor: str | None = None


class PushTotals(Answer, frozen=True, kw_only=True):
    """What became of many pushed frames.

    Attributes:
        sent: Frames that the service took.
        sampled: Of these, those that are analysed.
        spared: Frames that were not sent, because they would have been left out.
        lost: Frames that came while the service was too busy.
    """

    sent: int = 0
    sampled: int = 0
    spared: int = 0
    lost: int = 0
