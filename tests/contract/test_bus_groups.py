"""How every bus deals partitions out in a group, and what becomes of records when they move."""

import time

from moodline.shared.bus import Record, partition_for
from tests.contract.bus_bench import PARTITIONS, Bench, last_of_each, poll_until, records_of


def test_an_empty_topic_is_assigned_quickly(bench: Bench) -> None:
    topic = bench.topic()
    consumer = bench.consumer(topic)
    started = time.monotonic()
    assert poll_until([consumer], lambda: len(consumer.assignment()) == PARTITIONS) == []
    assert time.monotonic() - started < 10
    assert consumer.assignment() == {(topic, partition) for partition in range(PARTITIONS)}


def test_a_second_consumer_takes_half_and_committed_records_do_not_come_again(bench: Bench) -> None:
    topic = bench.topic()
    revoked: list[tuple[str, int]] = []
    first = bench.consumer(topic, group="workers", on_revoked=revoked.extend)
    bench.send(topic, 40)
    seen = records_of(first, 40)
    first.commit(last_of_each([record.position for record in seen]))
    second = bench.consumer(topic, group="workers")
    moved = poll_until([first, second], lambda: len(first.assignment()) == len(second.assignment()) == PARTITIONS // 2)
    assert moved == [], "everything was committed"
    assert not first.assignment() & second.assignment()
    assert set(revoked) == second.assignment()
    bench.send(topic, 40, start=40)
    fresh = records_of([first, second], 40)
    assert sorted(int(record.value) for record in fresh) == list(range(40, 80))


def test_partitions_of_a_consumer_that_leaves_go_to_the_others(bench: Bench) -> None:
    topic = bench.topic()
    bench.send(topic, 40)
    stays, leaves = bench.consumer(topic, group="workers"), bench.consumer(topic, group="workers")
    poll_until([stays, leaves], lambda: len(stays.assignment()) == len(leaves.assignment()) == PARTITIONS // 2)
    kept, lost = stays.assignment(), leaves.assignment()
    leaves.close()
    again: set[int] = set()
    poll_until(
        [stays],
        lambda: again == set(numbers_in(lost)),
        collect=lambda record: again.add(int(record.value)) if _place(record) in lost else None,
    )
    assert stays.assignment() == kept | lost, "what it had, it keeps; what was not committed comes again"


def numbers_in(places: frozenset[tuple[str, int]]) -> list[int]:
    """The first 40 numbers that `Bench.send` puts into these partitions."""
    partitions = {partition for _, partition in places}
    return [number for number in range(40) if partition_for(f"key-{number % 16}".encode(), PARTITIONS) in partitions]


def _place(record: Record) -> tuple[str, int]:
    return record.position.topic, record.position.partition


def test_close_reports_what_the_consumer_owned(bench: Bench) -> None:
    topic = bench.topic()
    revoked: list[frozenset[tuple[str, int]]] = []
    consumer = bench.consumer(topic, on_revoked=revoked.append)
    poll_until([consumer], lambda: len(consumer.assignment()) == PARTITIONS)
    owned = consumer.assignment()
    consumer.close()
    consumer.close()
    assert frozenset().union(*revoked) == owned
    assert len(owned) == PARTITIONS
    assert consumer.assignment() == frozenset()


def test_a_revoked_partition_cannot_be_committed_any_more(bench: Bench) -> None:
    topic = bench.topic()
    bench.send(topic, 40)
    old = bench.consumer(topic, group="workers")
    mine = records_of(old, 40)
    new = bench.consumer(topic, group="workers")
    fresh = poll_until([old, new], lambda: len(old.assignment()) == len(new.assignment()) == PARTITIONS // 2)
    moved = [record.position for record in mine if (topic, record.position.partition) in new.assignment()]
    assert moved
    old.commit(last_of_each(moved))
    new.close()
    old.close()
    third = bench.consumer(topic, group="workers")
    again = {record.position for record in records_of(third, 40)}
    assert set(moved) <= again, f"nothing of it was committed; {len(fresh)} came in between"
