"""`memory://`: the bus inside one process, for the embedded service and for tests.

It keeps the contract of `moodline.shared.bus.base`, rebalancing included, with these particulars:

- A topic holds at most `max_bytes`. A record is freed once every group that ever subscribed to the topic has committed
  past it, so `OLDEST` is the oldest record that some group still needs. Records that were sent before the first group
  subscribed wait for it. While there is no room, `send` blocks.
- Topics that nobody has to read (`drops_oldest` in `moodline.shared.bus.retention`: dead letters) keep only their newest bytes.
- The old owner of a partition gives it up in its own `poll`. If it does not poll (or commit) for the session time-out while
  another consumer waits for the partition, it is removed from the group and joins again at its next `poll`.
- A commit never goes back. A `seek` to a place that is not kept goes to the oldest record kept, as on Kafka.
- Everything is lost with the process; what must survive is in the store.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from moodline.shared.bus.base import ConsumerSettings, Headers, Position, Record
from moodline.shared.bus.memory_topic import Member, Share, Topic, size_of
from moodline.shared.bus.retention import retention_of
from moodline.shared.clock import Clock, SystemClock
from moodline.shared.errors import BusClosedError, BusError, BusFullError, DeliveryError

_DROPPING_BYTES: Final = 4 * 1024 * 1024
_REBALANCE_POLL_S: Final = 0.2


class MemoryBus:
    """The bus in this process's memory.

    Args:
        partitions: Partitions of every topic.
        max_bytes: Bound of a topic, in bytes; 320 bytes are added to each record for its objects.
        send_timeout_s: How long `send` waits for room before `BusFullError`.
        session_timeout_s: After how long without a sign of life a consumer loses partitions that another waits for.
        clock: Stamps records and measures the session time-out. Blocking waits are the operating system's.
    """

    def __init__(
        self,
        partitions: int,
        max_bytes: int,
        *,
        send_timeout_s: float = 30.0,
        session_timeout_s: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        self.send_timeout_s = send_timeout_s
        self.session_timeout_s = session_timeout_s
        self.clock: Clock = clock or SystemClock()
        self.lock = threading.Lock()
        self.closed = False
        self._partitions = partitions
        self._max_bytes = max_bytes
        self._topics: dict[str, Topic] = {}
        self._consumers: list[MemoryConsumer] = []

    def ensure_topics(self, names: Iterable[str]) -> None:
        with self.lock:
            for name in names:
                if name not in self._topics:
                    drops = retention_of(name).drops_oldest
                    bound = min(self._max_bytes, _DROPPING_BYTES) if drops else self._max_bytes
                    self._topics[name] = Topic(name, self._partitions, bound, drops, self.lock)

    def open_consumer(self, settings: ConsumerSettings) -> "MemoryConsumer":
        with self.lock:
            self._check_open()
            consumer = MemoryConsumer(self, settings, [self.topic(name) for name in settings.topics])
            self._consumers.append(consumer)
            return consumer

    def open_producer(self) -> "MemoryProducer":
        with self.lock:
            self._check_open()
        return MemoryProducer(self)

    def partitions(self, topic: str) -> int:
        with self.lock:
            return len(self.topic(topic).logs)

    def uncommitted(self, group: str, topic: str, partition: int) -> int:
        with self.lock:
            found = self.topic(topic)
            log, share = found.logs[partition], found.shares.get(group)
            done = 0 if share is None else share.committed[partition]
            return log.next_offset - max(done, log.oldest_offset)

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int | None:
        with self.lock:
            log = self.topic(topic).logs[partition]
            records = log.read(log.oldest_offset, len(log))
        return next((record.position.offset for record in records if record.timestamp_ms >= time_ms), None)

    def stored_bytes(self, topic: str) -> int:
        """Return how many bytes a topic holds now, as counted against its bound."""
        with self.lock:
            return self.topic(topic).stored_bytes

    def close(self) -> None:
        """Release the connection; whoever still waits in `send` or `poll` gets `BusClosedError`."""
        with self.lock:
            self.closed = True
            self.wake_senders()
            for consumer in self._consumers:
                consumer.wake()
            self._consumers.clear()

    def wake_senders(self) -> None:
        """End every wait for room at once, so that it looks whether it is closed; the lock must be held."""
        for topic in self._topics.values():
            topic.room.notify_all()

    def topic(self, name: str) -> Topic:
        """Return a topic; the lock must be held. Raises `BusError` when there is none of this name."""
        try:
            return self._topics[name]
        except KeyError:
            raise BusError(f"topic {name!r} does not exist; ensure_topics creates it") from None

    def forget(self, consumer: "MemoryConsumer") -> None:
        """Drop a consumer that has closed; the lock must be held."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)

    def _check_open(self) -> None:
        if self.closed:
            raise BusClosedError("the bus is closed")


