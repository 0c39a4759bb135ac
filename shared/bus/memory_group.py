"""Consumer groups of the memory bus: who owns which partition, and how far each group has got."""

import threading
from collections.abc import Sequence

from moodline.shared.bus.memory_log import Topic


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
    """How one topic's partitions are dealt out in one group.

    `targets` says who shall own a partition, `owners` who does. A partition passes on in two steps: its owner gives it up in
    its own `poll`, and the new one takes it in a later `poll` of its own. `version` goes up whenever a member has to look;
    `moving` says that somebody still holds what shall be another's.
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
            self._deal()

    def leave(self, member: Member) -> None:
        """Remove a member; what it owned is free at once."""
        if member in self._members:
            self._members.remove(member)
            self.owners = [None if owner is member else owner for owner in self.owners]
            self._deal()

    def keeps(self, member: Member, partition: int) -> bool:
        """Say whether a member owns a partition and may go on doing so."""
        return self.owners[partition] is member and self._targets[partition] is member

    def claim(self, member: Member) -> list[int]:
        """Make a member the owner of what is dealt to it and free; return those partitions."""
        claimed = [
            partition for partition, target in enumerate(self._targets) if target is member and self.owners[partition] is None
        ]
        for partition in claimed:
            self.owners[partition] = member
        return claimed

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

    def _deal(self) -> None:
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
