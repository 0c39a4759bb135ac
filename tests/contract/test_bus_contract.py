"""What every bus promises, tried on each: in memory, on Kafka, and for the basics on the cluster that librdkafka imitates."""

import random
import threading
import time
from collections import defaultdict

import pytest

from moodline.shared.bus import OLDEST, Position, partition_for
from moodline.shared.errors import BusClosedError, DeliveryError
from tests.contract.bus_bench import DEADLINE_S, PARTITIONS, Bench, last_of_each, poll_until, records_of


def check_order_and_partition(bench: Bench) -> None:
    topic = bench.topic()
    keys = [f"stream-{number}".encode() for number in range(12)]
    consumer = bench.consumer(topic)
    with bench.sending() as producer:
        for number in range(20):
            for key in keys:
                producer.send(topic, key, f"{number}".encode())
    by_key: dict[bytes, list[int]] = defaultdict(list)
    for record in records_of(consumer, 240):
        assert record.position.partition == partition_for(record.key, PARTITIONS)
        by_key[record.key].append(int(record.value))
    assert by_key == {key: list(range(20)) for key in keys}


def check_redelivery_and_commit(bench: Bench) -> None:
    topic = bench.topic()
    bench.send(topic, 30)
    first = bench.consumer(topic, group="workers")
    records = records_of(first, 30)
    done = [record.position for record in records if int(record.value) < 10]
    first.commit(last_of_each(done))
    first.close()
    again = bench.consumer(topic, group="workers")
    assert {int(record.value) for record in records_of(again, 20)} == set(range(10, 30))
    other = bench.consumer(topic, group="others")
    kept: set[int] = set()
    poll_until([other], lambda: kept >= set(range(10, 30)), collect=lambda record: kept.add(int(record.value)))


def test_records_of_a_key_keep_their_order_in_the_partition_of_the_key(bench: Bench) -> None:
    check_order_and_partition(bench)


def test_what_was_not_committed_comes_again_and_what_was_does_not(bench: Bench) -> None:
    check_redelivery_and_commit(bench)


def test_imitated_cluster_keeps_order_too(mock_bench: Bench) -> None:
    check_order_and_partition(mock_bench)


def test_imitated_cluster_delivers_again_too(mock_bench: Bench) -> None:
    check_redelivery_and_commit(mock_bench)


def check_batch_limits(bench: Bench) -> None:
    first, second = bench.topic(), bench.topic()
    limits = {first: 40, second: 6}
    consumer = bench.consumer(first, second, batch_limit=lambda name: limits[name])
    poll_until([consumer], lambda: len(consumer.assignment()) == 2 * PARTITIONS)
    bench.send(first, 100)
    bench.send(second, 30)
    seen: list[int] = []
    sizes: list[tuple[int, int]] = []
    deadline_s = time.monotonic() + DEADLINE_S
    while len(seen) < 130 and time.monotonic() < deadline_s:
        records = consumer.poll(1000, 0.2)
        of_second = sum(record.position.topic == second for record in records)
        sizes.append((len(records) - of_second, of_second))
        seen += [int(record.value) for record in records]
        if len(seen) >= 112:
            limits[second] = 3
    assert sorted(seen) == sorted([*range(100), *range(30)])
    assert max(one for one, _ in sizes) > 6, "the first topic's batches may be larger"
    for one, two in sizes:
        assert one <= 40
        assert two <= max(0, 6 - one)
    assert sizes[-1][1] <= 3, "limits are asked for again each time"


def test_each_topic_has_its_own_batch_limit(bench: Bench) -> None:
    check_batch_limits(bench)


def test_imitated_cluster_keeps_batch_limits_too(mock_bench: Bench) -> None:
    check_batch_limits(mock_bench)


def test_a_batch_that_has_reached_the_least_limit_does_not_linger(bench: Bench) -> None:
    first, second = bench.topic(), bench.topic()
    consumer = bench.consumer(first, second, batch_limit=lambda name: 100 if name == first else 3)
    poll_until([consumer], lambda: len(consumer.assignment()) == 2 * PARTITIONS)
    bench.send(first, 20)
    seen = 0
    started_s = time.monotonic()
    while seen < 18:  # Kafka may give them in pieces, the last of which may be small
        seen += len(consumer.poll(100, 10.0, 30.0))
    assert time.monotonic() - started_s < 25


def test_every_key_goes_to_the_partition_that_is_computed_for_it(bench: Bench) -> None:
    topic = bench.topic()
    chance = random.Random(7)
    keys = {chance.randbytes(chance.randrange(40)) for _ in range(400)} | {b"", "Köln/Straße 1".encode()}
    with bench.sending() as producer:
        for key in keys:
            producer.send(topic, key, b"value")
    records = records_of(bench.consumer(topic), len(keys))
    assert {record.key for record in records} == keys
    assert [record.position.partition for record in records] == [partition_for(record.key, PARTITIONS) for record in records]


