"""How far a worker is behind, as its metrics show it."""

import threading
from collections.abc import Sequence

from moodline.shared.bus import ConsumerSettings, open_bus
from moodline.shared.bus.base import Position, Record
from moodline.shared.bus.memory import MemoryBus
from moodline.shared.errors import StoreUnavailableError
from moodline.shared.messages import ALL_TOPICS, Emotions, PipelineStep, StreamClass, encode, topic
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.lag import Behind, Lag
from moodline.shared.pipeline.stage import Output, Received, Written
from moodline.shared.pipeline.worker import Worker, WorkerOptions
from tests.support.clocks import SleepingClock

TOPIC = topic(PipelineStep.EMOTIONS, StreamClass.FILE)
PLACE = (TOPIC, 0)


def record(offset: int, at_ms: int, partition: int = 0) -> Record:
    return Record(Position(TOPIC, partition, offset), b"s", b"", at_ms)


def poll(lag: Lag, end: int, now_ms: float) -> Behind:
    return lag.poll({PLACE: end}, {PLACE}, (TOPIC,), now_ms)[TOPIC]


def test_a_batch_in_hand_is_as_old_as_its_oldest_record() -> None:
    lag = Lag()
    lag.took([record(5, 1000), record(6, 3000)])
    assert poll(lag, 10, 4000) == Behind(5, 1000, 1)
    lag.committed([Position(TOPIC, 0, 6)])
    assert poll(lag, 10, 4000) == Behind(3, 3000, 1), "the next one came after the newest that is done"


def test_what_came_after_nothing_was_left_is_not_older_than_that() -> None:
    lag = Lag()
    lag.took([record(5, 1000)])
    lag.committed([Position(TOPIC, 0, 5)])
    assert poll(lag, 6, 500_000) == Behind(0, None, 1)
    assert poll(lag, 7, 500_200) == Behind(1, 500_000, 1), "not the 499 s since the last record"


def test_records_that_come_again_are_the_oldest_until_they_are_committed() -> None:
    lag = Lag()
    lag.took([record(5, 5000)])
    lag.took([record(2, 2000), record(3, 3000)])
    assert poll(lag, 6, 9000) == Behind(4, 2000, 1)
    lag.took([record(4, 4000), record(5, 5000)])
    assert poll(lag, 6, 9000) == Behind(4, 2000, 1), "not committed yet"
    lag.committed([Position(TOPIC, 0, 5)])
    assert poll(lag, 6, 9000) == Behind(0, None, 1)


def test_a_partition_that_has_moved_away_is_forgotten() -> None:
    lag = Lag()
    lag.took([record(5, 5000), record(1, 7000, partition=1)])
    other = (TOPIC, 1)
    assert lag.poll({other: 4}, {other}, (TOPIC,), 9000)[TOPIC] == Behind(3, 7000, 1)


class StubStage:
    def __init__(self) -> None:
        self.store_is_away = False

    def process(self, batch: Sequence[Received], now_s: float) -> list[Output]:
        if self.store_is_away:
            raise StoreUnavailableError("away")
        return []

    def tick(self, now_s: float) -> list[Output]:
        return []

    def on_revoked(self, partitions: frozenset[tuple[str, int]]) -> None: ...

    def on_refused(self, stream_ids: frozenset[str]) -> None: ...

    def close(self) -> None: ...


class StubSink:
    def write(self, outputs: Sequence[Output]) -> Written:
        return Written()


class StubStop(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


class Rig:
    """A worker that takes two messages at a time from a memory bus."""

    def __init__(self) -> None:
        self.clock, self.metrics, self.stage, self.stop = SleepingClock(), Metrics(), StubStage(), StubStop()
        bus = MemoryBus(partitions=1, max_bytes=1_000_000, clock=self.clock)
        bus.ensure_topics(ALL_TOPICS)
        self.producer = bus.open_producer()
        consumer = bus.open_consumer(ConsumerSettings(group="g", topics=(TOPIC,)))
        options = WorkerOptions("w", 2, 0.0, idle_s=0.0)
        self.worker = Worker(options, consumer, self.stage, StubSink(), self.producer, self.metrics, self.clock)

    def send(self, count: int) -> None:
        for seq in range(count):
            message = Emotions(
                stream_id="s", epoch=1, seq=seq, event_time_us=0, captured_at_us=0, lane=StreamClass.FILE, width=1, height=1
            )
            self.producer.send(TOPIC, b"s", encode(message))

    def step(self, after_s: float = 0.5) -> None:
        self.clock.time_s += after_s
        self.worker.step(self.stop)

    def metric(self, name: str) -> float | None:
        labels = {"worker": "w", "topic": TOPIC} if name == "moodline_partitions" else {"worker": "w", "lane": "file"}
        return self.metrics.registry.get_sample_value(name, labels)


def test_a_backlog_shows_in_messages_and_seconds_and_goes_as_it_is_worked_off() -> None:
    rig = Rig()
    rig.send(5)
    rig.step(30)
    assert (rig.metric("moodline_lag_messages"), rig.metric("moodline_lag_seconds")) == (5, 30)
    rig.step(1)
    assert (rig.metric("moodline_lag_messages"), rig.metric("moodline_lag_seconds")) == (3, 31)
    rig.step()
    rig.step()
    assert (rig.metric("moodline_lag_messages"), rig.metric("moodline_lag_seconds")) == (0, 0)
    rig.clock.time_s += 1000
    assert rig.metric("moodline_lag_seconds") == 0, "an idle worker is not behind"
    assert rig.metric("moodline_partitions") == 1


def test_the_lag_grows_while_the_store_is_away_and_while_the_worker_does_nothing() -> None:
    rig = Rig()
    rig.stage.store_is_away = True
    rig.send(1)
    rig.step(0)
    rig.clock.time_s += 20
    assert rig.metric("moodline_lag_seconds") == 20, "read between two turns of the loop"
    rig.step(1)
    assert (rig.metric("moodline_lag_messages"), rig.metric("moodline_lag_seconds")) == (1, 21)
    rig.stage.store_is_away = False
    rig.step()
    rig.step()
    assert rig.metric("moodline_lag_seconds") == 0


def test_a_batch_that_comes_right_after_a_look_shows_too() -> None:
    rig = Rig()
    rig.step()
    rig.clock.time_s += 10
    rig.step(0)
    rig.send(1)
    rig.stage.store_is_away = True
    rig.step(0)
    rig.clock.time_s += 50
    assert rig.metric("moodline_lag_seconds") == 50, "it hangs in this batch, and does not look any more"


def test_headers_travel_beside_the_value() -> None:
    bus = open_bus("memory://", partitions=1)
    bus.ensure_topics([TOPIC])
    bus.open_producer().send(TOPIC, b"k", b"v", (("traceparent", b"00-1"),))
    (found,) = bus.open_consumer(ConsumerSettings(group="g", topics=(TOPIC,))).poll(1, 1.0)
    assert found.headers == (("traceparent", b"00-1"),)
    bus.close()
