"""The consuming side of `kafka://`.

Kafka knows no priority among topics, so each topic is a lane: a librdkafka consumer of its own, in a group named after the
consumer's group and the topic. Partitions of each topic are then dealt out evenly for themselves, too. All lanes are served
by the one thread that polls: it blocks on the first lane, in slices, and looks at the others in between.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from moodline.shared.bus.base import OLDEST, ConsumerSettings, Position, Record
from moodline.shared.bus.kafka_settings import KafkaAddress, consumer_config, log, open_client
from moodline.shared.errors import BusClosedError, BusError, BusUnavailableError

_SLICE_S: Final = 0.01
"""How long a wait on the first lane leaves the others alone: bounds what that adds to their latency."""

_STARVED_S: Final = 5.0
"""A later lane gives one record this often although earlier ones fill every batch: who never polls is put out of the group."""

_RETRY_S: Final = 0.05
_COMMIT_S: Final = 20.0
_REBALANCE_S: Final = 5.0
_SEEK_S: Final = 10.0
_CLOSE_S: Final = 10.0

_MOVING = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS})
_GONE = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_INSTANCE_ID, KafkaError._ASSIGNMENT_LOST})
_AWAY = frozenset(
    {
        KafkaError._WAIT_COORD,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
)
_SEEK_LATER = frozenset({KafkaError._STATE, KafkaError._TIMED_OUT, KafkaError._PREV_IN_PROGRESS})
_FORBIDDEN = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})

Revoked = Callable[[str, set[int]], None]


class KafkaConsumer:
    """A consumer over one or more lanes."""

    def __init__(self, address: KafkaAddress, settings: ConsumerSettings) -> None:
        self._settings = settings
        self._on_revoked = settings.on_revoked
        self._batch: list[Record] = []
        self._closed = False
        self._lanes = [_Lane(address, settings, topic, self._revoked) for topic in settings.topics]

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
        for lane in self._lanes:
            lane.commit(done.get(lane.topic, {}))

    def seek(self, position: Position) -> None:
        self._check_open()
        for lane in self._lanes:
            if lane.topic == position.topic:
                lane.seek(position.partition, position.offset)

    def assignment(self) -> frozenset[tuple[str, int]]:
        return frozenset((lane.topic, partition) for lane in self._lanes for partition in lane.owned)

    def ends(self) -> dict[tuple[str, int], int]:
        """As of the brokers' last answers; while the client's queue is full it fetches nothing, and hears of nothing new."""
        return {} if self._closed else {(lane.topic, part): end for lane in self._lanes for part, end in lane.ends()}

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for lane in self._lanes:
                lane.close()

    def _wait_for(self, wanted: int, limits: Mapping[str, int], timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while len(self._batch) < wanted:
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                return
            if len(self._lanes) > 1:
                remaining_s = min(remaining_s, _SLICE_S)
            self._batch.extend(self._lanes[0].wait(remaining_s))
            self._sweep(limits)

    def _sweep(self, limits: Mapping[str, int]) -> None:
        """Add what is there, in order of priority, without waiting."""
        starved_since_s = time.monotonic() - _STARVED_S
        for lane in self._lanes[1:]:
            if lane.served_s < starved_since_s:
                self._batch.extend(lane.take(1))
        for lane in self._lanes:
            room = limits[lane.topic] - len(self._batch)
            if room > 0:
                self._batch.extend(lane.take(room))

    def _revoked(self, topic: str, partitions: set[int]) -> None:
        """Drop what this poll has collected from partitions that just went away, and tell the worker."""
        self._batch[:] = [
            record for record in self._batch if record.position.topic != topic or record.position.partition not in partitions
        ]
        if self._on_revoked is not None:
            self._on_revoked(frozenset((topic, partition) for partition in partitions))

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosedError("the consumer is closed")


class _Lane:
    """One topic of a consumer.

    Attributes:
        topic: The topic.
        owned: Partitions owned as of the last call.
        served_s: Monotonic time of the last look at the client.
    """

    def __init__(self, address: KafkaAddress, settings: ConsumerSettings, topic: str, on_revoked: Revoked) -> None:
        config = consumer_config(address, f"{settings.group}.{topic}", settings.max_prefetch_bytes, settings.heartbeat_ms)
        self.topic = topic
        self.owned: set[int] = set()
        self.served_s = time.monotonic()
        self._on_revoked = on_revoked
        self._commit_under_way: _Errand | None = None
        self._client = open_client(Consumer, config, address)
        self._client.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def take(self, limit: int) -> list[Record]:
        """Return up to `limit` records that are there."""
        return self._records(self._client.consume(limit, 0))

    def wait(self, timeout_s: float) -> list[Record]:
        """Wait for one record. `consume` would wait the whole time for a batch that is not full."""
        message = self._client.poll(timeout_s)
        return self._records([] if message is None else [message])

    def ends(self) -> Iterator[tuple[int, int]]:
        """Yield each owned partition's end, as far as it is known."""
        for partition in self.owned:
            bounds = self._client.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
            if bounds is not None and bounds[1] >= 0:
                yield partition, bounds[1]

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit the next offset of each partition, except for those that are not owned."""
        pending = [
            TopicPartition(self.topic, partition, offset) for partition, offset in offsets.items() if partition in self.owned
        ]
        started_s = time.monotonic()
        while pending:
            failed = self._try_commit(pending, started_s + _COMMIT_S)
            waited_s = time.monotonic() - started_s
            pending = [item for item, error in failed if self._commit_again(error, waited_s)]
            if pending:
                time.sleep(_RETRY_S)

    def seek(self, partition: int, offset: int) -> None:
        """Continue at `offset`. What was fetched before is dropped by the client.

        The client refuses while it still looks up where to start in a partition that it has just been given.
        """
        target = TopicPartition(self.topic, partition, OFFSET_BEGINNING if offset == OLDEST else offset)
        deadline_s = time.monotonic() + _SEEK_S
        while partition in self.owned:
            try:
                self._client.seek(target)
            except KafkaException as error:
                if error.args[0].code() not in _SEEK_LATER:
                    raise BusError(f"cannot seek in {self.topic}/{partition}: {error.args[0].name()}") from None
                if time.monotonic() > deadline_s:
                    raise BusUnavailableError(f"{self.topic}/{partition} could not be sought for {_SEEK_S:g} s") from None
                time.sleep(_RETRY_S / 10)
            else:
                return

    def close(self) -> None:
        """Leave the group. Gives up after a while when no broker answers; the session's end then does it."""
        if self.owned:
            self._drop(self.owned)
        if not _Errand(self._client.close).wait(_CLOSE_S):
            log.warning("bus.close_unanswered", extra={"topic": self.topic})

    def _records(self, messages: Iterable[Any]) -> list[Record]:
        self.served_s = time.monotonic()
        records = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._check(error)
            elif message.partition() in self.owned:
                position = Position(self.topic, message.partition(), message.offset())
                headers = tuple(message.headers() or ())
                records.append(Record(position, message.key() or b"", message.value() or b"", message.timestamp()[1], headers))
        return records

    def _check(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in _FORBIDDEN:
            raise BusError(f"Kafka refuses to serve {self.topic!r}: {error.name()}")
        log.warning("bus.consumer", extra={"topic": self.topic, "code": error.name(), "detail": error.str()})

    def _try_commit(self, pending: list[TopicPartition], deadline_s: float) -> list[tuple[TopicPartition, KafkaError]]:
        """Return the partitions whose commit failed, and why.

        A commit that is still under way from an earlier call is waited for first: it must not land after this one.
        """
        late = [(item, KafkaError(KafkaError._TIMED_OUT)) for item in pending]
        if self._commit_under_way is not None and not self._commit_under_way.wait(deadline_s - time.monotonic()):
            return late
        errand = _Errand(lambda: self._client.commit(offsets=pending, asynchronous=False))
        self._commit_under_way = errand
        if not errand.wait(deadline_s - time.monotonic()):
            return late
        try:
            results = errand.result()
        except KafkaException as error:
            return [(item, error.args[0]) for item in pending]
        failed = {item.partition: item.error for item in results if item.error is not None}
        return [(item, failed[item.partition]) for item in pending if item.partition in failed]

    def _commit_again(self, error: KafkaError, waited_s: float) -> bool:
        """Say whether to try again; False when the partition is another's now, so that the commit is to be ignored."""
        code = error.code()
        if code in _GONE or (code in _MOVING and waited_s > _REBALANCE_S):
            log.info("bus.commit_ignored", extra={"topic": self.topic, "code": error.name()})
            return False
        if code not in _MOVING | _AWAY and not error.retriable():
            raise BusError(f"Kafka refuses a commit for {self.topic!r}: {error.name()}")
        if waited_s > _COMMIT_S:
            raise BusUnavailableError(f"Kafka has not taken a commit for {self.topic!r} for {waited_s:.0f} s: {error.name()}")
        return True

    def _assigned(self, _client: Any, partitions: list[TopicPartition]) -> None:
        self.owned |= {item.partition for item in partitions}

    def _revoked(self, _client: Any, partitions: list[TopicPartition]) -> None:
        self._drop({item.partition for item in partitions})

    def _drop(self, partitions: set[int]) -> None:
        gone = self.owned & partitions
        self.owned -= gone
        if gone:
            self._on_revoked(self.topic, gone)


class _Errand:
    """A call of the client in a thread of its own: while no broker answers, a commit or a close may never return."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._done = threading.Event()
        self._result: Any = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, args=(call,), name="kafka-errand", daemon=True).start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of the call; say whether it came."""
        return self._done.wait(max(0.0, timeout_s))

    def result(self) -> Any:
        """Return what the call returned, or raise what it raised; only after its end."""
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._result = call()
        except (KafkaException, RuntimeError) as error:  # the latter from a client that was closed meanwhile
            self._error = error
        finally:
            self._done.set()
