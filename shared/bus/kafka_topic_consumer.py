"""One topic of a consumer: a member of the topic's group, and a new one when that one fails or stands still.

A member that reports an error which is not known to pass, or whose partitions stand still although there is something to read,
is replaced: its partitions count as revoked, and the next member reads again from what was committed. Nothing is lost by that;
at most something comes twice.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from moodline.shared.bus.base import OLDEST, ConsumerSettings, Position, Record
from moodline.shared.bus.kafka_ends import KafkaEnds
from moodline.shared.bus.kafka_errors import FORBIDDEN, passes_by_itself
from moodline.shared.bus.kafka_membership import Membership, MembershipEndedError
from moodline.shared.bus.kafka_observer import Observer
from moodline.shared.bus.kafka_settings import KafkaAddress, consumer_config, log
from moodline.shared.bus.standstill import StandstillWatch
from moodline.shared.errors import BusError

_POLL_S: Final = 0.5
_STARTING_SLICE_S: Final = 0.01
_JOIN_S: Final = (12.0, 12.0, 24.0)
"""A request to join may stay unanswered, by a broker that coordinates the group no more. The client would wait 5 min for it.

A group may also take its time: it waits for every member, and each change needs two rounds. So the third client waits longer.
"""

_REJOIN_S: Final = 25.0
"""A member that has partitions goes on reading them while the group changes. It is replaced later than one that has none."""

_COMMITS_FAIL_S: Final = 60.0
_REOPEN_PAUSES_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0)
_CALM_S: Final = 30.0
"""After this time without a failure, the next one counts as the first again."""

Revoked = Callable[[str, set[int]], None]


class TopicConsumer:
    """One topic of a consumer.

    Attributes:
        topic: The topic.
        served_s: Monotonic time of the last poll at the client.
    """

    def __init__(
        self, address: KafkaAddress, settings: ConsumerSettings, topic: str, on_revoked: Revoked, observer: Observer
    ) -> None:
        self.topic = topic
        self.served_s = time.monotonic()
        self._address = address
        self._config = consumer_config(address, f"{settings.group}.{topic}", settings.max_prefetch_bytes, settings.heartbeat_ms)
        self._on_revoked = on_revoked
        self._ends = KafkaEnds(observer, topic)
        self._watch = StandstillWatch()
        self._positions: dict[int, int] = {}
        self._drained = False
        self._poll_due_s = 0.0
        self._outside_since_s = time.monotonic()
        self._failures = 0
        self._failed_s = float("-inf")
        self._reopen_due_s = 0.0
        self._ended = ""
        self._member: Membership | None = self._open()

    @property
    def owned(self) -> set[int]:
        """Partitions owned as of the last call."""
        return set() if self._member is None else self._member.owned

    def take(self, limit: int) -> list[Record]:
        """Return up to `limit` records that are there."""
        return self._read(lambda member: member.take(limit), limit)

    def wait(self, timeout_s: float) -> list[Record]:
        """Wait for one record."""
        if self._member is None:
            time.sleep(min(timeout_s, _STARTING_SLICE_S))
        elif self._member.starting:
            timeout_s = min(timeout_s, _STARTING_SLICE_S)
        return self._read(lambda member: member.wait(timeout_s), 1)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Note the next offset of each partition as done, except for those that are not owned, and send what is due."""
        if self._member is not None:
            self._member.commits.want({part: offset for part, offset in offsets.items() if part in self._member.owned})
            self._settle(self._member)

    def seek(self, partition: int, offset: int) -> None:
        """Continue at `offset`, if the partition is owned; if the client will not, read again from what was committed."""
        if self._member is None or partition not in self._member.owned:
            return
        if self._member.seek(partition, offset):
            self._positions[partition] = self._ends.start(partition) if offset == OLDEST else offset
        else:
            self._end("seek refused", (partition,))

    def ends(self) -> dict[int, int]:
        """Return each owned partition's end, as far as it is known."""
        if self._member is None:
            return {}
        known = {partition: end for partition, end in self._ends.known().items() if partition in self._member.owned}
        for partition, end in self._member.cached_ends():
            known[partition] = max(end, known.get(partition, 0))
        return known

    def committed(self) -> dict[int, int]:
        """Return how far the group is known to be in each owned partition."""
        if self._member is None:
            return {}
        return {
            partition: self._ends.start(partition) if offset == OLDEST else offset
            for partition, offset in self._member.commits.taken.items()
        }

    def standing(self) -> dict[int, float]:
        """Return for how long partitions have stood still, in s."""
        return self._watch.standing(time.monotonic())

    def close(self) -> None:
        """Commit what is done and leave the group."""
        member, self._member = self._member, None
        if member is not None:
            member.close()

    def _open(self) -> Membership:
        self._ends.soon()
        return Membership(self._address, self._config, self.topic, self._revoked)

    def _read(self, call: Callable[[Membership], list[Any]], limit: int) -> list[Record]:
        now_s = self.served_s = time.monotonic()
        member = self._member
        if member is None:
            if now_s < self._reopen_due_s:
                return []
            member = self._member = self._open()
        try:
            messages = call(member)
        except MembershipEndedError as error:
            self._end(str(error))
            return []
        self._drained = self._drained or len(messages) < limit
        records = self._records(member, messages)
        if member is self._member:
            self._settle(member)
            self._poll(member)
        return records if member is self._member else []

    def _records(self, member: Membership, messages: Iterable[Any]) -> list[Record]:
        records = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._check(error, message.partition())
            elif message.partition() in member.owned:
                position = Position(self.topic, message.partition(), message.offset())
                headers = tuple(message.headers() or ())
                records.append(Record(position, message.key() or b"", message.value() or b"", message.timestamp()[1], headers))
                self._positions[position.partition] = position.offset + 1
        return records

    def _check(self, error: Any, partition: int) -> None:
        if error.code() in FORBIDDEN:
            raise BusError(f"Kafka does not let Moodline read {self.topic!r}: {error.name()}; see the ACLs in docs/operations.md")
        if passes_by_itself(error):
            place = {"partition": partition} if partition >= 0 else {}
            log.warning("bus.consumer", extra={"topic": self.topic, "code": error.name(), "detail": error.str(), **place})
        else:
            self._ended = error.name()

    def _settle(self, member: Membership) -> None:
        try:
            begun = member.settle(time.monotonic())
        except MembershipEndedError as error:
            self._end(str(error))
            return
        for partition, offset in begun.items():
            self._positions[partition] = self._ends.start(partition) if offset == OLDEST else offset
        if begun:
            self._ends.soon()
        if self._ended:
            self._end(self._ended)

    def _poll(self, member: Membership) -> None:
        """Look whether owned partitions stand still, now and then."""
        now_s = time.monotonic()
        if now_s < self._poll_due_s:
            return
        self._poll_due_s = now_s + _POLL_S
        self._ends.refresh(member.owned or {0}, now_s)
        if member.joined:
            self._outside_since_s = now_s
        elif now_s - self._outside_since_s > self._join_limit_s(member) and self._ends.fresh(now_s):
            self._end("not let in")
            return
        positions = {part: self._place_of(member, part) for part in member.owned}
        stalled = self._watch.poll(now_s, positions, self._ends.fresh(now_s), drained=self._drained)
        self._drained = False
        if stalled:
            self._end("standing still", sorted(stalled))
        elif member.commits.troubled_s(now_s) > _COMMITS_FAIL_S and self._ends.fresh(now_s):
            self._end("commits fail")

    def _join_limit_s(self, member: Membership) -> float:
        if member.owned:
            return _REJOIN_S
        return _JOIN_S[min(self._failures, len(_JOIN_S) - 1)]

    def _place_of(self, member: Membership, partition: int) -> int | None:
        if partition in member.starting:
            return None
        return max(self._positions.get(partition, 0), self._ends.start(partition))

    def _end(self, reason: str, partitions: Iterable[int] = ()) -> None:
        """Give this member up; the next one joins at once, or after a pause when that happens again and again."""
        member, self._member = self._member, None
        self._ended = ""
        if member is None:
            return
        if reason in _FORBIDDEN_NAMES:
            member.retire()
            raise BusError(f"Kafka does not let Moodline read {self.topic!r}: {reason}; see the ACLs in docs/operations.md")
        now_s = time.monotonic()
        self._failures = self._failures + 1 if now_s - self._failed_s < _CALM_S else 0
        self._failed_s = now_s
        pause_s = _REOPEN_PAUSES_S[min(self._failures, len(_REOPEN_PAUSES_S) - 1)]
        self._reopen_due_s = now_s + pause_s
        owned = set(member.owned)
        fields = {"topic": self.topic, "reason": reason, "partitions": list(partitions) or sorted(owned), "pause_s": pause_s}
        log.warning("bus.reopened", extra=fields)
        self._address.reopened(self.topic)
        member.retire()
        self._outside_since_s = now_s
        self._positions.clear()
        self._watch.reopened()
        if owned:
            self._on_revoked(self.topic, owned)

    def _revoked(self, partitions: set[int]) -> None:
        for partition in partitions:
            self._positions.pop(partition, None)
        self._watch.forget(partitions)
        self._on_revoked(self.topic, partitions)


_FORBIDDEN_NAMES: Final = frozenset({"TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"})
