"""The consuming side of `kafka://`.

Kafka knows no priority among topics, so each topic has a consumer of its own: a librdkafka client, in a group named after the
consumer's group and the topic. Partitions of each topic are then assigned evenly for themselves, too. All of them are
served by the one thread that polls: it blocks on the first, in slices, and looks at the others in between.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from moodline.shared.bus.base import ConsumerSettings, Position, Record
from moodline.shared.bus.kafka_observer import Observer
from moodline.shared.bus.kafka_settings import KafkaAddress
from moodline.shared.bus.kafka_topic_consumer import TopicConsumer
from moodline.shared.errors import BusClosedError

_SLICE_S: Final = 0.01
"""Longest wait on the first topic before the others are read; it bounds what their latency grows by."""

_STARVED_S: Final = 5.0
"""A later topic gives one record this often although earlier ones fill every batch: who never polls is removed from the group."""


Value = TypeVar("Value", int, float)


class KafkaConsumer:
    """A consumer over one or more topics."""

    def __init__(self, address: KafkaAddress, settings: ConsumerSettings, observer: Observer) -> None:
        self._settings = settings
        self._on_revoked = settings.on_revoked
        self._batch: list[Record] = []
        self._closed = False
        self._consumers = [TopicConsumer(address, settings, topic, self._revoked, observer) for topic in settings.topics]

    def poll(self, max_records: int, timeout_s: float, linger_s: float = 0.0) -> list[Record]:
        self._check_open()
        batch: list[Record] = []
        self._batch = batch
        limits = self._settings.batch_limits(max_records)
        self._sweep(limits)
        self._wait_for(1, limits, timeout_s)
        if batch and linger_s > 0:
            self._wait_for(min(limits.values()), limits, linger_s)
        self._batch = []
        return batch

    def commit(self, positions: Iterable[Position]) -> None:
        self._check_open()
        done: dict[str, dict[int, int]] = {}
        for topic, partition, offset in positions:
            partitions = done.setdefault(topic, {})
            partitions[partition] = max(offset + 1, partitions.get(partition, 0))
        for consumer in self._consumers:
            consumer.commit(done.get(consumer.topic, {}))

    def seek(self, position: Position) -> None:
        self._check_open()
        for consumer in self._consumers:
            if consumer.topic == position.topic:
                consumer.seek(position.partition, position.offset)

    def assignment(self) -> frozenset[tuple[str, int]]:
        return frozenset((consumer.topic, partition) for consumer in self._consumers for partition in consumer.owned)

    def ends(self) -> dict[tuple[str, int], int]:
        return self._of_consumers(lambda consumer: consumer.ends())

    def committed(self) -> dict[tuple[str, int], int]:
        return self._of_consumers(lambda consumer: consumer.committed())

    def standing(self) -> dict[tuple[str, int], float]:
        return self._of_consumers(lambda consumer: consumer.standing())

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for consumer in self._consumers:
                consumer.close()

    def _wait_for(self, wanted: int, limits: Mapping[str, int], timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while len(self._batch) < wanted:
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                return
            if len(self._consumers) > 1:
                remaining_s = min(remaining_s, _SLICE_S)
            self._batch.extend(self._consumers[0].wait(remaining_s))
            self._sweep(limits)

    def _sweep(self, limits: Mapping[str, int]) -> None:
        """Add what is there, in order of priority, without waiting."""
        starved_since_s = time.monotonic() - _STARVED_S
        for consumer in self._consumers[1:]:
            if consumer.served_s < starved_since_s:
                self._batch.extend(consumer.take(1))
        for consumer in self._consumers:
            room = limits[consumer.topic] - len(self._batch)
            if room > 0:
                self._batch.extend(consumer.take(room))

    def _revoked(self, topic: str, partitions: set[int]) -> None:
        """Drop what this poll has collected from partitions that just went away, and tell the worker."""
        self._batch[:] = [
            record for record in self._batch if record.position.topic != topic or record.position.partition not in partitions
        ]
        if self._on_revoked is not None:
            self._on_revoked(frozenset((topic, partition) for partition in partitions))

    def _of_consumers(self, ask: Callable[[TopicConsumer], Mapping[int, Value]]) -> dict[tuple[str, int], Value]:
        consumers = [] if self._closed else self._consumers
        return {(consumer.topic, partition): value for consumer in consumers for partition, value in ask(consumer).items()}

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosedError("the consumer is closed")
