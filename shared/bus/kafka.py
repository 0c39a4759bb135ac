"""`kafka://host:port[,host:port…]`: the bus on Apache Kafka, through librdkafka.

It keeps the contract of `moodline.shared.bus.base`, with these particulars:

- Each topic of a consumer is read in a group of its own, `{group}.{topic}`.
- While no broker is reachable, `poll` returns nothing and the client tries again by itself, for as long as it takes.
- `commit` sends and does not wait; its answer is collected by `poll`, and it is sent again until it is taken.
- A consumer's client that fails, or stands still though another client sees records for it, is replaced by a new one.
- What was sent and not acknowledged is tried again for as long as it takes. `flush` says when it is late.
- A producer whose client has failed for good gets another one. What was on its way is reported as lost.
- A key and value may have 4 MiB together.
- The properties of the URL's query go to librdkafka as they are, for instance
  `?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&sasl.username=…&sasl.password=…`; they appear in no log and no error.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, OffsetSpec

from moodline.shared.bus.base import ConsumerSettings
from moodline.shared.bus.kafka_consumer import KafkaConsumer
from moodline.shared.bus.kafka_observer import Observer
from moodline.shared.bus.kafka_producer import KafkaProducer
from moodline.shared.bus.kafka_settings import admin_config, consumer_config, log, open_client, parse_url
from moodline.shared.bus.kafka_topics import FoundTopic, declared_config
from moodline.shared.errors import BusClosedError, BusError, BusUnavailableError

_REQUEST_S: Final = 5.0
_RETRY_S: Final = 0.2
_LEAST_PREFETCH_BYTES: Final = 100_000
_REFUSED: Final = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REQUEST,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError._AUTHENTICATION,
        KafkaError._UNSUPPORTED_FEATURE,
    }
)


class KafkaBus:
    """A Kafka cluster.

    Args:
        url: `kafka://host:port[,host:port…][?property=value&…]`.
        partitions: Partitions of the topics that `ensure_topics` creates.
        send_timeout_s: How long `send` waits for room in the producer's queue before `BusFullError`.
        startup_timeout_s: How long `ensure_topics` and `partitions` try to reach a cluster that is still coming up.
        on_trouble: Called, from any thread, for every error that a client itself tries to get over.
        on_reopened: Called with a topic whose client was replaced, because it failed or stood still.

    Raises:
        SettingsError: the URL cannot be used. Nothing is connected to yet.
    """

    def __init__(
        self,
        url: str,
        partitions: int,
        *,
        send_timeout_s: float = 30.0,
        startup_timeout_s: float = 30.0,
        on_trouble: Callable[[], None] | None = None,
        on_reopened: Callable[[str], None] | None = None,
    ) -> None:
        self._address = parse_url(url)._replace(on_trouble=on_trouble, on_reopened=on_reopened)
        self._partitions = partitions
        self._send_timeout_s = send_timeout_s
        self._startup_timeout_s = startup_timeout_s
        self._observer = Observer(self._address)
        self._admin: Any = open_client(AdminClient, admin_config(self._address), self._address)

    def __repr__(self) -> str:
        return f"KafkaBus({self._address!r})"

    def ensure_topics(self, names: Iterable[str]) -> None:
        wanted = list(dict.fromkeys(names))
        deadline_s = time.monotonic() + self._startup_timeout_s
        missing = self._missing(wanted, deadline_s)
        while missing:
            reason = self._create(missing)
            if time.monotonic() > deadline_s:
                raise BusUnavailableError(
                    f"{self._address!r} did not create {', '.join(missing)} within {self._startup_timeout_s:g} s: {reason}"
                )
            time.sleep(_RETRY_S / 4)
            missing = self._missing(wanted, deadline_s)

    def open_consumer(self, settings: ConsumerSettings) -> KafkaConsumer:
        self._check_open()
        return KafkaConsumer(self._address, settings, self._observer)

    def open_producer(self) -> KafkaProducer:
        self._check_open()
        return KafkaProducer(self._address, self._send_timeout_s)

    def partitions(self, topic: str) -> int:
        known = self._counts(time.monotonic() + self._startup_timeout_s)
        if topic not in known:
            raise BusError(f"topic {topic!r} does not exist on {self._address!r}; ensure_topics creates it")
        return known[topic]

    def uncommitted(self, group: str, topic: str, partition: int) -> int:
        self._check_open()
        place, name = TopicPartition(topic, partition), f"{group}.{topic}"
        # A client that never joins the group. The administrative one must not ask: NOT_COORDINATOR crashes the process there.
        client = open_client(Consumer, consumer_config(self._address, name, _LEAST_PREFETCH_BYTES), self._address)
        try:
            (item,) = client.committed([place], timeout=_REQUEST_S)
            if item.error is not None:
                raise KafkaException(item.error)
            first, end = client.get_watermark_offsets(place, timeout=_REQUEST_S)
        except KafkaException as error:
            raise self._refusal(error, f"ask for the offsets of {name!r}") from None
        finally:
            client.close()
        return int(max(0, end - (item.offset if item.offset >= 0 else first)))

    def _offset(self, place: TopicPartition, spec: OffsetSpec) -> int:
        futures = self._admin.list_offsets({place: spec}, request_timeout=_REQUEST_S)
        return int(self._answer(futures[place], f"look up an offset in {place.topic}/{place.partition}").offset)

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int | None:
        self._check_open()
        place = TopicPartition(topic, partition)
        offset = self._offset(place, OffsetSpec.for_timestamp(max(0, time_ms)))
        if offset == OFFSET_INVALID:
            # librdkafka's answer, without an error, for a partition whose leader it did not reach.
            raise BusUnavailableError(
                f"{self._address!r} did not look up an offset in {topic}/{partition}: its leader is unavailable"
            )
        return None if offset < 0 else offset

    def find_topics(self, names: Iterable[str]) -> dict[str, FoundTopic]:
        """Return those of the topics that exist, with their partitions and settings.

        Raises:
            BusUnavailableError, BusError: the cluster does not answer, or not to Moodline.
        """
        counts = self._counts(time.monotonic() + self._startup_timeout_s)
        there = [name for name in dict.fromkeys(names) if name in counts]
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in there]
        futures = self._admin.describe_configs(resources, request_timeout=_REQUEST_S) if there else {}
        configs = {resource.name: self._answer(future, f"show {resource.name!r}") for resource, future in futures.items()}
        return {
            name: FoundTopic(counts[name], {key: entry.value for key, entry in configs[name].items() if entry.value is not None})
            for name in there
        }

    def change_topic(self, name: str, config: Mapping[str, str]) -> None:
        """Give a topic these settings, by Kafka's names, and leave its others as they are. Raises as `find_topics` does."""
        self._check_open()
        entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in sorted(config.items())]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
        for future in self._admin.incremental_alter_configs([resource], request_timeout=_REQUEST_S).values():
            self._answer(future, f"change {name!r}")

    def close(self) -> None:
        self._admin = None
        self._observer.close()

    def _answer(self, future: "Future[Any]", what: str) -> Any:
        try:
            return future.result()
        except KafkaException as error:
            raise self._refusal(error, what) from None

    def _refusal(self, error: KafkaException, what: str) -> BusError:
        reason = error.args[0]
        if reason.code() in _REFUSED:
            return BusError(f"{self._address!r} does not let Moodline {what}: {reason.str()}")
        return BusUnavailableError(f"{self._address!r} did not {what}: {reason.name()}")

    def _missing(self, wanted: list[str], deadline_s: float) -> list[str]:
        known = self._counts(deadline_s)
        return [name for name in wanted if name not in known]

    def _counts(self, deadline_s: float) -> dict[str, int]:
        """Return the number of partitions of every topic whose partitions all have a leader."""
        self._check_open()
        while True:
            try:
                metadata = self._admin.list_topics(timeout=min(_REQUEST_S, max(1.0, deadline_s - time.monotonic())))
            except KafkaException as error:
                reason = error.args[0]
                if reason.code() in _REFUSED:
                    raise BusError(f"{self._address!r} refuses Moodline: {reason.name()}") from None
                if time.monotonic() > deadline_s:
                    raise BusUnavailableError(
                        f"no answer from {self._address!r} for {self._startup_timeout_s:g} s ({reason.name()}); "
                        "is Kafka running there?"
                    ) from None
                log.info("bus.waiting", extra={"bus": repr(self._address), "code": reason.name()})
                time.sleep(_RETRY_S)
            else:
                return {
                    name: len(topic.partitions)
                    for name, topic in metadata.topics.items()
                    if topic.partitions and all(partition.leader >= 0 for partition in topic.partitions.values())
                }

    def _create(self, names: list[str]) -> str:
        """Ask for topics; return why the last of those that failed did, or an empty text."""
        topics = [NewTopic(name, self._partitions, -1, config=declared_config(name)) for name in names]
        reason = "its metadata does not show them"
        for name, future in self._admin.create_topics(topics, operation_timeout=_REQUEST_S, request_timeout=_REQUEST_S).items():
            try:
                future.result()
            except KafkaException as error:
                code = error.args[0].code()
                if code in _REFUSED:
                    raise BusError(f"{self._address!r} does not let Moodline create {name!r}: {error.args[0].str()}") from None
                if code != KafkaError.TOPIC_ALREADY_EXISTS:
                    reason = error.args[0].name()
        return reason

    def _check_open(self) -> None:
        if self._admin is None:
            raise BusClosedError("the bus is closed")
