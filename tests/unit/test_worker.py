"""The worker's loop, through its seams: what is committed, what is read again, what becomes a dead letter."""

import threading
from collections.abc import Callable, Iterable, Sequence

import pytest

from moodline.shared.bus.base import Position, Record
from moodline.shared.errors import BusFullError, DeliveryError, NotDeliveredYetError, StoreUnavailableError
from moodline.shared.messages import DLQ_TOPIC, Faces, PipelineStep, StreamClass, decode, decode_dead_letter, encode, topic
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.health import Health
from moodline.shared.pipeline.stage import Output, Received, Rewind, Send, Written
from moodline.shared.pipeline.worker import ProducerSink, Sink, Worker, WorkerOptions
from tests.support.clocks import SleeplessClock

IN_TOPIC = topic(PipelineStep.FACES, StreamClass.FILE)
OUT_TOPIC = topic(PipelineStep.EMOTIONS, StreamClass.FILE)
LIVE_TOPIC = topic(PipelineStep.EMOTIONS, StreamClass.LIVE)


class StubStop(threading.Event):
    """Records waits instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


class StubConsumer:
    """One partition's log; poll returns from the position, at most `max_records`."""

    def __init__(self, values: Sequence[bytes]) -> None:
        self.values = list(values)
        self.next = 0
        self.done_to = -1
        self.events: list[str] = []

    def poll(self, max_records: int, timeout_s: float, linger_s: float = 0.0) -> list[Record]:
        stop = min(len(self.values), self.next + max_records)
        records = [Record(Position(IN_TOPIC, 0, offset), b"s", self.values[offset], 999_000) for offset in range(self.next, stop)]
        self.next = stop
        return records

    def commit(self, positions: Iterable[Position]) -> None:
        for position in positions:
            self.done_to = position.offset
            self.events.append(f"commit {position.offset}")

    def seek(self, position: Position) -> None:
        self.next = max(0, position.offset)
        self.events.append(f"seek {position.offset}")

    def assignment(self) -> frozenset[tuple[str, int]]:
        return frozenset({(IN_TOPIC, 0)})

    def ends(self) -> dict[tuple[str, int], int]:
        return {(IN_TOPIC, 0): len(self.values)}

    def committed(self) -> dict[tuple[str, int], int]:
        return {}

    def standing(self) -> dict[tuple[str, int], float]:
        return {}

    def close(self) -> None:
        self.events.append("close")


class StubProducer:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.flushed = 0
        self.on_send: Callable[[], None] = lambda: None
        self.on_flush: Callable[[], None] = lambda: None

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        self.on_send()
        self.sent.append((topic, key, value))

    def flush(self, timeout_s: float = 60.0) -> None:
        self.on_flush()
        self.flushed = len(self.sent)

    def close(self) -> None: ...


class EchoStage:
    """Sends each message on; fails on the seqs it is told to."""

    def __init__(self) -> None:
        self.fail_on: dict[int, list[Exception]] = {}
        self.always_fail: set[int] = set()
        self.revoked: list[frozenset[tuple[str, int]]] = []
        self.refused: list[frozenset[str]] = []
        self.closed = False
        self.out_topic = OUT_TOPIC
        self.extra: list[Output] = []

    def process(self, batch: Sequence[Received], now_s: float) -> list[Output]:
        outputs: list[Output] = []
        for item in batch:
            if self.fail_on.get(item.message.seq):
                raise self.fail_on[item.message.seq].pop()
            if item.message.seq in self.always_fail:
                raise ValueError("cannot")
            outputs.append(Send(self.out_topic, item.message))
        extra, self.extra = self.extra, []
        return outputs + extra

    def tick(self, now_s: float) -> list[Output]:
        return []

    def on_revoked(self, partitions: frozenset[tuple[str, int]]) -> None:
        self.revoked.append(partitions)

    def on_refused(self, stream_ids: frozenset[str]) -> None:
        self.refused.append(stream_ids)

    def close(self) -> None:
        self.closed = True


def message(seq: int) -> bytes:
    return encode(
        Faces(stream_id="s", epoch=1, seq=seq, event_time_us=seq, captured_at_us=0, lane=StreamClass.FILE, width=8, height=8)
    )


