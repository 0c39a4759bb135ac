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
from moodline.shared.timeline.models import MODELS_TIER_S, ModelDay, ModelLabels, read_models
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
        tier_s: Of a point: its length in s.
        order: Of a point: its index (start divided by its length), whether it is final, and its sampled frames, so that of two
            events for the same start the later is the larger. Of an alert: its number in the log.
    """

    kind: EventKind
    stream_id: str
    data: bytes
    tier_s: int = 0
    order: tuple[int, bool, int] = (0, False, 0)


@dataclass(slots=True)
class _Tier:
    """The points of one resolution that were sent: the first index that is not final, and the newest point."""

    next: int
    newest: FeedEvent | None = None
    held: FeedEvent | None = None
    sent_s: float = -1e9


@dataclass(slots=True)
class WatchedStream:
    """The last events of one stream. `spec` is replaced when its definition changes."""

    spec: StreamSpec
    _tiers: dict[int, _Tier] = field(default_factory=dict)
    _status: StreamStatus | None = None
    _progress: Progress | None = None
    _sent_spec: StreamSpec | None = None
    _present: Present = field(default_factory=Present)
    _answer: StreamAnswer | None = None
    _sent: StreamAnswer | None = None
    _sent_s: float = -1e9
    _state: FeedEvent | None = None
    _faces: FeedEvent | None = None

    def poll(
        self, store: TimelineStore, tiers: Iterable[int], status: StreamStatus, progress: Progress, now_s: float
    ) -> list[FeedEvent]:
        """Return what is new. Blocks on the store where the timeline has grown.

        Args:
            store: Where bucket values are read.
            tiers: The resolutions that somebody listens to, in s.
            status: What its reader last said.
            progress: How far its timeline is.
            now_s: Monotonic time.

        Raises:
            StoreError: a stored value cannot be read.
        """
        before = self._progress
        has_grown = before is None or (before.high_water_mark, before.final) != (progress.high_water_mark, progress.final)
        present = _present(progress) if has_grown else self._present
        # All reading comes first: where the store fails, nothing is forgotten, and the next look reads the same again.
        found = {
            tier_s: self._read(store, tier_s, progress, present.models)
            for tier_s in tiers
            if has_grown or tier_s not in self._tiers
        }
        if has_grown or status != self._status or self.spec != self._sent_spec:
            self._answer = describe(self.spec, status, progress)
        self._progress, self._status, self._sent_spec, self._present = progress, status, self.spec, present
        events = self._state_events(now_s)
        for tier_s in tiers:
            events += self._tier_events(tier_s, found.get(tier_s), now_s)
        return events + (self._faces_events(progress.high_water_mark) if has_grown else [])

    def newest(self, tier_s: int) -> list[FeedEvent]:
        """Return the newest of everything, for one who has just come."""
        tier = self._tiers.get(tier_s)
        point = None if tier is None else tier.held or tier.newest
        return [event for event in (self._state, point, self._faces) if event is not None]

    def _state_events(self, now_s: float) -> list[FeedEvent]:
        answer, sent = self._answer, self._sent
        if answer is None or answer == sent or (now_s - self._sent_s < STATE_S and sent and _essence(answer) == _essence(sent)):
            return []
        self._sent, self._sent_s = answer, now_s
        self._state = FeedEvent(EventKind.STATE, self.spec.stream_id, answer.model_dump_json().encode())
        return [self._state]

    def _read(
        self, store: TimelineStore, tier_s: int, progress: Progress, models: ModelDay | None
    ) -> tuple[int, list[FeedEvent]]:
        """Read the bucket values that may have changed: from the first that is not final to the one of the high-water mark.

        Returns:
            The first index that was read, and the points.
        """
        if progress.high_water_mark is None:
            # Nothing of this stream has been missed.
            return 0, []
        present = (progress.last_event_time_us or 0) // (tier_s * SECOND_US)
        known = self._tiers.get(tier_s)
        # At the first sight of a stream under way, what is closed already is read by who wants it.
        start = self._newest_index(store, tier_s, progress, present) if known is None else known.next
        bucket_values = store.read(self.spec.stream_id, "", tier_s, start, present + 1)
        if not bucket_values:
            return start, []
        labels = self._labels(store, models, bucket_values[0][0] * tier_s, (bucket_values[-1][0] + 1) * tier_s)
        points = []
        for index, value in bucket_values:
            bucket = unpack(value)
            # What is behind the high-water mark is closed. At the high-water mark, the bucket value may have grown since the
            # high-water mark was read.
            is_final = index < present or (progress.final and bucket.final)
            points.append(point_event(self.spec, tier_s, index, msgspec.structs.replace(bucket, final=is_final), labels))
        return start, points

    def _newest_index(self, store: TimelineStore, tier_s: int, progress: Progress, present: int) -> int:
        """Return where the newest point is: at the high-water mark, or before it where the end of a file lies in a gap."""
        bounds = store.bounds(self.spec.stream_id, tier_s) if progress.final else None
        return present if bounds is None else min(present, bounds[1])

    def _tier_events(self, tier_s: int, found: tuple[int, list[FeedEvent]] | None, now_s: float) -> list[FeedEvent]:
        """Return points that are final, and the one that is not where it is time to tell it."""
        start, points = found or (0, [])
        tier = self._tiers.setdefault(tier_s, _Tier(start))
        events = []
        for event in points:
            index, is_final, _ = event.order
            if is_final:
                tier.next, tier.newest, tier.held = index + 1, event, None
                events.append(event)
            elif tier.newest is None or event.order > tier.newest.order:
                tier.held = event
        if tier.held is not None and now_s - tier.sent_s >= min(OPEN_POINT_S, tier_s / 4) - _EARLY_S:
            tier.newest, tier.held, tier.sent_s = tier.held, None, now_s
            events.append(tier.newest)
        return events

    def _labels(self, store: TimelineStore, known: ModelDay | None, start_s: int, stop_s: int) -> ModelLabels:
        if known is not None and start_s >= known.day * MODELS_TIER_S and stop_s <= (known.day + 1) * MODELS_TIER_S:
            return ModelLabels(known.changes)
        return read_models(store, self.spec.stream_id, start_s, stop_s)

    def _faces_events(self, high_water_mark: HighWaterMark | None) -> list[FeedEvent]:
        present, before = self._present, self._faces
        if high_water_mark is None or (not present.faces and before is None):
            return []
        self._faces = faces_event(self.spec.stream_id, present)
        return [] if before is not None and before.data == self._faces.data else [self._faces]


def point_event(spec: StreamSpec, tier_s: int, index: int, bucket: Bucket, labels: ModelLabels) -> FeedEvent:
    """Return the event of one point; `index` is its start divided by `tier_s`."""
    start_s = index * tier_s
    point = make_point(bucket, start_s * SECOND_US, spec.lane, labels.between(start_s, start_s + tier_s))
    document = point_document(point, spec.recorded_at_us if spec.lane is StreamClass.FILE else None)
    head = msgspec.json.encode({"stream": spec.stream_id, "resolution_s": tier_s})
    data = head[:-1] + b',"point":' + document.model_dump_json().encode() + b"}"
    return FeedEvent(EventKind.POINT, spec.stream_id, data, tier_s, (index, bucket.final, bucket.sampled))


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
        # Written by another version than this process: points are sent nevertheless.
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
