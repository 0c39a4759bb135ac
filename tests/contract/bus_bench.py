"""A bench to put a bus on: makes topics, consumers and records, and closes what it opened."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from moodline.shared.bus import Bus, Consumer, ConsumerSettings, Position, Producer, Record
from moodline.shared.bus.memory import MemoryBus

DEADLINE_S = 40.0
PARTITIONS = 4


class Bench:
    """One bus under test. A context manager."""

    def __init__(self, bus: Bus, creator: Callable[[str], Any] | None = None) -> None:
        self.bus = bus
        self.remote = not isinstance(bus, MemoryBus)
        self._creator = creator
        self._run = uuid.uuid4().hex[:8]
        self._consumers: list[Consumer] = []
        self._threads: list[threading.Thread] = []
        self._names = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()
        for consumer in self._consumers:
            consumer.close()
        self.bus.close()

    def new_name(self) -> str:
        """Return a topic name that no other test uses."""
        self._names += 1
        return f"test.{self._run}.{self._names}"

    def topic(self) -> str:
        """Create a topic."""
        name = self.new_name()
        if self._creator is not None:
            self._creator(name)
        self.bus.ensure_topics([name])
        return name

    def consumer(
        self,
        *topics: str,
        group: str = "",
        max_prefetch_bytes: int = 1024 * 1024,
        on_revoked: Any = None,
        batch_limit: Callable[[str], int] | None = None,
    ) -> Consumer:
        """Join a group of this test; a new one each time if it has no name."""
        name = self.group(group or uuid.uuid4().hex)
        consumer = self.bus.open_consumer(ConsumerSettings(name, topics, max_prefetch_bytes, on_revoked, batch_limit))
        self._consumers.append(consumer)
        return consumer

    def group(self, name: str) -> str:
        """Return a group's whole name."""
        return f"{self._run}.{name}"

    @contextmanager
    def sending(self) -> Iterator[Producer]:
        """Open a producer; what was sent is durable afterwards."""
        producer = self.bus.open_producer()
        try:
            yield producer
            producer.flush()
        finally:
            producer.close()

    def send(self, topic: str, count: int, *, start: int = 0, key: bytes = b"") -> None:
        """Send records whose values are numbers; over many keys if none is given."""
        with self.sending() as producer:
            for number in range(start, start + count):
                producer.send(topic, key or f"key-{number % 16}".encode(), f"{number}".encode())

    def send_later(self, topic: str, delay_s: float, count: int) -> None:
        """Send from another thread after a while."""
        thread = threading.Timer(delay_s, self.send, (topic, count))
        self._threads.append(thread)
        thread.start()


def records_of(consumers: Consumer | Sequence[Consumer], count: int, max_records: int = 1000) -> list[Record]:
    """Poll until `count` records have come; fails if they do not, or if more come with them."""
    records: list[Record] = []
    everybody = list(consumers) if isinstance(consumers, Sequence) else [consumers]
    deadline_s = time.monotonic() + DEADLINE_S
    while len(records) < count:
        assert time.monotonic() < deadline_s, f"{len(records)} of {count} records came: {[r.position for r in records][-5:]}"
        for consumer in everybody:
            records += consumer.poll(max_records, 0.05)
    assert len(records) == count, f"{len(records)} records came, not {count}"
    return records


def poll_until(
    consumers: Sequence[Consumer],
    condition: Callable[[], bool],
    max_records: int = 1000,
    collect: Callable[[Record], object] = lambda record: None,
) -> list[Record]:
    """Poll all consumers until the condition holds; return the records that came meanwhile, each shown to `collect`."""
    records: list[Record] = []
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"condition did not come true; {[sorted(c.assignment()) for c in consumers]}"
        for consumer in consumers:
            for record in consumer.poll(max_records, 0.02):
                records.append(record)
                collect(record)
    return records


def last_of_each(positions: list[Position]) -> list[Position]:
    """The last position in each partition, which is what a worker commits."""
    last = {(position.topic, position.partition): position for position in positions}
    return list(last.values())