class Rig:
    def __init__(
        self, values: Sequence[bytes], *, max_records: int = 100, poison_limit: int = 5, sink: Sink | None = None
    ) -> None:
        self.consumer, self.producer, self.stage = StubConsumer(values), StubProducer(), EchoStage()
        self.stop, self.metrics = StubStop(), Metrics()
        self.health = Health(self.metrics, SleeplessClock(1000.0, 1.0))
        sink = sink or ProducerSink("w", self.producer, self.metrics, self.stop, self.health)
        options = WorkerOptions("w", max_records, 0.0, poison_limit)
        self.worker = Worker(
            options, self.consumer, self.stage, sink, self.producer, self.metrics, SleeplessClock(1000.0, 1.0), self.health
        )

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.worker.step(self.stop)

    def out_seqs(self) -> list[int]:
        return [decode(value).seq for topic, _, value in self.producer.sent if topic != DLQ_TOPIC]

    def dead(self) -> list[tuple[str, int]]:
        letters = [decode_dead_letter(value) for topic, _, value in self.producer.sent if topic == DLQ_TOPIC]
        return [(letter.reason, letter.offset) for letter in letters]


def test_outputs_are_durable_before_their_inputs_are_committed() -> None:
    rig = Rig([message(seq) for seq in range(5)])
    flushed_at_commit: list[int] = []
    original = rig.consumer.commit
    rig.consumer.commit = lambda positions: (flushed_at_commit.append(rig.producer.flushed), original(positions))[1]  # type: ignore[method-assign]
    rig.step()
    assert flushed_at_commit == [5]
    assert rig.consumer.done_to == 4
    assert rig.out_seqs() == [0, 1, 2, 3, 4]


def test_a_record_that_is_no_message_goes_to_the_dead_letters_and_the_rest_goes_on() -> None:
    rig = Rig([message(0), b"\xff\x00garbage", message(1)])
    rig.step()
    assert rig.out_seqs() == [0, 1]
    assert rig.dead() == [("malformed", 1)]
    assert rig.consumer.done_to == 2
    assert rig.producer.flushed == 3


def test_with_too_many_bad_records_in_a_row_a_worker_goes_on_and_is_not_ready_until_a_good_one_comes() -> None:
    rig = Rig([b"x"] * 4 + [message(0)] + [b"x"] * 5 + [message(1)], max_records=1)
    rig.step(9)
    assert rig.health.waiting() is None
    rig.step()
    assert "the last 5 could not, the newest at moodline.faces.file.v1/0@9" in (rig.health.waiting() or "")
    rig.step()
    assert rig.health.waiting() is None
    assert rig.health.problem() is None
    assert rig.out_seqs() == [0, 1]
    assert rig.consumer.done_to == 10


def test_a_message_on_which_the_stage_fails_is_buried_alone() -> None:
    rig = Rig([message(seq) for seq in range(4)])
    rig.stage.always_fail = {2}
    rig.step()
    assert rig.out_seqs() == [0, 1, 3]
    assert rig.dead() == [("stage_error", 2)]
    assert rig.consumer.done_to == 3
    assert rig.stage.revoked, "state that a failure may have spoilt is forgotten"


def test_a_failure_that_passes_loses_nothing() -> None:
    rig = Rig([message(seq) for seq in range(4)])
    rig.stage.fail_on = {2: [ValueError("once")]}
    rig.step()
    assert rig.out_seqs() == [0, 1, 2, 3]
    assert rig.dead() == []


def test_an_unreachable_store_makes_the_worker_read_the_batch_again() -> None:
    rig = Rig([message(seq) for seq in range(4)])
    rig.stage.fail_on = {3: [StoreUnavailableError("down"), StoreUnavailableError("down")]}
    rig.step(2)
    assert rig.consumer.done_to == -1
    assert rig.consumer.events == ["seek 0", "seek 0"]
    assert rig.stop.waits == [0.1, 0.2], "the pause grows"
    rig.step()
    assert rig.out_seqs()[-4:] == [0, 1, 2, 3]
    assert rig.consumer.done_to == 3
    assert rig.stage.revoked == [frozenset({(IN_TOPIC, 0)})] * 2