def test_a_record_carries_what_was_sent_and_when(bench: Bench) -> None:
    topic = bench.topic()
    before_ms = time.time() * 1000
    payload = bytes(range(256)) * 10
    with bench.sending() as producer:
        producer.send(topic, b"key", payload)
        producer.send(topic, b"key", b"")
    first, second = records_of(bench.consumer(topic), 2)
    assert (first.key, first.value) == (b"key", payload)
    assert second.value == b""
    assert before_ms - 1000 <= first.timestamp_ms <= time.time() * 1000 + 1000
    assert first.position == Position(topic, partition_for(b"key", PARTITIONS), 0)
    assert second.position.offset == 1


def test_ensuring_topics_again_changes_nothing(bench: Bench) -> None:
    topic = bench.topic()
    bench.send(topic, 3)
    bench.bus.ensure_topics([topic, topic])
    assert bench.bus.partitions(topic) == PARTITIONS
    assert len(records_of(bench.consumer(topic), 3)) == 3


def test_topics_ensured_by_many_at_once(bench: Bench) -> None:
    names = [bench.new_name() for _ in range(4)]
    errors: list[BaseException] = []

    def ensure() -> None:
        try:
            bench.bus.ensure_topics(names)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [bench.bus.partitions(name) for name in names] == [PARTITIONS] * 4


def test_seek_back_and_to_the_oldest(bench: Bench) -> None:
    topic = bench.topic()
    bench.send(topic, 20, key=b"one")
    consumer = bench.consumer(topic)
    records = records_of(consumer, 20)
    consumer.seek(records[12].position)
    assert [int(record.value) for record in records_of(consumer, 8)] == list(range(12, 20))
    consumer.seek(records[0].position._replace(offset=OLDEST))
    assert [int(record.value) for record in records_of(consumer, 20)] == list(range(20))


def test_seek_drops_what_was_fetched_before(bench: Bench) -> None:
    topic = bench.topic()
    bench.send(topic, 200, key=b"one")
    consumer = bench.consumer(topic)
    first = records_of(consumer, 5, max_records=5)[0]
    for target in (3, 0, 100, 7):
        consumer.seek(first.position._replace(offset=target))
        got = records_of(consumer, 10, max_records=10)
        assert [record.position.offset for record in got] == list(range(target, target + 10))


def test_seek_right_after_the_assignment(bench: Bench) -> None:
    topic = bench.topic()
    bench.send(topic, 20, key=b"one")
    partition = partition_for(b"one", PARTITIONS)
    for _ in range(3):
        consumer = bench.consumer(topic)
        early = poll_until([consumer], lambda consumer=consumer: bool(consumer.assignment()), max_records=1)
        consumer.seek(Position(topic, partition, 15))
        assert [record.position.offset for record in records_of(consumer, 5)] == list(range(15, 20)), early
        consumer.close()


def test_seek_to_where_nothing_is_kept_goes_to_the_oldest(bench: Bench) -> None:
    topic = bench.topic()
    bench.send(topic, 5, key=b"one")
    consumer = bench.consumer(topic)
    last = records_of(consumer, 5)[-1]
    consumer.seek(last.position._replace(offset=1_000_000))
    assert [record.position.offset for record in records_of(consumer, 5)] == list(range(5))


def test_seek_and_commit_ignore_partitions_of_others(bench: Bench) -> None:
    topic, elsewhere = bench.topic(), bench.topic()
    bench.send(topic, 8)
    bench.send(elsewhere, 3, key=b"one")
    consumer = bench.consumer(topic, group="workers")
    records_of(consumer, 8)
    consumer.seek(Position(elsewhere, 0, 0))
    consumer.seek(Position(topic, 10_000, 0))
    consumer.commit([Position(elsewhere, partition_for(b"one", PARTITIONS), 2), Position(topic, 10_000, 5)])
    assert consumer.poll(10, 0.2) == []
    assert len(records_of(bench.consumer(elsewhere, group="workers"), 3)) == 3


