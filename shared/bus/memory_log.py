"""The records of the memory bus: one log per partition, one bound in bytes per topic."""

import threading
from typing import TYPE_CHECKING, Final

from moodline.shared.bus.base import Headers, Position, Record
from moodline.shared.bus.partition import partition_for

if TYPE_CHECKING:
    from moodline.shared.bus.memory_group import Share

RECORD_OVERHEAD_BYTES: Final = 320
"""What a record costs besides its key and value: its objects in CPython, so that the bound holds for tiny records too."""

_COMPACT_AT: Final = 1024


class PartitionLog:
    """The kept records of one partition, oldest first. Offsets go up by one from 0 and are never used again."""

    __slots__ = ("_head", "_records", "next_offset")

    def __init__(self) -> None:
        self._records: list[Record | None] = []
        self._head = 0
        self.next_offset = 0

    def __len__(self) -> int:
        return len(self._records) - self._head

    @property
    def oldest_offset(self) -> int:
        """Offset of the oldest kept record; `next_offset` when there is none."""
        return self.next_offset - len(self)

    def append(self, record: Record) -> None:
        """Add a record, whose offset must be `next_offset`."""
        self._records.append(record)
        self.next_offset += 1

    def read(self, offset: int, limit: int) -> list[Record]:
        """Return up to `limit` records from `offset` on; `offset` must not be below the oldest kept."""
        start = self._head + offset - self.oldest_offset
        return self._records[start : start + limit]  # type: ignore[return-value]  # below the head only are there Nones

    def drop_before(self, offset: int) -> int:
        """Forget records below `offset`; return how many bytes that freed."""
        freed = 0
        for index in range(self._head, self._head + max(0, min(offset, self.next_offset) - self.oldest_offset)):
            record = self._records[index]
            assert record is not None
            freed += size_of(record.key, record.value)
            self._records[index] = None
            self._head = index + 1
        # Deleting from the front moves all that follow: do it only when most of the list is empty.
        if self._head > _COMPACT_AT and self._head * 2 > len(self._records):
            del self._records[: self._head]
            self._head = 0
        return freed


class Topic:
    """A topic's partitions, its groups, and how many bytes it holds. Guarded by the bus's lock."""

    def __init__(self, name: str, partitions: int, max_bytes: int, drops_oldest: bool, lock: threading.Lock) -> None:
        self.name = name
        self.logs = [PartitionLog() for _ in range(partitions)]
        self.max_bytes = max_bytes
        self.stored_bytes = 0
        self.shares: dict[str, Share] = {}
        self.room = threading.Condition(lock)
        self._drops_oldest = drops_oldest

    def has_room(self, size: int) -> bool:
        """Say whether a record of this size fits, after dropping the oldest where the topic may."""
        if self._drops_oldest:
            while self.stored_bytes + size > self.max_bytes:
                log = min((log for log in self.logs if len(log)), key=lambda log: log.read(log.oldest_offset, 1)[0].timestamp_ms)
                self.stored_bytes -= log.drop_before(log.oldest_offset + 1)
        return self.stored_bytes + size <= self.max_bytes

    def append(self, key: bytes, value: bytes, timestamp_ms: int, headers: Headers = ()) -> None:
        """Add a record and wake the consumers that own its partition."""
        partition = partition_for(key, len(self.logs))
        log = self.logs[partition]
        log.append(Record(Position(self.name, partition, log.next_offset), key, value, timestamp_ms, headers))
        self.stored_bytes += size_of(key, value)
        for share in self.shares.values():
            owner = share.owners[partition]
            if owner is not None:
                owner.offer(self.name, partition)

    def free_committed(self, partition: int) -> None:
        """Forget what every group has committed, and wake the senders that wait for room."""
        done = min(share.committed[partition] for share in self.shares.values())
        freed = self.logs[partition].drop_before(done)
        if freed:
            self.stored_bytes -= freed
            self.room.notify_all()


def size_of(key: bytes, value: bytes) -> int:
    """Return what a record counts against a topic's bound, in bytes."""
    return len(key) + len(value) + RECORD_OVERHEAD_BYTES