def test_a_lost_delivery_on_a_file_topic_is_read_again_and_at_last_stops_the_worker_without_a_commit() -> None:
    rig = Rig([message(0)])

    def lose() -> None:
        raise DeliveryError("lost", frozenset({OUT_TOPIC, LIVE_TOPIC}))

    rig.producer.on_flush = lose
    for _ in range(9):
        rig.step()
        assert rig.consumer.next == 0, "the batch is read again"
    with pytest.raises(DeliveryError):
        rig.step()
    assert rig.consumer.done_to == -1


def test_a_batch_that_is_not_durable_yet_is_kept_and_waited_for() -> None:
    rig = Rig([message(0)])
    waited: list[str | None] = []

    def be_late() -> None:
        if len(waited) < 20:
            waited.append(rig.health.waiting())
            raise NotDeliveredYetError("60 s", frozenset({OUT_TOPIC}))

    rig.producer.on_flush = be_late
    rig.step()
    assert rig.consumer.done_to == 0
    assert len(rig.producer.sent) == 1, "sent once, for as long as it took"
    assert waited[-1] == "w waits: bus: 60 s"
    assert rig.health.problem() is None
    assert rig.health.waiting() is None, "ready again"


def test_a_lost_delivery_on_live_topics_only_goes_on() -> None:
    rig = Rig([message(0)])
    rig.stage.out_topic = LIVE_TOPIC

    def lose() -> None:
        raise DeliveryError("lost", frozenset({LIVE_TOPIC}))

    rig.producer.on_flush = lose
    rig.step()
    assert rig.consumer.done_to == 0


def test_a_full_bus_is_waited_for() -> None:
    rig = Rig([message(0), message(1)])
    refusals = [BusFullError("full")] * 3

    def refuse() -> None:
        if refusals:
            raise refusals.pop()

    rig.producer.on_send = refuse
    rig.step()
    assert rig.out_seqs() == [0, 1]
    assert rig.consumer.done_to == 1


def test_a_worker_that_is_told_to_stop_does_not_wait_for_a_full_bus() -> None:
    rig = Rig([message(0)])

    def refuse() -> None:
        rig.stop.set()
        raise BusFullError("full")

    rig.producer.on_send = refuse
    rig.worker.run(rig.stop)
    assert rig.consumer.done_to == -1
    assert rig.stage.closed
    assert rig.consumer.events[-1] == "close"


class RefusingSink:
    """Refuses what it is given first."""

    def __init__(self) -> None:
        self.answers = [Written([Position(IN_TOPIC, 0, 1)], frozenset({"s"}))]

    def write(self, outputs: Sequence[Output]) -> Written:
        return self.answers.pop() if self.answers else Written()


def test_the_stage_hears_of_the_streams_that_were_refused_before_they_come_again() -> None:
    rig = Rig([message(seq) for seq in range(4)], sink=RefusingSink())
    rig.step()
    assert (rig.stage.refused, rig.consumer.events) == ([frozenset({"s"})], ["seek 1"])
    rig.step()
    assert (rig.stage.refused, rig.consumer.events) == ([frozenset({"s"})], ["seek 1", "commit 3"])


def test_a_rewind_seeks_and_keeps_its_partition_uncommitted() -> None:
    rig = Rig([message(seq) for seq in range(4)])
    rig.stage.extra = [Rewind(Position(IN_TOPIC, 0, 1))]
    rig.step()
    assert rig.consumer.events == ["seek 1"]
    rig.step()
    assert rig.consumer.events == ["seek 1", "commit 3"]
    assert rig.out_seqs() == [0, 1, 2, 3, 1, 2, 3]


def test_of_several_rewinds_in_a_partition_the_furthest_back_counts() -> None:
    rig = Rig([message(seq) for seq in range(4)])
    rig.stage.extra = [Rewind(Position(IN_TOPIC, 0, 1)), Rewind(Position(IN_TOPIC, 0, 0)), Rewind(Position(IN_TOPIC, 0, 3))]
    rig.step()
    assert rig.consumer.events == ["seek 0"]
