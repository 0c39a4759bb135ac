"""The aggregator's core: from frames that may come late, twice or never, to updates that are exactly right.

Each stream has a high-water mark `(epoch, seq)`, the last frame in its timeline. What happens to a message:

| message | file | live |
| --- | --- | --- |
| stream not registered | dropped, `unknown` | same |
| epoch below the registration's minimum epoch, or below the high-water mark's | dropped, `fenced` | same |
| epoch that the store cannot have given out, or of the other lane than what came before | dropped, `implausible` | same |
| a time or a number far ahead of what can be | - | dropped, `implausible` |
| timeline already closed | dropped, `duplicate` | same |
| newer epoch | goes on after the high-water mark | a new segment, from seq 0; nobody is followed across |
| at or below the high-water mark | dropped, `duplicate` | same |
| right after the high-water mark | added | same |
| beyond a hole | dropped, `gap`; the bus is read again after the high-water mark, once | same |
| the same, and the hole is still there | dropped, `gap`; ingest sends it again | added; the missing ones count as `lost` |

All that a batch changes in a stream is one update, conditional on the high-water mark before it. The stage's own memory is a
cache of
the store: it may be dropped at any time between batches, and the outcome is the same. It is read from the store at the first
sight of a stream and of a new epoch (the stream may have been removed and registered again), or after a refused update.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from moodline.services.aggregator.gaps import MARGIN_MS, Gaps
from moodline.services.aggregator.stream import StreamTimeline
from moodline.services.aggregator.tracker import least_quality
from moodline.shared.bus.base import Position
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import MessageError, StoreError
from moodline.shared.messages import DropReason, Emotions, End, StreamClass, stream_class_of
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Apply, Output, Received
from moodline.shared.settings import AggregatorSettings
from moodline.shared.store.base import HighWaterMark, Progress, TimelineUpdate

WORKER: Final = "aggregator"

_UNKNOWN_RECHECK_S: Final = 1.0
_AHEAD_S: Final = 2 * 86_400
"""The most that epochs and event times may be ahead of our clock: clocks of hosts differ, but not by more."""
_FURTHER_US: Final = 3_600_000_000
"""The most that a live stream may advance at once where its timeline is ahead of our clock by more than that already."""
_MISSING: Final = 1_000_000
_MISSING_PER_S: Final = 1000
"""Live frames that may be missing at once: so many, and so many more for each second between two frames."""
_NO_FACES: Final[Mapping[str, int]] = {}


@dataclass(slots=True)
class _Stream:
    """A stream as of its high-water mark.

    When this was read, `epoch` was the newest seen, and `given_out` the newest in the store.
    """

    high_water_mark: HighWaterMark | None
    final: bool
    min_epoch: int
    position: Position | None
    timeline: StreamTimeline
    epoch: int
    given_out: int
    place: tuple[str, int]


@dataclass(slots=True)
class _PendingUpdate:
    """The changes that one batch has made to a stream and that are not written yet."""

    expected: HighWaterMark | None
    captured_at_us: list[int] = field(default_factory=list)


class AggregatorStage:
    """Implements `moodline.shared.pipeline.stage.Stage`.

    Args of the constructor:
        load: Returns the progress of streams, None for those not registered; `ProgressStore.load`. May block, and may raise
            `StoreUnavailableError`, which `process` lets through.
        settings: How to track and smooth.
        metrics: Where drops and faces are counted.
        cache_streams: How many streams are kept in memory; the least recently seen go first.
        keeps_faces: Whether each face of each frame is written too.
    """

    def __init__(
        self,
        load: Callable[[Sequence[str]], list[Progress | None]],
        settings: AggregatorSettings,
        metrics: Metrics,
        cache_streams: int = 20_000,
        *,
        keeps_faces: bool = False,
    ) -> None:
        self._load = load
        self._settings = settings
        self._least_quality = least_quality(settings)
        self._metrics = metrics
        self._cache_streams = cache_streams
        self._keeps_faces = keeps_faces
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._unknown: dict[str, tuple[int, float]] = {}
        self._gaps = Gaps()
        self._pending_updates: dict[str, _PendingUpdate] = {}
        self._dropped: Counter[str] = Counter()

    def process(self, batch: Sequence[Received], now_s: float) -> list[Output]:
        """Add what is new to the streams' timelines.

        Returns:
            At most one `Apply` per stream, and per partition one `Rewind` to a place and one to a time.

        Raises:
            StoreUnavailableError: progress could not be read; nothing of the batch was used.
            StoreError: a stored state cannot be read by this version.
            MessageError: a message is of another pipeline step.
        """
        self._pending_updates = {}
        self._dropped = Counter()
        self._load_missing(batch, now_s)
        for item in batch:
            self._handle(item, now_s)
        outputs: list[Output] = [
            Apply(self._update(stream_id, pending), tuple(pending.captured_at_us))
            for stream_id, pending in self._pending_updates.items()
        ]
        outputs += self._gaps.take_rewinds()
        for reason, count in self._dropped.items():
            self._metrics.frames_dropped.labels(reason).inc(count)
        while len(self._streams) > self._cache_streams:
            self._streams.popitem(last=False)
        return outputs

    def tick(self, now_s: float) -> list[Output]:  # noqa: ARG002  # time alone changes no timeline
        return []

    def on_revoked(self, partitions: frozenset[tuple[str, int]]) -> None:
        for stream_id in [key for key, stream in self._streams.items() if stream.place in partitions]:
            del self._streams[stream_id]
            self._metrics.of_streams.forget(stream_id)
        self._gaps.forget_partitions(partitions)

    def close(self) -> None:
        self._streams.clear()

    def on_refused(self, stream_ids: frozenset[str]) -> None:
        """Drop what is held of streams, so that it is read from the store again."""
        for stream_id in stream_ids:
            self._streams.pop(stream_id, None)
            self._gaps.forget(stream_id)

    def _load_missing(self, batch: Sequence[Received], now_s: float) -> None:
        """Read the progress of streams that are new here, or come under an epoch that is."""
        newest: dict[str, tuple[int, tuple[str, int]]] = {}
        for item in batch:
            message = item.message
            known = self._streams.get(message.stream_id)
            if known is None or message.epoch > known.epoch:
                epoch = max(message.epoch, newest.get(message.stream_id, (0,))[0])
                newest[message.stream_id] = epoch, (item.position.topic, item.position.partition)
        wanted = [stream_id for stream_id, (epoch, _) in newest.items() if not self._is_unknown(stream_id, epoch, now_s)]
        if not wanted:
            return
        for stream_id, progress in zip(wanted, self._load(wanted), strict=True):
            if progress is None:
                self._streams.pop(stream_id, None)
                self._report_unknown(stream_id, newest[stream_id][0], now_s)
            else:
                self._unknown.pop(stream_id, None)
                epoch, place = newest[stream_id]
                # An epoch that nobody was given must not keep the next one that somebody is given from being looked up.
                known_epoch = min(epoch, max(progress.epoch, _newest_session(now_s)))
                self._streams[stream_id] = self._restore(stream_id, progress, known_epoch, place)

    def _is_unknown(self, stream_id: str, epoch: int, now_s: float) -> bool:
        """Return whether the store said a moment ago that this stream is not registered.

        A newer epoch than that of the message which was asked for then: it may be registered again, and is asked for again.
        """
        known_epoch, until_s = self._unknown.get(stream_id, (-1, now_s))
        return epoch <= known_epoch and now_s < until_s

    def _report_unknown(self, stream_id: str, epoch: int, now_s: float) -> None:
        if len(self._unknown) >= self._cache_streams:
            self._unknown.clear()
        self._unknown[stream_id] = epoch, now_s + _UNKNOWN_RECHECK_S

    def _restore(self, stream_id: str, progress: Progress, epoch: int, place: tuple[str, int]) -> _Stream:
        if progress.high_water_mark is not None and not progress.final and not progress.state:
            raise StoreError(f"stream {stream_id} has a mark but no aggregator state: the store lost a part of it")
        state = b"" if progress.final else progress.state
        timeline = StreamTimeline(self._settings, state, keeps_faces=self._keeps_faces)
        given_out = max(progress.epoch, progress.min_epoch, progress.high_water_mark.epoch if progress.high_water_mark else 0)
        return _Stream(
            progress.high_water_mark, progress.final, progress.min_epoch, progress.position, timeline, epoch, given_out, place
        )

    def _handle(self, item: Received, now_s: float) -> None:
        message, position = item.message, item.position
        if not isinstance(message, Emotions | End):
            raise MessageError("invalid", f"a message of another hop: {type(message).__name__}")
        stream = self._streams.get(message.stream_id)
        if stream is None:
            self._dropped["unknown"] += 1
            return
        self._streams.move_to_end(message.stream_id)
        stream.place = position.topic, position.partition
        reason = _reason_to_drop(stream, message) or _implausible(stream, message, now_s)
        if reason is not None:
            self._dropped[reason] += 1
            return
        missing = message.seq - _expected_seq(stream, message)
        if (missing or _begins_segment(stream, message)) and self._is_held_back(stream, item, missing, now_s):
            self._dropped["gap"] += 1
            return
        self._add(stream, message, position, missing)

    def _is_held_back(self, stream: _Stream, item: Received, missing: int, now_s: float) -> bool:
        """Return whether a message must not be added, because what comes before it may still come."""
        stream_id = item.message.stream_id
        if not missing and not self._gaps.is_open(stream_id, stream.high_water_mark):
            return False
        self._gaps.observe(stream_id, stream.high_water_mark, stream.position, item.position, _since_ms(stream, item), now_s)
        return item.message.lane is StreamClass.FILE or not self._gaps.is_confirmed(stream_id, stream.high_water_mark)

    def _add(self, stream: _Stream, message: Emotions | End, position: Position, missing: int) -> None:
        pending = self._pending_updates.get(message.stream_id)
        if pending is None:
            pending = self._pending_updates[message.stream_id] = _PendingUpdate(stream.high_water_mark)
        if _begins_segment(stream, message):
            stream.timeline.begin_segment()
        if missing:
            stream.timeline.add_lost(missing, message.event_time_us, message.seq - missing)
            self._metrics.frames_skipped.labels(WORKER, message.lane, DropReason.LOST).inc(missing)
            self._count_in_stream(message.stream_id, DropReason.LOST, missing)
        if isinstance(message, End):
            stream.timeline.close(message.event_time_us)
            stream.final = True
        else:
            stream.timeline.add(message)
            pending.captured_at_us.append(message.captured_at_us)
            self._count(message)
        stream.high_water_mark = HighWaterMark(message.epoch, message.seq)
        stream.position = position

    def _count(self, message: Emotions) -> None:
        """Count a frame, its faces, and the likeliest emotion of each."""
        read = [face for face in message.faces if face.quality >= self._least_quality]
        small, poor = 0 if message.skip else message.too_small, len(message.faces) - len(read)
        likeliest = Counter(EMOTIONS[face.probabilities.index(max(face.probabilities))] for face in read)
        if message.faces:
            self._metrics.faces.labels(WORKER).inc(len(message.faces))
        for emotion, count in likeliest.items():
            self._metrics.emotions.labels(message.lane, emotion).inc(count)
        for reason, count in (("too_small", small), ("quality", poor)):
            if count:
                self._metrics.faces_unreadable.labels(message.lane, reason).inc(count)
        result = message.skip or ("faces" if read else "unreadable" if small or poor else "no_face")
        self._count_in_stream(message.stream_id, result, 1, likeliest)

    def _count_in_stream(self, stream_id: str, result: str, frames: int, emotions: Mapping[str, int] = _NO_FACES) -> None:
        of_streams = self._metrics.of_streams
        if of_streams.admits(stream_id):
            of_streams.begin_counts(stream_id)
            of_streams.frames.labels(stream_id, result).inc(frames)
            of_streams.faces.labels(stream_id).inc(sum(emotions.values()))
            for emotion, count in emotions.items():
                of_streams.emotions.labels(stream_id, emotion).inc(count)

    def _update(self, stream_id: str, pending: _PendingUpdate) -> TimelineUpdate:
        stream = self._streams[stream_id]
        event_time_us = stream.timeline.event_time_us
        assert stream.high_water_mark is not None
        assert stream.position is not None
        assert event_time_us is not None
        return TimelineUpdate(
            stream_id=stream_id,
            expected=pending.expected,
            high_water_mark=stream.high_water_mark,
            final=stream.final,
            position=stream.position,
            # A closed timeline needs no state any more.
            state=b"" if stream.final else stream.timeline.save(),
            last_event_time_us=event_time_us,
            bucket_values=stream.timeline.take_values(),
        )


def _reason_to_drop(stream: _Stream, message: Emotions | End) -> str | None:
    high_water_mark = stream.high_water_mark
    if message.epoch < stream.min_epoch:
        return "fenced"
    if stream.final:
        return "duplicate"
    if high_water_mark is None:
        return None
    if message.epoch < high_water_mark.epoch:
        return "fenced"
    if not _begins_segment(stream, message) and message.seq <= high_water_mark.seq:
        return "duplicate"
    return None


def _newest_session(now_s: float) -> int:
    """Return the newest epoch that a store can have given out and lost again: epochs are times in ms, or little more."""
    return int((now_s + _AHEAD_S) * 1000)


def _implausible(stream: _Stream, message: Emotions | End, now_s: float) -> str | None:
    """Return `implausible` for what no reader of this stream can have sent; one such message would spoil a timeline for good.

    An epoch above all that are given out would fence every reader to come, a time in a thousand years would stay the present,
    and a number that is too large would make all real frames old ones.
    """
    if message.epoch > max(stream.given_out, _newest_session(now_s)):
        return "implausible"
    if stream.position is not None and stream_class_of(stream.position.topic) not in (None, message.lane):
        return "implausible"
    if message.lane is not StreamClass.LIVE:
        return None
    last_us = stream.timeline.event_time_us
    latest_us = max(int((now_s + _AHEAD_S) * 1e6), (last_us or 0) + _FURTHER_US)
    passed_s = 0 if last_us is None else max(0, message.event_time_us - last_us) // 1_000_000
    too_many = message.seq - _expected_seq(stream, message) > _MISSING + _MISSING_PER_S * passed_s
    return "implausible" if too_many or message.event_time_us > latest_us else None


def _begins_segment(stream: _Stream, message: Emotions | End) -> bool:
    """Return whether this is the first message of a new epoch of a live stream; a file's epochs all go on where it was."""
    return (
        message.lane is StreamClass.LIVE and stream.high_water_mark is not None and message.epoch > stream.high_water_mark.epoch
    )


def _expected_seq(stream: _Stream, message: Emotions | End) -> int:
    return 0 if stream.high_water_mark is None or _begins_segment(stream, message) else stream.high_water_mark.seq + 1


def _since_ms(stream: _Stream, item: Received) -> int:
    """Return when what is missing before a message was produced at the earliest, in ms on the clock that stamps records.

    Ingest sends everything of an epoch after it has acquired it, and an epoch's number is not above the time of the acquisition
    by much. How long that was before the message is measured by ingest's clock alone, so it does not matter whether the bus's
    clock agrees. What was sent under an older epoch is not looked for: ingest sends it again.
    """
    message = item.message
    captured_ms = message.captured_at_us // 1000
    begun_ms = message.epoch
    event_ms = (stream.timeline.event_time_us or 0) // 1000
    if message.lane is StreamClass.LIVE and begun_ms < event_ms <= captured_ms:
        # The missing frames of a live stream were captured after those that are in its timeline.
        begun_ms = event_ms
    return (item.timestamp_ms or captured_ms) - max(0, captured_ms - begun_ms) - MARGIN_MS
