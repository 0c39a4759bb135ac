"""What only the memory bus promises: bounded in bytes, blocking while full, groups that no silent member can hold up."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.shared.bus import ConsumerSettings, Record, partition_for
from moodline.shared.bus.memory import MemoryBus, MemoryConsumer, MemoryProducer
from moodline.shared.bus.memory_topic import RECORD_OVERHEAD_BYTES, Member, Share, Topic
from moodline.shared.errors import BusClosedError, BusError, BusFullError, DeliveryError
from moodline.shared.messages import DLQ_TOPIC
from tests.support.clocks import SleepingClock

KiB = 1024
VALUE = bytes(10 * KiB)


@pytest.fixture
def clock() -> SleepingClock:
    return SleepingClock()


@pytest.fixture
def bus(clock: SleepingClock) -> Iterator[MemoryBus]:
    bus = MemoryBus(4, 100 * KiB, send_timeout_s=0.05, session_timeout_s=10, clock=clock)
    bus.ensure_topics(["t", "u", DLQ_TOPIC])
    yield bus
    bus.close()


def reader(bus: MemoryBus, group: str = "g", topic: str = "t") -> MemoryConsumer:
    return bus.open_consumer(ConsumerSettings(group, (topic,)))


def fill(producer: MemoryProducer, topic: str = "t") -> int:
    sent = 0
    try:
        while True:
            producer.send(topic, b"key", VALUE)
            sent += 1
    except BusFullError:
        return sent


def read_and_commit(consumer: MemoryConsumer, count: int) -> list[Record]:
    records = consumer.poll(count, 0.0)
    consumer.commit([record.position for record in records])
    return records


def test_a_topic_never_holds_more_than_its_bound(bus: MemoryBus) -> None:
    producer = bus.open_producer()
    assert fill(producer) == 9
    assert 90 * KiB < bus.stored_bytes("t") <= 100 * KiB
    producer.send("u", b"key", VALUE)
    assert bus.stored_bytes("u") == len(VALUE) + 3 + RECORD_OVERHEAD_BYTES


def test_tiny_records_count_for_what_they_cost(bus: MemoryBus) -> None:
    producer = bus.open_producer()
    for _ in range(100 * KiB // RECORD_OVERHEAD_BYTES):
        producer.send("t", b"", b"")
    with pytest.raises(BusFullError):
        producer.send("t", b"", b"")


def test_records_sent_before_anyone_reads_wait(bus: MemoryBus) -> None:
    sent = fill(bus.open_producer())
    assert len(reader(bus).poll(100, 0.0)) == sent


def test_only_what_every_group_has_committed_is_freed(bus: MemoryBus) -> None:
    producer, first, second = bus.open_producer(), reader(bus, "one"), reader(bus, "two")
    sent = fill(producer)
    assert len(read_and_commit(first, sent)) == sent
    assert bus.stored_bytes("t") > 90 * KiB
    with pytest.raises(BusFullError):
        producer.send("t", b"key", VALUE)
    read_and_commit(second, 4)
    assert bus.stored_bytes("t") < 60 * KiB
    assert fill(producer) == 4
    first.close()
    assert len(read_and_commit(reader(bus, "one"), 100)) == 4


def test_reading_without_commit_frees_nothing(bus: MemoryBus) -> None:
    producer, consumer = bus.open_producer(), reader(bus)
    fill(producer)
    assert consumer.poll(100, 0.0)
    with pytest.raises(BusFullError):
        producer.send("t", b"key", VALUE)


def test_a_group_that_left_still_holds_its_records(bus: MemoryBus) -> None:
    producer, consumer = bus.open_producer(), reader(bus)
    consumer.close()
    sent = fill(producer)
    assert len(reader(bus).poll(100, 0.0)) == sent


def test_a_blocked_sender_goes_on_when_a_commit_makes_room(bus: MemoryBus) -> None:
    bus.send_timeout_s = 30
    producer, consumer = bus.open_producer(), reader(bus)
    for _ in range(9):
        producer.send("t", b"key", VALUE)
    times: list[float] = []

    def send() -> None:
        producer.send("t", b"key", VALUE)
        times.append(time.monotonic())

    sender = threading.Thread(target=send)
    sender.start()
    sender.join(0.1)
    assert sender.is_alive()
    committed = time.monotonic()
    read_and_commit(consumer, 1)
    sender.join(10)
    assert times[0] - committed < 5


@pytest.mark.parametrize("who", ["producer", "bus"])
def test_a_blocked_sender_is_released_by_close(bus: MemoryBus, who: str) -> None:
    bus.send_timeout_s = 30
    producer = bus.open_producer()
    for _ in range(9):
        producer.send("t", b"key", VALUE)
    errors: list[BaseException] = []

    def send() -> None:
        try:
            producer.send("t", b"key", VALUE)
        except BusClosedError as error:
            errors.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    sender.join(0.05)
    (producer if who == "producer" else bus).close()
    sender.join(5)
    assert len(errors) == 1


def test_closing_the_bus_releases_a_waiting_poll(bus: MemoryBus) -> None:
    consumer = reader(bus)
    threading.Timer(0.05, bus.close).start()
    with pytest.raises(BusClosedError):
        consumer.poll(1, 30.0)


def test_a_record_that_can_never_fit_is_refused_at_once(bus: MemoryBus) -> None:
    with pytest.raises(DeliveryError):
        bus.open_producer().send("t", b"key", bytes(100 * KiB))


def test_unknown_topics_are_named(bus: MemoryBus) -> None:
    for use in (lambda: bus.partitions("x"), lambda: reader(bus, topic="x"), lambda: bus.open_producer().send("x", b"", b"")):
        with pytest.raises(BusError, match="'x' does not exist"):
            use()


def test_dead_letters_drop_the_oldest_and_never_block(bus: MemoryBus, clock: SleepingClock) -> None:
    producer = bus.open_producer()
    for number in range(50):
        clock.time_s += 1
        producer.send(DLQ_TOPIC, f"{number}".encode(), VALUE)
        assert bus.stored_bytes(DLQ_TOPIC) <= 100 * KiB
    kept = sorted(int(record.key) for record in reader(bus, topic=DLQ_TOPIC).poll(100, 0.0))
    assert kept == list(range(41, 50))


def test_a_reader_of_dead_letters_goes_on_behind_what_was_dropped(bus: MemoryBus, clock: SleepingClock) -> None:
    producer, consumer = bus.open_producer(), reader(bus, topic=DLQ_TOPIC)
    consumer.poll(1, 0.0)
    for number in range(50):
        clock.time_s += 1
        producer.send(DLQ_TOPIC, b"key", f"{number}".encode() + VALUE)
    records = consumer.poll(100, 0.0)
    assert [record.position.offset for record in records] == list(range(41, 50))


def test_commits_never_go_back(bus: MemoryBus) -> None:
    producer, consumer = bus.open_producer(), reader(bus)
    reader(bus, "another group, for which everything is kept")
    for _ in range(6):
        producer.send("t", b"key", b"value")
    records = consumer.poll(6, 0.0)
    consumer.commit([records[3].position])
    consumer.commit([records[1].position])
    consumer.close()
    assert [record.position.offset for record in reader(bus).poll(6, 0.0)] == [4, 5]


def test_seeking_before_what_is_kept_goes_to_the_oldest(bus: MemoryBus) -> None:
    producer, consumer = bus.open_producer(), reader(bus)
    for _ in range(6):
        producer.send("t", b"key", b"value")
    records = read_and_commit(consumer, 4)
    consumer.seek(records[0].position)
    assert [record.position.offset for record in consumer.poll(6, 0.0)] == [4, 5]


def test_a_new_consumer_waits_until_the_old_one_has_let_go(bus: MemoryBus) -> None:
    old = reader(bus)
    old.poll(1, 0.0)
    new = reader(bus)
    assert new.poll(1, 0.0) == []
    assert new.assignment() == frozenset()
    assert len(old.assignment()) == 4, "ownership changes in its own poll only"
    old.poll(1, 0.0)
    assert len(old.assignment()) == 2
    new.poll(1, 0.0)
    assert len(new.assignment()) == 2


def test_a_consumer_that_stops_polling_loses_what_others_wait_for(bus: MemoryBus, clock: SleepingClock) -> None:
    producer = bus.open_producer()
    for number in range(16):
        producer.send("t", f"{number}".encode(), b"value")
    lost: list[frozenset[tuple[str, int]]] = []
    silent = bus.open_consumer(ConsumerSettings("g", ("t",), on_revoked=lost.append))
    mine = silent.poll(16, 0.0)
    other = reader(bus)
    clock.time_s += 9
    assert other.poll(16, 0.0) == []
    clock.time_s += 2
    taken = other.poll(16, 0.0)
    assert {record.position for record in taken} == {record.position for record in mine}
    silent.commit([record.position for record in mine])
    assert lost == [], "it hears of it in its next poll"
    silent.poll(0, 0.0)
    assert frozenset().union(*lost) == {("t", partition) for partition in range(4)}
    other.poll(0, 0.0)
    again = silent.poll(16, 0.0)
    assert {record.position.partition for record in again} == {partition for _, partition in silent.assignment()}
    assert len(silent.assignment()) == len(other.assignment()) == 2


def test_a_commit_is_a_sign_of_life(bus: MemoryBus, clock: SleepingClock) -> None:
    slow = reader(bus)
    slow.poll(1, 0.0)
    other = reader(bus)
    for _ in range(5):
        clock.time_s += 9
        slow.commit([])
        other.poll(1, 0.0)
    assert other.assignment() == frozenset()


def test_a_consumer_inside_poll_is_not_silent(bus: MemoryBus, clock: SleepingClock) -> None:
    lost: list[tuple[str, int]] = []
    waiting = bus.open_consumer(ConsumerSettings("g", ("t",), on_revoked=lost.extend))
    waiting.poll(1, 0.0)
    thread = threading.Thread(target=waiting.poll, args=(1, 0.6))
    thread.start()
    clock.time_s += 100
    new = reader(bus)
    deadline_s = time.monotonic() + 5
    while len(new.assignment()) < 2 and time.monotonic() < deadline_s:
        new.poll(1, 0.01)
    assert thread.is_alive(), "it gave up its half inside its poll, at once"
    assert len(new.assignment()) == len(waiting.assignment()) == 2
    assert set(lost) == new.assignment(), "it was not removed from the group"
    thread.join()


def test_a_partition_passes_on_only_after_on_revoked_has_returned(bus: MemoryBus) -> None:
    seen: list[int] = []
    old = bus.open_consumer(ConsumerSettings("g", ("t",), on_revoked=lambda _: seen.append(len(poll_new()))))
    old.poll(1, 0.0)
    new = reader(bus)

    def poll_new() -> frozenset[tuple[str, int]]:
        new.poll(1, 0.0)
        return new.assignment()

    old.poll(1, 0.0)
    assert seen == [0]
    assert len(poll_new()) == 2


def test_changes_during_on_revoked_are_served_in_the_same_poll(bus: MemoryBus) -> None:
    late: list[MemoryConsumer] = []

    def on_revoked(_: frozenset[tuple[str, int]]) -> None:
        if not late:
            late.extend([reader(bus), reader(bus)])

    old = bus.open_consumer(ConsumerSettings("g", ("t",), on_revoked=on_revoked))
    old.poll(1, 0.0)
    others = [reader(bus)]
    old.poll(1, 0.0)
    assert len(old.assignment()) == 1
    others += late
    for consumer in others:
        consumer.poll(1, 0.0)
    assert [len(consumer.assignment()) for consumer in others] == [1, 1, 1]


def test_a_long_stream_passes_in_order_and_leaves_nothing(bus: MemoryBus) -> None:
    producer, consumer = bus.open_producer(), reader(bus)
    seen: list[int] = []
    for start in range(0, 6000, 100):
        for number in range(start, start + 100):
            producer.send("t", b"key", f"{number}".encode())
        seen += [int(record.value) for record in read_and_commit(consumer, 70)]
        seen += [int(record.value) for record in read_and_commit(consumer, 70)]
    assert seen == list(range(6000))
    assert bus.stored_bytes("t") == 0


def test_groups_do_not_disturb_each_other(bus: MemoryBus) -> None:
    one, two = reader(bus, "one"), reader(bus, "two")
    bus.open_producer().send("t", b"key", b"value")
    assert len(one.poll(1, 0.0)) == len(two.poll(1, 0.0)) == 1
    assert len(one.assignment()) == len(two.assignment()) == 4


def test_partitions_take_turns(bus: MemoryBus) -> None:
    producer, consumer = bus.open_producer(), reader(bus)
    keys = {partition_for(key, 4): key for key in (f"{number}".encode() for number in range(100))}
    for key in keys.values():
        for _ in range(8):
            producer.send("t", key, b"value")
    polls = [consumer.poll(8, 0.0) for _ in range(4)]
    assert {records[0].position.partition for records in polls} == {0, 1, 2, 3}


class Group:
    """Members of one group that all poll after every change."""

    def __init__(self, partitions: int) -> None:
        self.lock = threading.Lock()
        self.share = Share(Topic("t", partitions, 1, False, self.lock))
        self.owned: dict[Member, set[int]] = {}

    def change(self, member: Member) -> None:
        """Let a member join, or leave if it is there."""
        if member in self.owned:
            del self.owned[member]
            self.share.leave(member)
        else:
            self.owned[member] = set()
            self.share.join(member)
        for each, partitions in self.owned.items():
            for partition in [partition for partition in partitions if not self.share.keeps(each, partition)]:
                partitions.remove(partition)
                self.share.release(each, partition)
        for each, partitions in self.owned.items():
            partitions.update(self.share.acquire(each))


@given(st.integers(1, 40), st.lists(st.integers(0, 6), max_size=30))
def test_dealing_is_even_complete_and_moves_as_little_as_possible(partitions: int, changes: list[int]) -> None:
    group = Group(partitions)
    members = [Member(("t",), group.lock, 0.0) for _ in range(7)]
    for number in changes:
        member = members[number]
        before = {each: set(places) for each, places in group.owned.items()}
        with group.lock:
            group.change(member)
        counts = [len(places) for places in group.owned.values()]
        assert sorted(itertools.chain(*group.owned.values())) == list(range(partitions)) * bool(group.owned)
        assert not counts or max(counts) - min(counts) <= 1
        moved = sum(len(places - before.get(each, set())) for each, places in group.owned.items())
        gone_or_new = (before[member] if group.owned else set()) if member in before else group.owned[member]
        assert moved == len(gone_or_new), "only what joins or leaves moves"
        assert not group.share.moving
