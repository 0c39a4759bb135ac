"""Test doubles around a reader: canned sources, a producer that records, and a pipeline that brings frames into the store."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from moodline.services.ingest.file.progress_watch import ProgressWatch
from moodline.services.ingest.file.reader import ReaderParts
from moodline.services.ingest.media.frames import BgrImage, Cancelled, DecodedFrame, Ending, Source, SourceInfo, never
from moodline.shared.bus import Position
from moodline.shared.errors import BusFullError, DeliveryError, ImageError
from moodline.shared.messages import End, Frame, Message, decode
from moodline.shared.metrics import Metrics
from moodline.shared.settings import IngestSettings
from moodline.shared.store import HighWaterMark, Retention, Store, TimelineUpdate
from moodline.shared.store.sqlite import SqliteStore
from moodline.shared.streams import StreamSpec
from tests.support.clocks import SteppingClock

NOW_S = 1_750_000_000.0


@dataclass
class StubSource:
    """`count` small frames at `fps`, each of another grey; counts what is asked of it."""

    count: int = 20
    fps: Fraction = Fraction(25)
    side_px: int = 16
    broken: frozenset[int] = frozenset()
    raises_at: dict[int, Exception] = field(default_factory=dict)
    damaged: int = 0
    ending: Ending = field(default_factory=Ending)
    converted: list[int] = field(default_factory=list)
    cancelled: Cancelled = never
    given: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self.info = SourceInfo("stub", self.side_px, self.side_px, self.fps, int(self.count / self.fps * 1_000_000))

    @property
    def end_s(self) -> Fraction:
        return self.given / self.fps

    def frames(self) -> Iterator[DecodedFrame]:
        for number in range(self.count):
            if self.cancelled():
                return
            if number in self.raises_at:
                raise self.raises_at.pop(number)
            self.given = number + 1
            yield DecodedFrame(number / self.fps, lambda number=number: self._picture(number))

    def close(self) -> None:
        self.closed = True

    def _picture(self, number: int) -> BgrImage:
        self.converted.append(number)
        if number in self.broken:
            raise ImageError("broken")
        return np.full((self.side_px, self.side_px, 3), number % 256, np.uint8)


class RecordingProducer:
    """Records what is sent, and applies it to the store at once when it has one."""

    def __init__(self, store: Store | None = None, limit_bytes: int = 1 << 20) -> None:
        self.messages: list[Message] = []
        self.keys: list[bytes] = []
        self.topics: list[str] = []
        self.full_times = 0
        self.lose_next = 0
        self.flush_errors = 0
        self.flushes = 0
        self.lost_topics: frozenset[str] = frozenset()
        self.on_send: Callable[[Message], None] | None = None
        self._store = store
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        if self.full_times:
            self.full_times -= 1
            raise BusFullError("full")
        if len(value) > self._limit_bytes:
            raise DeliveryError("too large", frozenset({topic}))
        message = decode(value)
        if self.on_send is not None:
            self.on_send(message)
        with self._lock:
            self.messages.append(message)
            self.keys.append(key)
            self.topics.append(topic)
            if self.lose_next:
                self.lose_next -= 1
                return
        if self._store is not None:
            apply(self._store, message)

    def flush(self, timeout_s: float = 60.0) -> None:
        self.flushes += 1
        if self.flush_errors:
            self.flush_errors -= 1
            raise DeliveryError("lost", self.lost_topics)

    def close(self) -> None:
        pass

    def of(self, stream_id: str) -> list[Message]:
        with self._lock:
            return [message for message in self.messages if message.stream_id == stream_id]


def apply(store: Store, message: Message) -> bool:
    """Do what the aggregator does to a stream's mark: take the next frame, and nothing else."""
    progress = store.load([message.stream_id])[0]
    if progress is None or progress.final:
        return False
    expected = progress.high_water_mark.seq + 1 if progress.high_water_mark else 0
    if message.seq != expected:
        return False
    update = TimelineUpdate(
        stream_id=message.stream_id,
        expected=progress.high_water_mark,
        high_water_mark=HighWaterMark(message.epoch, message.seq),
        final=isinstance(message, End),
        position=Position("t", 0, message.seq),
        state=b"",
        last_event_time_us=message.event_time_us,
    )
    return store.apply([update])[0] == "applied"


@dataclass
class Desk:
    """Everything one reader needs, around a real store in a temporary file."""

    store: Store
    producer: RecordingProducer
    metrics: Metrics
    watch: ProgressWatch
    parts: ReaderParts
    sources: dict[str, Callable[[], StubSource]]
    opened: list[StubSource]

    def close(self) -> None:
        self.watch.close()
        self.store.close()

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"moodline_{name}", labels) or 0.0


def open_store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(f"sqlite:///{tmp_path / 'test.db'}", Retention({1: 86_400}))


def open_desk(
    tmp_path: Path, *, applies: bool = True, step_s: float = 0.0, limit_bytes: int = 1 << 20, **settings: object
) -> Desk:
    store = open_store(tmp_path)
    producer = RecordingProducer(store if applies else None, limit_bytes)
    metrics, clock = Metrics(), SteppingClock(NOW_S, step_s)
    watch = ProgressWatch(store, metrics, clock)
    sources: dict[str, Callable[[], StubSource]] = {}
    opened: list[StubSource] = []

    def open_stub(url: str, _settings: IngestSettings, cancelled: Cancelled) -> Source:
        source = sources[url]()
        source.cancelled = cancelled
        opened.append(source)
        return source

    ingest = IngestSettings.model_validate({"reconcile_s": 0.01, **settings})
    parts = ReaderParts(producer, store, ingest, metrics, clock, watch, open_stub)
    return Desk(store, producer, metrics, watch, parts, sources, opened)


def add_stream(
    desk: Desk, stream_id: str = "clip", source: Callable[[], StubSource] = StubSource, **fields: object
) -> StreamSpec:
    url = f"stub://{stream_id}"
    desk.sources[url] = source
    spec = StreamSpec(stream_id=stream_id, url=url, **{"sample_fps": "all", "recorded_at_us": 1_000_000, **fields})  # type: ignore[arg-type]
    return desk.store.add(spec)


def frames_of(messages: list[Message]) -> list[Frame]:
    return [message for message in messages if isinstance(message, Frame)]
