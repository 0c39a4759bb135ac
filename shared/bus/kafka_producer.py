"""The producing side of `kafka://`."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from moodline.shared.bus.base import Headers
from moodline.shared.bus.kafka_errors import passes_by_itself
from moodline.shared.bus.kafka_settings import MAX_RECORD_BYTES, KafkaAddress, log, open_client, producer_config
from moodline.shared.errors import BusClosedError, BusError, BusFullError, DeliveryError, NotDeliveredYetError

_SERVE_S: Final = 0.05
_CLOSE_S: Final = 5.0
_CALM_S: Final = 60.0
_REPLACE_PAUSES_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0)
_FAILED: Final = frozenset({KafkaError._FATAL, KafkaError._STATE})


class KafkaProducer:
    """An idempotent librdkafka producer with a queue bounded in bytes. Thread-safe.

    A client that has failed for good is replaced by a new one. What was on its way is lost then, and reported as such.
    """

    def __init__(self, address: KafkaAddress, send_timeout_s: float) -> None:
        self._address = address
        self._send_timeout_s = send_timeout_s
        self._deliveries = _Deliveries()
        self._closed = False
        self._replacing = threading.Lock()
        self._failed: str | None = None
        self._failures = 0
        self._replaced_s = float("-inf")
        self._client = self._open()

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
        self._serve(0)

    def flush(self, timeout_s: float = 60.0) -> None:
        self._check_open()
        deadline_s = time.monotonic() + timeout_s
        number = self._deliveries.end_round()
        # The client's flush ends when nothing at all is under way: while others go on sending, that may be never.
        while self._deliveries.under_way(number) and (remaining_s := deadline_s - time.monotonic()) > 0:
            self._serve(min(remaining_s, _SERVE_S), all_of_it=True)
            if self._failed:
                self._replace()
        self._deliveries.check(number, timeout_s)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._serve(_CLOSE_S, all_of_it=True)
            _drop(self._client)

    def _open(self) -> Any:
        config = producer_config(self._address)
        set_state = config["error_cb"]

        def on_error(error: KafkaError) -> None:
            set_state(error)
            if error.fatal():
                self._failed = error.name()

        return open_client(Producer, {**config, "error_cb": on_error}, self._address)

    def _queue(
        self, topic: str, key: bytes, value: bytes, headers: Headers, done: Callable[[KafkaError | None, Any], None]
    ) -> None:
        deadline_s: float | None = None
        while True:
            if self._failed and not self._replace():
                deadline_s = self._wait(deadline_s, f"Kafka's client has failed ({self._failed}) and is replaced soon")
                continue
            try:
                self._client.produce(topic, value, key, headers=list(headers) or None, on_delivery=done)
            except BufferError:
                reason = f"the queue to Kafka has been full for {self._send_timeout_s:g} s: brokers are too slow, or gone"
                deadline_s = self._wait(deadline_s, reason)
            except KafkaException as error:
                if not error.args[0].fatal() and error.args[0].code() not in _FAILED:
                    raise _send_error(error.args[0], topic) from None
                self._failed = error.args[0].name()
            else:
                return

    def _serve(self, timeout_s: float, *, all_of_it: bool = False) -> None:
        """Let the client report deliveries, for this time or until nothing is under way. One that has failed raises here, too."""
        try:
            if all_of_it:
                self._client.flush(timeout_s)
            else:
                self._client.poll(timeout_s)
        except KafkaException as error:
            if error.args[0].fatal():
                self._failed = error.args[0].name()
            elif not passes_by_itself(error.args[0]):
                raise BusError(f"Kafka's client does not go on: {error.args[0].name()}") from None

    def _wait(self, deadline_s: float | None, reason: str) -> float:
        """Wait a moment for room; return until when to wait at all. Raises `BusFullError` when that is over."""
        now_s = time.monotonic()
        deadline_s = deadline_s or now_s + self._send_timeout_s
        if now_s >= deadline_s:
            raise BusFullError(reason)
        self._serve(_SERVE_S)
        self._check_open()
        return deadline_s

    def _replace(self) -> bool:
        """Replace a client that has failed; say whether there is a working one. One that fails at once is left for a while."""
        with self._replacing:
            if self._failed is None:
                return True
            now_s = time.monotonic()
            if now_s - self._replaced_s < _REPLACE_PAUSES_S[min(self._failures, len(_REPLACE_PAUSES_S) - 1)]:
                return False
            self._failures = self._failures + 1 if now_s - self._replaced_s < _CALM_S else 0
            reason, self._failed, self._replaced_s = self._failed, None, now_s
            log.error("bus.producer_replaced", extra={"bus": repr(self._address), "code": reason})
            failed, self._client = self._client, self._open()
        _drop(failed)
        self._address.reopened("producer")
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosedError("the producer is closed")


def _drop(client: Any) -> None:
    """Give up what a client still holds: each record is reported as lost."""
    client.purge()
    with suppress(KafkaException):  # the failure for which it is dropped
        client.flush(_CLOSE_S)


class _Deliveries:
    """The delivery results of records.

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
        """Raise `DeliveryError` if records were lost, `NotDeliveredYetError` if some of these rounds are still under way."""
        late = self.under_way(number)
        with self._lock:
            seen, self._mine.seen = getattr(self._mine, "seen", 0), self._losses
            lost = {topic: code for topic, (loss, code) in self._last_loss.items() if loss > seen}
        if lost:
            codes = ", ".join(f"{topic} ({code})" for topic, code in sorted(lost.items()))
            raise DeliveryError(f"records were lost on their way to {codes}", frozenset(lost) | late)
        if late:
            names = ", ".join(sorted(late))
            raise NotDeliveredYetError(f"records for {names} were not acknowledged within {timeout_s:g} s", frozenset(late))

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
