"""Finds where a member of a group begins to read: at the committed offsets, which are asked for until they are known.

The client that reads cannot ask: its binding lets one call in at a time, so a question from another thread waits for the poll of
the first. An administrative client cannot either: librdkafka 2.16.0 crashes the process there when the answer is
NOT_COORDINATOR. So the question has a client and a thread of its own, which knows the group and never joins it.
"""

from collections.abc import Collection, Mapping
from threading import Event
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from moodline.shared.bus.background import BackgroundTask
from moodline.shared.bus.base import OLDEST
from moodline.shared.bus.kafka_errors import FORBIDDEN
from moodline.shared.bus.kafka_settings import KafkaAddress, log, open_client

_ASK_S: Final = 2.0
_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
_TRIES: Final = 3
"""Questions of one client. After these a new client asks, which looks for the group's coordinator again."""


class StartOffsets:
    """Asks for the committed offsets of one topic's partitions; nobody waits for the answer.

    Args:
        address: The cluster.
        config: A consumer's properties, with the group.
        topic: The topic.
    """

    def __init__(self, address: KafkaAddress, config: Mapping[str, Any], topic: str) -> None:
        self._address = address
        self._config = dict(config)
        self._topic = topic
        self._question: BackgroundTask[dict[int, int]] | None = None
        self._asked: frozenset[int] = frozenset()
        self._closed = Event()

    def forget(self, partitions: Collection[int]) -> None:
        """Take no answer for partitions that have left, also when they come back meanwhile."""
        self._asked -= frozenset(partitions)

    def poll(self, partitions: Collection[int]) -> dict[int, int]:
        """Return the offsets that were answered, `OLDEST` where the group never committed; ask for the others.

        Raises:
            KafkaException: the group may not be read; asking again would not help.
        """
        if self._question is not None and self._question.done:
            question, self._question = self._question, None
            found = question.result()
            return {partition: found[partition] for partition in self._asked & found.keys() & set(partitions)}
        if self._question is None and partitions:
            wanted = self._asked = frozenset(partitions)
            self._question = BackgroundTask(lambda: self._ask(wanted), "kafka-offsets")
        return {}

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _ask(self, partitions: Collection[int]) -> dict[int, int]:
        found: dict[int, int] = {}
        tries = 0
        while len(found) < len(partitions) and not self._closed.is_set():
            client = open_client(Consumer, self._config, self._address)
            try:
                for _ in range(_TRIES):
                    found |= self._try(client, [partition for partition in partitions if partition not in found], tries)
                    tries += 1
                    if len(found) == len(partitions) or self._closed.wait(_PAUSES_S[min(tries, len(_PAUSES_S)) - 1]):
                        break
            finally:
                client.close()
        return found

    def _try(self, client: Any, partitions: Collection[int], tries: int) -> dict[int, int]:
        try:
            items = client.committed([TopicPartition(self._topic, partition) for partition in partitions], timeout=_ASK_S)
        except KafkaException as error:
            self._report(error.args[0], partitions, tries)
            return {}
        for reason in {item.error for item in items if item.error is not None}:
            self._report(reason, partitions, tries)
        return {item.partition: item.offset if item.offset >= 0 else OLDEST for item in items if item.error is None}

    def _report(self, error: KafkaError, partitions: Collection[int], tries: int) -> None:
        if error.code() in FORBIDDEN:
            raise KafkaException(error)
        if tries in (0, _TRIES) or tries % 30 == 0:
            fields = {"topic": self._topic, "partitions": sorted(partitions), "code": error.name()}
            log.warning("bus.offsets_unanswered", extra=fields)
