"""What travels beside a record, and what a consumer knows of the ends of its partitions, on every bus."""

import time

from moodline.shared.bus import Position
from tests.contract.bus_bench import Bench, last_of_each, poll_until, records_of
from tests.support.servers import wait_until


def test_headers_arrive_as_they_were_sent_and_records_without_have_none(bench: Bench) -> None:
    topic = bench.topic()
    consumer = bench.consumer(topic)
    headers = (("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("bytes", b"\x00\xff"))
    with bench.sending() as producer:
        producer.send(topic, b"key", b"with", headers)
        producer.send(topic, b"key", b"without")
    assert {record.value: record.headers for record in records_of(consumer, 2)} == {b"with": headers, b"without": ()}


def test_the_end_of_a_partition_is_after_its_newest_record(bench: Bench) -> None:
    topic = bench.topic()
    bench.send(topic, 7, key=b"key")
    consumer = bench.consumer(topic)
    records = records_of(consumer, 7, max_records=3)
    ((place, newest),) = ((position[:2], position.offset) for position in last_of_each([record.position for record in records]))
    assert consumer.ends()[place] == newest + 1
    assert consumer.ends().keys() <= consumer.assignment()
    bench.send(topic, 5, key=b"key")
    poll_until([consumer], lambda: consumer.ends()[place] == newest + 6)


def test_going_back_does_not_move_the_end(bench: Bench) -> None:
    topic = bench.topic()
    bench.send(topic, 4, key=b"key")
    consumer = bench.consumer(topic)
    place = records_of(consumer, 4)[0].position[:2]
    consumer.seek(Position(*place, 1))
    assert len(records_of(consumer, 3)) == 3
    assert consumer.ends()[place] == 4


def test_the_records_of_a_time_are_found(bench: Bench) -> None:
    topic = bench.topic()
    consumer = bench.consumer(topic)
    first: dict[int, Position] = {}
    produced_ms: list[int] = []
    for _ in range(3):
        bench.send(topic, 2, key=b"key")
        records = records_of(consumer, 2)
        produced_ms.append(records[0].timestamp_ms)
        first.setdefault(records[0].timestamp_ms, records[0].position)
        wait_until(lambda: int(time.time() * 1000) > produced_ms[-1] + 1, what="a later millisecond")
    place = next(iter(first.values()))[:2]
    for time_ms, position in first.items():
        assert bench.bus.offset_at(*place, time_ms) == position.offset
    assert bench.bus.offset_at(*place, 0) == 0, "everything is later"
    assert bench.bus.offset_at(*place, produced_ms[1] - 1) == first[produced_ms[1]].offset
    assert bench.bus.offset_at(*place, produced_ms[-1] + 3_600_000) is None, "nothing is"
    empty = next(partition for partition in range(bench.bus.partitions(topic)) if partition != place[1])
    assert bench.bus.offset_at(topic, empty, 0) is None


def test_what_a_group_has_not_committed_is_told_whether_it_ever_read_or_not(bench: Bench) -> None:
    topic, group = bench.topic(), "left"
    bench.send(topic, 7, key=b"key")
    consumer = bench.consumer(topic, group=group)
    records = records_of(consumer, 7)
    place, name = records[0].position[:2], bench.group(group)
    assert bench.bus.uncommitted("nobody", *place) == 7
    assert bench.bus.uncommitted(name, *place) == 7, "read is not done"
    consumer.commit([records[4].position])
    assert bench.bus.uncommitted(name, *place) == 2
    bench.send(topic, 3, key=b"key")
    assert bench.bus.uncommitted(name, *place) == 5
