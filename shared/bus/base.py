"""The bus seam: ordered, keyed, replayable records between workers.

Semantics, the same for every adapter and proved by one contract suite:

- A topic has a fixed number of partitions. Records with the same key go to the same partition (CRC-32 of the key modulo
  the number of partitions) and keep their order there.
- A consumer belongs to a group. The group's partitions are assigned among its consumers; a partition has one owner at
  a time. A consumer that joins, leaves or dies moves partitions; records not committed by the old owner come again to the
  new one. Delivery is at least once.
- `poll` is the only place where ownership changes, so between two polls a worker's partitions are stable from its own
  point of view. Another worker may nevertheless own them already (this one was paused too long): that is why writers fence.
- `commit` says that everything up to the given positions, inclusive, is done. It does not wait for the bus; `poll` collects the
  answer and repeats what was not taken, and `close` sends what is left.
- Committing nothing loses nothing.
- A producer's `send` may block while the bus is full (back-pressure) and raises `BusFullError` when it stays full.
  Records are durable only when `flush` returns.
- Memory is bounded in bytes everywhere: a consumer's prefetch, a producer's queue, and the memory bus itself.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

OLDEST: Final = -1
"""Offset that stands for the oldest record that is kept."""


Headers = tuple[tuple[str, bytes], ...]
"""Metadata of a record, such as the context of a trace. No result depends on it."""


class Position(NamedTuple):
    """A record's place on the bus."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read. `timestamp_ms` is when it was produced, milliseconds since the Unix epoch."""

    position: Position
    key: bytes
    value: bytes
    timestamp_ms: int
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """Options of a consumer.

    Attributes:
        group: Consumer group.
        topics: Topics in order of priority: while an earlier topic has records, later ones wait (live before files).
        max_prefetch_bytes: Cap of what is fetched ahead, per topic.
        on_revoked: Called from `poll` or `close` with `(topic, partition)` pairs that this consumer owns no more.
        batch_limit: Asked at the beginning of each `poll`, for each topic, in how large a batch its records may be: records
            of a topic are added only while the batch has fewer than this (at least 1). So an earlier topic's batches may be
            large and a later one's small. None: `max_records` alone counts.
        heartbeat_ms: How often a member tells the group that it lives and hears that it has changed, in ms; below 8000 / 3.
    """

    group: str
    topics: tuple[str, ...]
    max_prefetch_bytes: int = 16 * 1024 * 1024
    on_revoked: Callable[[frozenset[tuple[str, int]]], None] | None = None
    batch_limit: Callable[[str], int] | None = None
    heartbeat_ms: int = 2000

    def batch_limits(self, max_records: int) -> dict[str, int]:
        """Return, for each topic, how large a batch may be that takes another of its records: 1 to `max_records`."""
        if self.batch_limit is None:
            return dict.fromkeys(self.topics, max_records)
        return {topic: min(max_records, max(1, self.batch_limit(topic))) for topic in self.topics}


class Consumer(Protocol):
    """A member of a consumer group. Not thread-safe: one worker, one thread."""

    def poll(self, max_records: int, timeout_s: float, linger_s: float = 0.0) -> list[Record]:
        """Return up to `max_records`, oldest first per partition.

        Waits up to `timeout_s` for the first record, then up to `linger_s` more for further ones, but not once the batch has
        reached the least of the topics' limits. An empty list means that nothing came. Must be called regularly, or the group
        takes the partitions away.

        Raises:
            BusUnavailableError: the bus was unavailable for longer than the adapter retries.
            BusClosedError: after `close`.
        """
        ...

    def commit(self, positions: Iterable[Position]) -> None:
        """Mark everything up to these positions, inclusive, as done; never waits for the bus.

        It is taken soon, at the latest by `close`; what a consumer that dies had not got through is read again. A position in a
        partition that this consumer no longer owns is ignored: its new owner reads it again.
        """
        ...

    def seek(self, position: Position) -> None:
        """Continue at `position` (inclusive; `OLDEST` for the oldest kept record). Ignored for partitions not owned."""
        ...

    def assignment(self) -> frozenset[tuple[str, int]]:
        """Return the `(topic, partition)` pairs owned as of the last `poll`."""
        ...

    def ends(self) -> Mapping[tuple[str, int], int]:
        """Return, for `(topic, partition)` pairs that are owned, the offset after the newest record that this consumer knows of.

        Does not wait for anybody. A partition of which nothing is known yet is left out.
        """
        ...

    def committed(self) -> Mapping[tuple[str, int], int]:
        """Return, for `(topic, partition)` pairs that are owned, the next offset to be done as the bus has it.

        Does not wait for anybody. A partition of which it is not known yet is left out; one of which nothing was ever committed
        is at its oldest record.
        """
        ...

    def standing(self) -> Mapping[tuple[str, int], float]:
        """Return the `(topic, partition)` pairs that stand still although there is something to read, and for how long, in s.

        Only time in which a record could have come counts, and only while the bus answers: a bus that is away, or a worker that
        is busy, lets nothing stand still in this sense. The adapter has tried to mend it before a partition is named here.
        """
        ...

    def close(self) -> None:
        """Send what is left to commit, and leave the group. Safe to call twice."""
        ...


class Producer(Protocol):
    """Publishes records. Thread-safe."""

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> None:
        """Queue one record. May block for the adapter's send time-out while the bus is full.

        Raises:
            BusFullError: still full after the time-out; the record was not queued.
            DeliveryError: the record is larger than the bus takes.
            BusClosedError: after `close`.
        """
        ...

    def flush(self, timeout_s: float = 60.0) -> None:
        """Block until every record that was queued before is durable; not for what other threads queue meanwhile.

        Raises:
            NotDeliveredYetError: records are still under way after the time-out. They are not lost: flush again.
            DeliveryError: records were lost; they may or may not be on the bus. Where threads share a producer, each hears of
                every loss since its own last flush.
        """
        ...

    def close(self) -> None:
        """Flush what can be flushed within a few seconds and release. Safe to call twice."""
        ...


class Bus(Protocol):
    """A connection to one bus; a factory for consumers and producers."""

    def ensure_topics(self, names: Iterable[str]) -> None:
        """Create the topics that do not exist; idempotent. Raises `BusUnavailableError`."""
        ...

    def open_consumer(self, settings: ConsumerSettings) -> Consumer:
        """Join a group."""
        ...

    def open_producer(self) -> Producer:
        """Open a producer."""
        ...

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic that exists."""
        ...

    def uncommitted(self, group: str, topic: str, partition: int) -> int:
        """Return how many records of a partition a group has not committed; all that are kept where it has committed none.

        Raises:
            BusUnavailableError: the bus does not answer.
        """
        ...

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int | None:
        """Return the offset of the first kept record that was produced at this time or later; None where there is none.

        Args:
            topic: A topic that exists.
            partition: One of its partitions.
            time_ms: Milliseconds since the Unix epoch, on the clock that stamps records.

        Raises:
            BusUnavailableError: the bus does not answer.
        """
        ...

    def close(self) -> None:
        """Release the connection; consumers and producers must be closed before."""
        ...