def test_earlier_topics_come_first(bench: Bench) -> None:
    live, files = bench.topic(), bench.topic()
    consumer = bench.consumer(live, files)
    poll_until([consumer], lambda: len(consumer.assignment()) == 2 * PARTITIONS)
    backlog = 20_000
    bench.send(files, backlog)
    read = [record.position for record in records_of(consumer, 20, max_records=20)]
    bench.send(live, 100)
    while sum(position.topic == live for position in read) < 100:
        batch = [record.position for record in consumer.poll(20, 5.0)]
        read += batch
        consumer.commit(last_of_each(batch))
        both = [position.topic for position in batch]
        assert both == sorted(both, key=(live, files).index)
    behind = sum(position.topic == files for position in read)
    assert behind <= (backlog // 2 if bench.remote else 20), "live records overtake a backlog as soon as they are fetched"
    assert len(records_of(consumer, backlog - behind)) == backlog - behind


def test_topics_of_one_consumer_are_committed_apart(bench: Bench) -> None:
    live, files = bench.topic(), bench.topic()
    bench.send(live, 5, key=b"one")
    bench.send(files, 5, key=b"one")
    consumer = bench.consumer(live, files, group="workers")
    records = records_of(consumer, 10)
    consumer.commit([[record for record in records if record.position.topic == live][-1].position])
    consumer.close()
    again = records_of(bench.consumer(live, files, group="workers"), 5)
    assert {record.position.topic for record in again} == {files}


def test_without_linger_the_first_record_returns_at_once(bench: Bench) -> None:
    topic = bench.topic()
    consumer = bench.consumer(topic)
    poll_until([consumer], lambda: len(consumer.assignment()) == PARTITIONS)
    bench.send(topic, 1)
    records_of(consumer, 1)
    bench.send_later(topic, 0.2, count=1)
    started = time.monotonic()
    assert len(consumer.poll(100, 10.0)) == 1
    assert time.monotonic() - started < 5


def test_linger_gathers_a_batch_and_ends_when_it_is_full(bench: Bench) -> None:
    topic = bench.topic()
    consumer = bench.consumer(topic)
    poll_until([consumer], lambda: len(consumer.assignment()) == PARTITIONS)
    bench.send(topic, 1)
    bench.send_later(topic, 0.3, count=4)
    started = time.monotonic()
    batch = consumer.poll(5, 10.0, 20.0)
    assert len(batch) == 5
    assert time.monotonic() - started < 10, "a full batch does not wait"
    bench.send(topic, 1)
    started = time.monotonic()
    assert len(consumer.poll(5, 10.0, 0.5)) == 1
    assert time.monotonic() - started >= 0.5


def test_an_idle_poll_waits_its_time_and_hardly_works(bench: Bench) -> None:
    live, files = bench.topic(), bench.topic()
    consumer = bench.consumer(live, files)
    poll_until([consumer], lambda: len(consumer.assignment()) == 2 * PARTITIONS)
    started, worked = time.monotonic(), time.thread_time()
    assert consumer.poll(10, 1.0) == []
    assert 0.95 <= time.monotonic() - started < 5
    assert time.thread_time() - worked < 0.1


def test_poll_returns_no_more_than_asked(bench: Bench) -> None:
    topic = bench.topic()
    bench.send(topic, 50)
    consumer = bench.consumer(topic)
    sizes = []
    while sum(sizes) < 50:
        sizes.append(len(consumer.poll(7, 10.0, 0.05)))
    assert max(sizes) <= 7


def test_a_record_larger_than_the_bus_is_refused(bench: Bench) -> None:
    topic = bench.topic()
    with bench.sending() as producer:
        with pytest.raises(DeliveryError):
            producer.send(topic, b"key", bytes(16 * 1024 * 1024 + 1))
        producer.send(topic, b"key", b"small")
    assert [record.value for record in records_of(bench.consumer(topic), 1)] == [b"small"]


def test_a_frame_of_four_mib_passes(bench: Bench) -> None:
    topic = bench.topic()
    value = bytes(4 * 1024 * 1024 - 100)
    with bench.sending() as producer:
        for _ in range(3):
            producer.send(topic, b"key", value)
    consumer = bench.consumer(topic, max_prefetch_bytes=256 * 1024)
    assert [len(record.value) for record in records_of(consumer, 3)] == [len(value)] * 3


def test_nothing_works_after_close(bench: Bench) -> None:
    topic = bench.topic()
    consumer = bench.consumer(topic)
    producer = bench.bus.open_producer()
    producer.send(topic, b"key", b"value")
    consumer.close()
    producer.close()
    producer.close()
    for use in (
        lambda: consumer.poll(1, 0.0),
        lambda: consumer.commit([]),
        lambda: consumer.seek(Position(topic, 0, 0)),
        lambda: producer.send(topic, b"key", b"value"),
        producer.flush,
    ):
        with pytest.raises(BusClosedError):
            use()
    assert len(records_of(bench.consumer(topic), 1)) == 1, "close flushes"


def test_many_threads_share_a_producer(bench: Bench) -> None:
    topic = bench.topic()
    with bench.sending() as producer:

        def send(number: int) -> None:
            for count in range(50):
                producer.send(topic, f"stream-{number}".encode(), f"{count}".encode())
                if count % 10 == 0:
                    producer.flush()

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    by_key: dict[bytes, list[int]] = defaultdict(list)
    for record in records_of(bench.consumer(topic), 200):
        by_key[record.key].append(int(record.value))
    assert by_key == {f"stream-{number}".encode(): list(range(50)) for number in range(4)}


def test_flush_does_not_wait_for_what_others_go_on_sending(bench: Bench) -> None:
    topic = bench.topic()
    stop = threading.Event()
    with bench.sending() as producer:

        def send() -> None:
            consumer = bench.consumer(topic)
            while not stop.is_set():
                producer.send(topic, b"other", b"value")
                if not bench.remote:
                    consumer.commit([record.position for record in consumer.poll(10, 0.0)])

        other = threading.Thread(target=send)
        other.start()
        try:
            for _ in range(5):
                producer.send(topic, b"mine", b"value")
                producer.flush(5.0)
        finally:
            stop.set()
            other.join()
