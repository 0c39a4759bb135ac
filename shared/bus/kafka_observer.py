"""A client beside those that read: it asks about partitions, never waits, and its answers are evidence from elsewhere."""

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from moodline.shared.bus.kafka_settings import KafkaAddress, admin_config, open_client

_REQUEST_S: Final = 5.0


class Observer:
    """Asks a cluster about partitions. Thread-safe. Connects when it is first asked."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._client: Any = None

    def bounds(self, topic: str, partitions: Collection[int], spec: OffsetSpec) -> Mapping[int, "Future[Any]"]:
        """Ask where partitions begin or end."""
        places = {TopicPartition(topic, partition): spec for partition in partitions}
        answers = self._now().list_offsets(places, request_timeout=_REQUEST_S)
        return {place.partition: future for place, future in answers.items()}

    def close(self) -> None:
        """Release the client."""
        with self._lock:
            self._client = None

    def _now(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = open_client(AdminClient, admin_config(self._address), self._address)
            return self._client


def bound_of(future: "Future[Any]") -> int | None:
    """Return the offset that an answer holds; None while there is none, or when the question failed."""
    if not future.done():
        return None
    try:
        offset = int(future.result().offset)
    except KafkaException:
        return None
    return offset if offset >= 0 else None
