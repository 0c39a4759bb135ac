"""One librdkafka consumer as a member of one topic's group, from its joining to its leaving.

It does not leave to librdkafka what librdkafka does not see through:

- **Where to begin.** librdkafka asks once for the committed offsets of partitions that it is given. When the answer is an error
  for the whole request, it never asks again and never fetches (its issue 5586). So it is given no partition before its offset
  is known: the member asks by itself, as often as it takes (`StartOffsets`), and assigns explicit offsets.
- **Commits** are sent without waiting; their answers are collected while polling.

Rebalancing is cooperative. Partitions count as owned from the group's word on; the client has them when their offsets are known.
What the group takes away meanwhile is simply not assigned. A group that never committed begins at the oldest record.
"""

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from moodline.shared.bus.background import BackgroundTask
from moodline.shared.bus.base import OLDEST
from moodline.shared.bus.commits import Commits
from moodline.shared.bus.kafka_errors import passes_by_itself
from moodline.shared.bus.kafka_settings import KafkaAddress, log, open_client
from moodline.shared.bus.kafka_start import StartOffsets

_STATISTICS_MS: Final = 2000
_JOIN_STATE: Final = re.compile(r'"join_state":\s*"([^"]*)"')
"""There is one in the client's statistics; to parse them all costs 10 ms where there are a thousand partitions."""

_CLOSE_S: Final = 10.0
_LEAVE_S: Final = 8.0
"""After a session the group has forgotten a member that could not leave."""
_STOP_S: Final = 2.5
"""A process that stops waits less: who stopped it may kill it."""
_LEAVE_POLL_S: Final = 0.02
_SEEK_S: Final = 5.0
_SEEK_PAUSE_S: Final = 0.005
_SEEK_LATER: Final = frozenset({KafkaError._STATE, KafkaError._TIMED_OUT, KafkaError._PREV_IN_PROGRESS})

Offsets = dict[int, int]


class MembershipEndedError(Exception):
    """This client cannot go on; another one can. The argument says why, in a word or two."""