class MemoryProducer:
    """Sends into the memory bus. A record is there when `send` returns, so `flush` has nothing to wait for."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._closed = False

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> None:
        with self._bus.lock:
            self._check_open()
            target = self._bus.topic(topic)
            size = size_of(key, value)
            if size > target.max_bytes:
                raise DeliveryError(f"a record of {size} bytes can never fit into {topic!r}, which holds {target.max_bytes}")
            if not target.has_room(size):
                self._wait_for_room(target, size)
            target.append(key, value, int(self._bus.clock.now_s() * 1000), headers)

    def flush(self, timeout_s: float = 60.0) -> None:  # noqa: ARG002  # nothing is under way
        with self._bus.lock:
            self._check_open()

    def close(self) -> None:
        with self._bus.lock:
            if not self._closed:
                self._closed = True
                self._bus.wake_senders()

    def _wait_for_room(self, topic: Topic, size: int) -> None:
        topic.room.wait_for(lambda: self._closed or self._bus.closed or topic.has_room(size), self._bus.send_timeout_s)
        self._check_open()
        if not topic.has_room(size):
            raise BusFullError(
                f"{topic.name!r} has been full for {self._bus.send_timeout_s:g} s; its readers are too slow or gone"
            )

    def _check_open(self) -> None:
        if self._closed or self._bus.closed:
            raise BusClosedError("the producer is closed")


class MemoryConsumer:
    """Reads from the memory bus. Created by `MemoryBus.open_consumer`, with the bus's lock held."""

    def __init__(self, bus: MemoryBus, settings: ConsumerSettings, topics: list[Topic]) -> None:
        self._bus = bus
        self._settings = settings
        self._on_revoked = settings.on_revoked
        self._member = Member(settings.topics, bus.lock, bus.clock.monotonic_s())
        self._topics = {topic.name: topic for topic in topics}
        self._shares = {topic.name: topic.shares.setdefault(settings.group, Share(topic)) for topic in topics}
        self._seen = dict.fromkeys(self._shares, -1)
        self._offsets: dict[tuple[str, int], int] = {}
        self._closed = False
        for share in self._shares.values():
            share.join(self._member)

    def poll(self, max_records: int, timeout_s: float, linger_s: float = 0.0) -> list[Record]:
        limits = self._settings.batch_limits(max_records)
        with self._bus.lock, self._polling():
            records = self._first(limits, timeout_s)
            if records and linger_s:
                self._linger(records, limits, linger_s)
            return records

    def commit(self, positions: Iterable[Position]) -> None:
        with self._bus.lock:
            self._check_open()
            self._member.last_seen_s = self._bus.clock.monotonic_s()
            for topic, partition, offset in positions:
                share = self._shares.get(topic)
                if share is None or (topic, partition) not in self._offsets or share.owners[partition] is not self._member:
                    continue
                if offset >= share.committed[partition]:
                    share.committed[partition] = offset + 1
                    share.topic.free_committed(partition)

    def seek(self, position: Position) -> None:
        with self._bus.lock:
            self._check_open()
            topic, partition, offset = position
            if (topic, partition) not in self._offsets:
                return
            log = self._topics[topic].logs[partition]
            kept = log.oldest_offset <= offset <= log.next_offset  # which OLDEST is not
            self._offsets[topic, partition] = offset if kept else log.oldest_offset
            self._member.ready[topic][partition] = None

    def assignment(self) -> frozenset[tuple[str, int]]:
        return frozenset(self._offsets)

    def ends(self) -> dict[tuple[str, int], int]:
        with self._bus.lock:
            return {(topic, partition): self._topics[topic].logs[partition].next_offset for topic, partition in self._offsets}

    def committed(self) -> dict[tuple[str, int], int]:
        with self._bus.lock:
            return {
                (topic, part): max(self._shares[topic].committed[part], self._topics[topic].logs[part].oldest_offset)
                for topic, part in self._offsets
            }

    def standing(self) -> dict[tuple[str, int], float]:
        """Nothing can stand still here: whoever polls looks at the records themselves."""
        return {}

    def close(self) -> None:
        with self._bus.lock:
            if self._closed:
                return
            self._closed = True
            self._bus.forget(self)
            try:
                self._give_up(list(self._offsets))
            finally:
                for share in self._shares.values():
                    share.leave(self._member)

    def wake(self) -> None:
        """End a wait at once, so that it looks whether the bus is closed; the lock must be held."""
        self._member.wake.notify_all()

    @contextmanager
    def _polling(self) -> Iterator[None]:
        self._check_open()
        self._member.polling = True
        try:
            yield
        finally:
            self._member.polling = False
            self._member.last_seen_s = self._bus.clock.monotonic_s()

    def _first(self, limits: Mapping[str, int], timeout_s: float) -> list[Record]:
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._settle()
            records: list[Record] = []
            self._take(records, limits)
            remaining_s = deadline_s - time.monotonic()
            if records or remaining_s <= 0:
                return records
            # Somebody else's session may end while this one waits, and nothing would say so.
            moving = any(share.moving for share in self._shares.values())
            self._wait(1, min(remaining_s, _REBALANCE_POLL_S) if moving else remaining_s)

    def _linger(self, records: list[Record], limits: Mapping[str, int], linger_s: float) -> None:
        wanted = min(limits.values())
        deadline_s = time.monotonic() + linger_s
        while len(records) < wanted:
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                return
            self._wait(wanted - len(records), remaining_s)
            self._take(records, limits)

    def _wait(self, wanted: int, timeout_s: float) -> None:
        self._member.awaited = wanted
        self._member.wake.wait(timeout_s)
        self._member.awaited = 0
        self._check_open()

    def _take(self, records: list[Record], limits: Mapping[str, int]) -> None:
        for name, ready in self._member.ready.items():
            # One turn each: a partition that still has more goes to the end of the line.
            for partition in list(ready):
                if len(records) >= limits[name]:
                    break
                del ready[partition]
                records += self._read(name, partition, limits[name] - len(records))
                if self._offsets[name, partition] < self._topics[name].logs[partition].next_offset:
                    ready[partition] = None

    def _read(self, topic: str, partition: int, limit: int) -> list[Record]:
        log = self._topics[topic].logs[partition]
        offset = max(self._offsets[topic, partition], log.oldest_offset)
        records = log.read(offset, limit)
        self._offsets[topic, partition] = offset + len(records)
        return records

    def _settle(self) -> None:
        """Serve rebalancing: give up partitions that have moved, and take the free ones that are assigned to this consumer."""
        oldest_s = self._bus.clock.monotonic_s() - self._bus.session_timeout_s
        for share in self._shares.values():
            if share.moving:
                share.expire(oldest_s)
        # Giving up opens the lock for a moment, so the groups may have changed again: look until nothing is new.
        while changed := {name: share.version for name, share in self._shares.items() if share.version != self._seen[name]}:
            self._seen.update(changed)
            self._give_up([place for place in self._offsets if not self._shares[place[0]].keeps(self._member, place[1])])
            for name in changed:
                self._acquire(name)

    def _acquire(self, name: str) -> None:
        share = self._shares[name]
        share.join(self._member)
        for partition in share.acquire(self._member):
            log = self._topics[name].logs[partition]
            self._offsets[name, partition] = max(share.committed[partition], log.oldest_offset)
            self._member.ready[name][partition] = None

    def _give_up(self, places: list[tuple[str, int]]) -> None:
        """Forget partitions, say so, and only then let their next owners have them."""
        if not places:
            return
        for topic, partition in places:
            del self._offsets[topic, partition]
            self._member.ready[topic].pop(partition, None)
        self._bus.lock.release()
        try:
            if self._on_revoked is not None:
                self._on_revoked(frozenset(places))
        finally:
            self._bus.lock.acquire()
            for topic, partition in places:
                self._shares[topic].release(self._member, partition)

    def _check_open(self) -> None:
        if self._closed or self._bus.closed:
            raise BusClosedError("the consumer is closed")
