"""One stream as it is shown live: from what the store says now to the events that everybody who listens to it gets."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from moodline.services.report.document import by_emotion, point_document
from moodline.services.report.moments import iso, to_datetime
from moodline.services.report.stream_document import StreamAnswer
from moodline.services.report.streams import describe
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import StoreError
from moodline.shared.messages import StreamClass
from moodline.shared.store import HighWaterMark, Progress, TimelineStore
from moodline.shared.streams import StreamSpec, StreamStatus
from moodline.shared.timeline.bucket import SECOND_US, Bucket, unpack
from moodline.shared.timeline.models import MODELS_LEVEL_S, ModelDay, ModelLabels, read_models
from moodline.shared.timeline.points import make_point
from moodline.shared.timeline.state import Present, PresentFace, present_of

STATE_S: Final = 1.0
"""Progress and measurements of a stream are told at most this often; a change of what it does is told at once."""

OPEN_POINT_S: Final = 5.0
"""A point that is not final is told at most once in a quarter of its length or in this time, whichever is less."""

_EARLY_S: Final = 0.1
"""Looks at the store are some time apart: a little too early is nearer to the aim than a whole look too late."""

_BOX_DIGITS: Final = 5


class EventKind(StrEnum):
    """The kinds of live events."""

    POINT = "point"
    STATE = "state"
    FACES = "faces"
    ALERT = "alert"


class FeedEvent(NamedTuple):
    """One event, rendered once for all who hear it.

    Attributes:
        kind: What it tells.
        stream_id: Of which stream.
        data: As JSON.
        level_s: Of a point: its length in s.
        order: Of a point: its index (start divided by its length), whether it is final, and its sampled frames, so that of two
            events for the same start the later is the larger. Of an alert: its number in the log.
    """

    kind: EventKind
    stream_id: str
    data: bytes
    level_s: int = 0
    order: tuple[int, bool, int] = (0, False, 0)


@dataclass(slots=True)
class _Level:
    """The points of one resolution that were sent: the first index that is not final, and the newest point."""

    next: int
    newest: FeedEvent | None = None
    held: FeedEvent | None = None
    told_s: float = -1e9


@dataclass(slots=True)
class WatchedStream:
    """The last events of one stream. `spec` is replaced when its definition changes."""

    spec: StreamSpec
    _levels: dict[int, _Level] = field(default_factory=dict)
    _status: StreamStatus | None = None
    _progress: Progress | None = None
    _told_spec: StreamSpec | None = None
    _present: Present = field(default_factory=Present)
    _answer: StreamAnswer | None = None
    _told: StreamAnswer | None = None
    _told_s: float = -1e9
    _state: FeedEvent | None = None
    _faces: FeedEvent | None = None

    def poll(
        self, store: TimelineStore, levels: Iterable[int], status: StreamStatus, progress: Progress, now_s: float
    ) -> list[FeedEvent]:
        """Return what is new. Blocks on the store where the timeline has grown.

        Args:
            store: Where cells are read.
            levels: The resolutions that somebody listens to, in s.
            status: What its reader last said.
            progress: How far its timeline is.
            now_s: Monotonic time.

        Raises:
            StoreError: a stored value cannot be read.
        """
        before = self._progress
        has_grown = before is None or (before.mark, before.final) != (progress.mark, progress.final)
        present = _present(progress) if has_grown else self._present
        # All reading comes first: where the store fails, nothing is forgotten, and the next look reads the same again.
        found = {
            level_s: self._read(store, level_s, progress, present.models)
            for level_s in levels
            if has_grown or level_s not in self._levels
        }
        if has_grown or status != self._status or self.spec != self._told_spec:
            self._answer = describe(self.spec, status, progress)
        self._progress, self._status, self._told_spec, self._present = progress, status, self.spec, present
        events = self._state_events(now_s)
        for level_s in levels:
            events += self._level_events(level_s, found.get(level_s), now_s)
        return events + (self._faces_events(progress.mark) if has_grown else [])

    def newest(self, level_s: int) -> list[FeedEvent]:
        """Return the newest of everything, for one who has just come."""
        level = self._levels.get(level_s)
        point = None if level is None else level.held or level.newest
        return [event for event in (self._state, point, self._faces) if event is not None]

    def _state_events(self, now_s: float) -> list[FeedEvent]:
        answer, told = self._answer, self._told
        if answer is None or answer == told or (now_s - self._told_s < STATE_S and told and _essence(answer) == _essence(told)):
            return []
        self._told, self._told_s = answer, now_s
        self._state = FeedEvent(EventKind.STATE, self.spec.stream_id, answer.model_dump_json().encode())
        return [self._state]

    def _read(
        self, store: TimelineStore, level_s: int, progress: Progress, models: ModelDay | None
    ) -> tuple[int, list[FeedEvent]]:
        """Read the cells that may have changed: from the first that is not final to the one of the mark.

        Returns:
            The first index that was read, and the points.
        """
        if progress.mark is None:
            # Nothing of this stream has been missed.
            return 0, []
        present = (progress.last_event_time_us or 0) // (level_s * SECOND_US)
        known = self._levels.get(level_s)
        # At the first sight of a stream under way, what is closed already is read by who wants it.
        start = self._newest_index(store, level_s, progress, present) if known is None else known.next
        cells = store.read(self.spec.stream_id, "", level_s, start, present + 1)
        if not cells:
            return start, []
        labels = self._labels(store, models, cells[0][0] * level_s, (cells[-1][0] + 1) * level_s)
        points = []
        for index, value in cells:
            bucket = unpack(value)
            # What is behind the mark is closed. At the mark, the cell may have grown since the mark was read.
            is_final = index < present or (progress.final and bucket.final)
            points.append(point_event(self.spec, level_s, index, msgspec.structs.replace(bucket, final=is_final), labels))
        return start, points

    def _newest_index(self, store: TimelineStore, level_s: int, progress: Progress, present: int) -> int:
        """Return where the newest point is: at the mark, or before it where the end of a file lies in a gap."""
        bounds = store.bounds(self.spec.stream_id, level_s) if progress.final else None
        return present if bounds is None else min(present, bounds[1])

    def _level_events(self, level_s: int, found: tuple[int, list[FeedEvent]] | None, now_s: float) -> list[FeedEvent]:
        """Return points that are final, and the one that is not where it is time to tell it."""
        start, points = found or (0, [])
        level = self._levels.setdefault(level_s, _Level(start))
        events = []
        for event in points:
            index, is_final, _ = event.order
            if is_final:
                level.next, level.newest, level.held = index + 1, event, None
                events.append(event)
            elif level.newest is None or event.order > level.newest.order:
                level.held = event
        if level.held is not None and now_s - level.told_s >= min(OPEN_POINT_S, level_s / 4) - _EARLY_S:
            level.newest, level.held, level.told_s = level.held, None, now_s
            events.append(level.newest)
        return events

    def _labels(self, store: TimelineStore, known: ModelDay | None, start_s: int, stop_s: int) -> ModelLabels:
        if known is not None and start_s >= known.day * MODELS_LEVEL_S and stop_s <= (known.day + 1) * MODELS_LEVEL_S:
            return ModelLabels(known.changes)
        return read_models(store, self.spec.stream_id, start_s, stop_s)

    def _faces_events(self, mark: HighWaterMark | None) -> list[FeedEvent]:
        present, before = self._present, self._faces
        if mark is None or (not present.faces and before is None):
            return []
        self._faces = faces_event(self.spec.stream_id, present)
        return [] if before is not None and before.data == self._faces.data else [self._faces]


def point_event(spec: StreamSpec, level_s: int, index: int, bucket: Bucket, labels: ModelLabels) -> FeedEvent:
    """Return the event of one point; `index` is its start divided by `level_s`."""
    start_s = index * level_s
    point = make_point(bucket, start_s * SECOND_US, spec.lane, labels.between(start_s, start_s + level_s))
    document = point_document(point, spec.recorded_at_us if spec.lane is StreamClass.FILE else None)
    head = msgspec.json.encode({"stream": spec.stream_id, "resolution_s": level_s})
    data = head[:-1] + b',"point":' + document.model_dump_json().encode() + b"}"
    return FeedEvent(EventKind.POINT, spec.stream_id, data, level_s, (index, bucket.final, bucket.sampled))


def faces_event(stream_id: str, present: Present) -> FeedEvent:
    """Return the event that tells who is in the picture."""
    time = None if present.now_us is None else iso(to_datetime(present.now_us))
    faces = [_face(face) for face in present.faces]
    return FeedEvent(EventKind.FACES, stream_id, msgspec.json.encode({"stream": stream_id, "time": time, "faces": faces}))


def alert_event(number: int, value: bytes) -> FeedEvent | None:
    """Return the event of a record in the log of alerts: a JSON object that names its `stream`. None where it names none."""
    try:
        stream_id = msgspec.json.decode(value, type=_OfStream).stream
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return FeedEvent(EventKind.ALERT, stream_id, value, order=(number, True, 0))


class _OfStream(msgspec.Struct):
    stream: str


def _present(progress: Progress) -> Present:
    try:
        return present_of(progress.state)
    except StoreError:
        # Of another version than this process: points are shown all the same.
        return Present()


def _face(face: PresentFace) -> dict[str, Any]:
    smoothed = face.smoothed
    return {
        "track": face.track_id,
        "box": [round(edge, _BOX_DIGITS) for edge in face.box],
        "last": iso(to_datetime(face.last_us)),
        "dominant": None if smoothed is None else EMOTIONS[max(range(len(EMOTIONS)), key=smoothed.__getitem__)],
        "smoothed": None if smoothed is None else by_emotion(smoothed),
    }


def _essence(answer: StreamAnswer) -> tuple[object, ...]:
    """Return what of a stream's description is told at once when it changes."""
    status = answer.status
    return answer.revision, status.state, status.reason, status.detail, answer.video, answer.progress.complete
