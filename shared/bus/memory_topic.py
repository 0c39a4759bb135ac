"""The topics of the memory bus: one log for each partition, one limit in bytes for each topic, and who owns which partition."""

import threading
from collections.abc import Sequence
from typing import Final

from moodline.shared.bus.base import Headers, Position, Record
from moodline.shared.bus.partition import partition_for

RECORD_OVERHEAD_BYTES: Final = 320
"""Memory of a record besides its key and value: its objects in CPython. With it the bound holds for tiny records too."""

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


class Member:
    """A consumer as its groups see it. Guarded by the bus's lock.

    Attributes:
        ready: Per topic, the owned partitions that may hold records beyond the consumer's position, in the order in which they
            are to be read.
        wake: What the consumer waits on.
        awaited: How many records the waiting consumer still wants before it is woken.
        polling: Whether it is inside `poll` now.
        last_seen_s: Monotonic time of its last sign of life.
    """

    __slots__ = ("awaited", "last_seen_s", "polling", "ready", "wake")

    def __init__(self, topics: Sequence[str], lock: threading.Lock, now_s: float) -> None:
        self.ready: dict[str, dict[int, None]] = {name: {} for name in topics}
        self.wake = threading.Condition(lock)
        self.awaited = 0
        self.polling = False
        self.last_seen_s = now_s

    def offer(self, topic: str, partition: int) -> None:
        """Note that a record came; wake the consumer when it has as many as it wants."""
        self.ready[topic][partition] = None
        if self.awaited:
            self.awaited -= 1
            if not self.awaited:
                self.wake.notify()


class Share:
    """The assignment of one topic's partitions in one group.

    `targets` says who shall own a partition, `owners` who does. A partition passes on in two steps: its owner gives it up in
    its own `poll`, and the new one takes it in a later `poll` of its own. `version` goes up whenever a member has to look;
    `moving` says that a member still holds partitions that are assigned to another one.
    """

    def __init__(self, topic: Topic) -> None:
        partitions = len(topic.logs)
        self.topic = topic
        self.committed = [0] * partitions
        self.owners: list[Member | None] = [None] * partitions
        self.version = 0
        self.moving = False
        self._targets: list[Member | None] = [None] * partitions
        self._members: list[Member] = []

    def join(self, member: Member) -> None:
        """Add a member, if it is not one already."""
        if member not in self._members:
            self._members.append(member)
            self._assign()

    def leave(self, member: Member) -> None:
        """Remove a member; what it owned is free at once."""
        if member in self._members:
            self._members.remove(member)
            self.owners = [None if owner is member else owner for owner in self.owners]
            self._assign()

    def keeps(self, member: Member, partition: int) -> bool:
        """Say whether a member owns a partition and may go on doing so."""
        return self.owners[partition] is member and self._targets[partition] is member

    def acquire(self, member: Member) -> list[int]:
        """Make a member the owner of the free partitions that are assigned to it, and return them."""
        acquired = [
            partition for partition, target in enumerate(self._targets) if target is member and self.owners[partition] is None
        ]
        for partition in acquired:
            self.owners[partition] = member
        return acquired

    def release(self, member: Member, partition: int) -> None:
        """Let the next owner have a partition, if this member still has it."""
        if self.owners[partition] is member:
            self.owners[partition] = None
            self._changed()

    def expire(self, oldest_s: float) -> None:
        """Remove the members that hold on to others' partitions and were last seen before `oldest_s`."""
        for member in self._holding():
            if not member.polling and member.last_seen_s < oldest_s:
                self.leave(member)

    def _holding(self) -> set[Member]:
        pairs = zip(self._targets, self.owners, strict=True)
        return {owner for target, owner in pairs if owner is not None and owner is not target}

    def _assign(self) -> None:
        """Deal evenly, moving as few partitions as possible."""
        held: dict[Member, list[int]] = {member: [] for member in self._members}
        free = []
        for partition, target in enumerate(self._targets):
            if target in held:
                held[target].append(partition)
            else:
                free.append(partition)
        # The odd ones always go to those who joined first, so that nothing moves only to even out a remainder.
        least, more = divmod(len(self._targets), max(1, len(held)))
        quotas = {member: least + (index < more) for index, member in enumerate(held)}
        for member, quota in quotas.items():
            free += held[member][quota:]
            del held[member][quota:]
        free.sort()
        for member, quota in quotas.items():
            missing = quota - len(held[member])
            held[member] += free[:missing]
            del free[:missing]
        targets = {partition: member for member, partitions in held.items() for partition in partitions}
        self._targets = [targets.get(partition) for partition in range(len(self._targets))]
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        self.moving = bool(self._holding())
        for member in self._members:
            member.wake.notify()