class Membership:
    """A client and what it owns. Used by the thread that polls; the client calls back within its own calls.

    Attributes:
        owned: Partitions that the group has given to this member.
        commits: What is done and what the group has of it.
        joined: Whether this member is in its group and has its part, which may be nothing, as of a few seconds ago.
    """

    def __init__(
        self,
        address: KafkaAddress,
        config: Mapping[str, Any],
        topic: str,
        on_revoked: Callable[[set[int]], None],
    ) -> None:
        self.owned: set[int] = set()
        self.commits = Commits()
        self.joined = False
        self._topic = topic
        self._on_revoked = on_revoked
        self._starting: dict[int, int | None] = {}
        self._given: set[int] = set()
        self._retired = False
        self._starts = StartOffsets(address, config, topic)
        self._answers: list[tuple[KafkaError | None, list[TopicPartition]]] = []
        callbacks = {"on_commit": self._committed, "stats_cb": self._heard, "statistics.interval.ms": _STATISTICS_MS}
        self._client = open_client(Consumer, {**config, **callbacks}, address)
        self._client.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    @property
    def starting(self) -> Collection[int]:
        """Owned partitions of which it is not known yet where to begin."""
        return self._starting.keys()

    def take(self, limit: int) -> list[Any]:
        """Return up to `limit` of the client's messages that are there. Raises `MembershipEndedError`."""
        return list(self._call(lambda: self._client.consume(limit, 0)))

    def wait(self, timeout_s: float) -> list[Any]:
        """Wait for one message. `consume` would wait the whole time for a batch that is not full."""
        message = self._call(lambda: self._client.poll(timeout_s))
        return [] if message is None else [message]

    def settle(self, now_s: float) -> Offsets:
        """Begin what can begin, and send the commits that are due; return where partitions began.

        Raises:
            MembershipEndedError: another client is needed.
        """
        begun = self._begin()
        self._take_answers(now_s)
        if offsets := self.commits.due(now_s):
            self._send_commit(offsets)
        return begun

    def cached_ends(self) -> Iterator[tuple[int, int]]:
        """Yield the ends that the client heard of with what it fetched."""
        for partition in self._given:
            bounds = self._client.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            if bounds is not None and bounds[1] >= 0:
                yield partition, bounds[1]

    def seek(self, partition: int, offset: int) -> bool:
        """Continue at `offset`; say whether the client will. What was fetched before is dropped by the client.

        The client refuses for a moment while it still looks up where a partition begins.
        """
        if partition in self._starting:
            self._starting[partition] = offset
            return True
        target = TopicPartition(self._topic, partition, OFFSET_BEGINNING if offset == OLDEST else offset)
        deadline_s = time.monotonic() + _SEEK_S
        while partition in self.owned:
            try:
                self._client.seek(target)
            except KafkaException as error:
                if error.args[0].code() not in _SEEK_LATER or time.monotonic() > deadline_s:
                    return False
                time.sleep(_SEEK_PAUSE_S)
            else:
                return True
        return True

    def retire(self) -> None:
        """Leave the group in the background, without another word; what is done and not committed comes again."""
        self._retired = True
        self.owned, self._starting = set(), {}
        self._leave({}, _LEAVE_S)

    def close(self) -> None:
        """Commit what is done and leave the group. Gives up after a while; the session's end then does it."""
        owned, left = (
            self.owned,
            {partition: offset for partition, offset in self.commits.left().items() if partition in self.owned},
        )
        self._retired = True
        self.owned, self._starting = set(), {}
        try:
            if owned:
                self._on_revoked(owned)
        finally:
            if not self._leave(left, _STOP_S).wait(_CLOSE_S):
                log.warning("bus.close_unanswered", extra={"topic": self._topic, "partitions": sorted(left)})

    def _leave(self, offsets: Offsets, patience_s: float) -> BackgroundTask[None]:
        self._starts.close()

        def leave() -> None:
            if offsets:
                try:
                    self._client.commit(offsets=self._places(offsets), asynchronous=False)
                except KafkaException as error:
                    log.info("bus.commit_ignored", extra={"topic": self._topic, "code": error.args[0].name()})
            self._unsubscribe(patience_s)
            self._client.close()

        return BackgroundTask(leave, "kafka-leave")

    def _unsubscribe(self, patience_s: float) -> None:
        """Leave the group before the client is closed, which in librdkafka 2.16 is not safe in every state.

        - A client without partitions closes without a LeaveGroup request, and its group waits for it until the session ends.
        - While a request to join is unanswered, leaving is put off until the answer.
        - A client that is closed while a callback of a rebalance waits to be served may end its group's part before it serves
          the next one, whose call then waits for ever and holds the interpreter's lock: the whole process stands still.
        """
        deadline_s = time.monotonic() + patience_s
        with suppress(KafkaException):
            self._client.unsubscribe()
            while time.monotonic() < deadline_s:
                self._client.poll(_LEAVE_POLL_S)
                if not self._client.memberid() and not self._client.assignment():
                    break

    def _call(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except KafkaException as error:
            reason = error.args[0]
            if not isinstance(reason, KafkaError) or not passes_by_itself(reason):
                raise MembershipEndedError(reason.name() if isinstance(reason, KafkaError) else "unknown") from None
            log.warning("bus.consumer", extra={"topic": self._topic, "code": reason.name(), "detail": reason.str()})
            return []

    def _begin(self) -> Offsets:
        """Assign the partitions whose offsets are known by now; ask for those of the others."""
        if not self._starting:
            return {}
        try:
            committed = self._starts.poll(self._starting.keys())
        except KafkaException as error:
            raise MembershipEndedError(error.args[0].name()) from None
        begun = {}
        for partition, offset in committed.items():
            sought = self._starting.pop(partition)
            self.commits.start(partition, offset)
            begun[partition] = offset if sought is None else sought
        if begun:
            self._call(lambda: self._client.incremental_assign(self._places(begun)))
            self._given |= begun.keys()
        return begun

    def _send_commit(self, offsets: Offsets) -> None:
        try:
            self._client.commit(offsets=self._places(offsets), asynchronous=True)
        except KafkaException as error:
            self._answers.append((error.args[0], self._places(offsets)))

    def _take_answers(self, now_s: float) -> None:
        answers, self._answers = self._answers, []
        for error, items in answers:
            failed = {item.partition: error or item.error for item in items if error or item.error}
            self.commits.succeeded({item.partition: item.offset for item in items if item.partition not in failed})
            if not failed:
                continue
            self.commits.failed(failed, now_s)
            reason = next(iter(failed.values()))
            log.info("bus.commit_repeated", extra={"topic": self._topic, "partitions": sorted(failed), "code": reason.name()})
            if not passes_by_itself(reason):
                raise MembershipEndedError(reason.name())

    def _committed(self, error: KafkaError | None, items: list[TopicPartition]) -> None:
        self._answers.append((error, items))

    def _assigned(self, client: Any, items: list[TopicPartition]) -> None:
        # An empty assignment, or else the binding would assign all of them, and the client would look for their offsets itself.
        client.incremental_assign([])
        if not self._retired:
            self.owned |= {item.partition for item in items}
            self._starting.update(dict.fromkeys((item.partition for item in items), None))

    def _heard(self, statistics: str) -> None:
        found = _JOIN_STATE.search(statistics)
        self.joined = found is not None and found.group(1) == "steady"

    def _revoked(self, client: Any, items: list[TopicPartition]) -> None:
        partitions = {item.partition for item in items}
        unsent = self.commits.forget(partitions)
        if unsent and not self._retired:
            # Whether it comes in time decides only whether records come twice.
            self._send_commit(unsent)
        given = partitions & self._given
        self._given -= partitions
        client.incremental_unassign([TopicPartition(self._topic, partition) for partition in given])
        self._starts.forget(partitions)
        for partition in partitions:
            self._starting.pop(partition, None)
        gone = self.owned & partitions
        self.owned -= gone
        if gone:
            self._on_revoked(gone)

    def _places(self, offsets: Mapping[int, int]) -> list[TopicPartition]:
        return [
            TopicPartition(self._topic, partition, OFFSET_BEGINNING if offset == OLDEST else offset)
            for partition, offset in offsets.items()
        ]
