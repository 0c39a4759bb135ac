"""The producing side of `kafka://`."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from moodline.shared.bus.base import Headers
from moodline.shared.bus.kafka_settings import MAX_RECORD_BYTES, KafkaAddress, open_client, producer_config
from moodline.shared.errors import BusClosedError, BusError, BusFullError, DeliveryError

_SERVE_S: Final = 0.05
_CLOSE_S: Final = 5.0


class KafkaProducer:
    """An idempotent librdkafka producer with a queue bounded in bytes. Thread-safe."""

    def __init__(self, address: KafkaAddress, send_timeout_s: float) -> None:
        self._client = open_client(Producer, producer_config(address), address)
        self._send_timeout_s = send_timeout_s
        self._deliveries = _Deliveries()
        self._closed = False

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> None:
        self._check_open()
        if len(key) + len(value) > MAX_RECORD_BYTES:
            raise DeliveryError(
                f"a record of {len(key) + len(value)} bytes is larger than the {MAX_RECORD_BYTES} that the bus takes",
                frozenset({topic}),
            )
        number = self._deliveries.queued(topic)
        try:
            self._queue(topic, key, value, headers, partial(self._deliveries.done, number))
        except BaseException:
            self._deliveries.not_queued(number, topic)
            raise
        self._client.poll(0)

    def flush(self, timeout_s: float = 60.0) -> None:
        self._check_open()
        deadline_s = time.monotonic() + timeout_s
        number = self._deliveries.end_round()
        # The client's flush ends when nothing at all is under way: while others go on sending, that may be never.
        while self._deliveries.under_way(number) and (remaining_s := deadline_s - time.monotonic()) > 0:
            self._client.flush(min(remaining_s, _SERVE_S))
        self._deliveries.check(number, timeout_s)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._client.flush(_CLOSE_S)
            self._client.purge()
            self._client.flush(_CLOSE_S)

    def _queue(
        self, topic: str, key: bytes, value: bytes, headers: Headers, done: Callable[[KafkaError | None, Any], None]
    ) -> None:
        deadline_s: float | None = None
        while True:
            try:
                self._client.produce(topic, value, key, headers=list(headers) or None, on_delivery=done)
            except BufferError:
                now_s = time.monotonic()
                deadline_s = deadline_s or now_s + self._send_timeout_s
                if now_s >= deadline_s:
                    message = f"the queue to Kafka has been full for {self._send_timeout_s:g} s: brokers are too slow, or gone"
                    raise BusFullError(message) from None
                self._client.poll(_SERVE_S)
                self._check_open()
            except KafkaException as error:
                raise _send_error(error.args[0], topic) from None
            else:
                return

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosedError("the producer is closed")


class _Deliveries:
    """What became of the records.

    Several threads may send and flush. Records are counted in rounds; a flush ends the round and waits for it and those before
    it, not for what others send meanwhile. Each thread learns of every loss since its own last flush, whoever's flush came
    first: a loss that only one of them heard of would be a hole for the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._round = 0
        self._rounds: dict[int, Counter[str]] = {0: Counter()}
        self._losses = 0
        self._last_loss: dict[str, tuple[int, str]] = {}
        self._mine = threading.local()

    def queued(self, topic: str) -> int:
        """Count a record; return the number of its round."""
        with self._lock:
            self._rounds[self._round][topic] += 1
            if not hasattr(self._mine, "seen"):
                self._mine.seen = self._losses
            return self._round

    def not_queued(self, number: int, topic: str) -> None:
        """Take back what `queued` counted."""
        with self._lock:
            self._leave(number, topic)

    def done(self, number: int, error: KafkaError | None, message: Any) -> None:
        """Take a delivery report; the client calls this from whichever thread serves it."""
        topic = message.topic()
        with self._lock:
            self._leave(number, topic)
            if error is not None:
                self._losses += 1
                self._last_loss[topic] = (self._losses, error.name())

    def end_round(self) -> int:
        """Begin a new round; return the number of the one that ended."""
        with self._lock:
            self._round += 1
            self._rounds[self._round] = Counter()
            if not self._rounds[self._round - 1]:
                del self._rounds[self._round - 1]
            return self._round - 1

    def under_way(self, number: int) -> set[str]:
        """Return the topics of the records of this round and those before it that have no report yet."""
        with self._lock:
            return {topic for ended, topics in self._rounds.items() if ended <= number for topic in topics}

    def check(self, number: int, timeout_s: float) -> None:
        """Raise `DeliveryError` if records were lost, or those of these rounds are still under way."""
        late = self.under_way(number)
        with self._lock:
            seen, self._mine.seen = getattr(self._mine, "seen", 0), self._losses
            lost = {topic: code for topic, (loss, code) in self._last_loss.items() if loss > seen}
        if lost:
            codes = ", ".join(f"{topic} ({code})" for topic, code in sorted(lost.items()))
            raise DeliveryError(f"records were lost on their way to {codes}", frozenset(lost) | late)
        if late:
            names = ", ".join(sorted(late))
            raise DeliveryError(f"records for {names} were not acknowledged within {timeout_s:g} s", frozenset(late))

    def _leave(self, number: int, topic: str) -> None:
        topics = self._rounds[number]
        topics[topic] -= 1
        if not topics[topic]:
            del topics[topic]
        if not topics and number < self._round:
            del self._rounds[number]


def _send_error(error: KafkaError, topic: str) -> BusError:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return DeliveryError(f"a record is larger than the bus takes for {topic!r}", frozenset({topic}))
    return BusError(f"Kafka's client refuses to send to {topic!r}: {error.name()}")
