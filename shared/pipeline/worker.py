"""The one loop that every stage runs in: poll, decode, process, write, commit.

Everything cross-cutting sits here: retries, dead letters, metrics, logs and the only `except Exception`. The order is the
promise: outputs are durable before their inputs are committed, so whatever dies, wherever, the inputs come again.

What goes wrong, and what the loop does:

| fault | answer |
| --- | --- |
| bytes that are no message of ours | to the dead-letter topic with reason and origin; after too many in a row, not ready |
| a message on which the stage itself fails | tried alone; if it fails alone, it goes to the dead-letter topic; the others go on |
| store or bus unavailable | the batch is read again after a pause, for as long as it takes |
| outputs are not durable yet | the batch is kept and waited for, for as long as it takes; the worker is not ready meanwhile |
| outputs of a file stream were lost | the batch is read again; lost ten times in a row, the worker stops without committing |
| delivery failed for live streams only | counted; old live frames are worth nothing |
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from moodline.shared.bus.base import Consumer, Position, Producer, Record
from moodline.shared.clock import Clock
from moodline.shared.errors import (
    BusFullError,
    BusUnavailableError,
    DeliveryError,
    MessageError,
    StoreUnavailableError,
)
from moodline.shared.messages import (
    DEAD_LETTER_VALUE_LIMIT_BYTES,
    DLQ_TOPIC,
    DeadLetter,
    End,
    StreamClass,
    decode,
    encode,
    stream_class_of,
)
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.delivery import flush_patiently
from moodline.shared.pipeline.health import Health
from moodline.shared.pipeline.lag import POLL_S, Lag, LagGauges
from moodline.shared.pipeline.plausible import check_plausible
from moodline.shared.pipeline.stage import Output, Received, Rewind, Send, Stage, Written

log = logging.getLogger("moodline.worker")

_LOST_LIMIT = 10
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class Sink(Protocol):
    """Makes a stage's outputs durable."""

    def write(self, outputs: Sequence[Output]) -> Written:
        """Perform the outputs; return only when they are durable. Safe to repeat.

        Raises:
            StoreUnavailableError, BusUnavailableError: try again later.
            DeliveryError: outputs were lost.
        """
        ...


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Options of a worker.

    Attributes:
        name: Name in metrics, logs and dead letters.
        max_records: Most records in a batch.
        linger_s: How long a batch waits for more after its first record.
        poison_limit: Undecodable records in a row after which the worker says that it is not ready.
        idle_s: Longest wait for a first record; bounds how late `tick` and a stop are noticed.
        on_failed: Told of each message on which the stage failed alone, with the error's name. Raises nothing.
    """

    name: str
    max_records: int
    linger_s: float
    poison_limit: int = 100
    idle_s: float = 0.2
    on_failed: Callable[[Received, str], None] | None = None


class ProducerSink:
    """Publishes `Send` outputs and waits until they are durable. A full bus is waited for: that is back-pressure."""

    def __init__(
        self, name: str, producer: Producer, metrics: Metrics, stop: threading.Event, health: Health | None = None
    ) -> None:
        self._name = name
        self._producer = producer
        self._metrics = metrics
        self._stop = stop
        self._health = health

    def write(self, outputs: Sequence[Output]) -> Written:
        for output in outputs:
            if isinstance(output, Send):
                self._send(output)
        try:
            flush_patiently(self._producer, self._name, self._stop, self._health)
        except DeliveryError as error:
            if not error.topics or any(stream_class_of(name) is not StreamClass.LIVE for name in error.topics):
                raise
            log.warning("delivery.live_lost", extra={"worker": self._name, "topics": sorted(error.topics)})
        return Written([output.position for output in outputs if isinstance(output, Rewind)])

    def _send(self, output: Send) -> None:
        key, value = output.message.stream_id.encode(), encode(output.message)
        while True:
            try:
                self._producer.send(output.topic, key, value)
            except BusFullError:
                if self._stop.is_set():
                    raise
                self._metrics.retries.labels(self._name, "bus").inc()
                if self._health is not None:
                    self._health.waits(self._name, "bus: full")
            else:
                self._metrics.messages_sent.labels(self._name, output.topic).inc()
                return


class Worker:
    """Runs one stage. One worker, one thread; scale by running more of them."""

    def __init__(  # noqa: PLR0913, PLR0917  # the composition root's seam
        self,
        options: WorkerOptions,
        consumer: Consumer,
        stage: Stage,
        sink: Sink,
        dead_letters: Producer,
        metrics: Metrics,
        clock: Clock,
        health: Health | None = None,
    ) -> None:
        self._health = health or Health(metrics, clock)
        self._stop = threading.Event()
        self._lost_in_a_row = 0
        self._options = options
        self._consumer = consumer
        self._stage = stage
        self._sink = sink
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._clock = clock
        self._poisoned_in_a_row = 0
        self._last_poison = ""
        self._failures_in_a_row = 0
        self._lag = Lag()
        self._lag_gauges = LagGauges(options.name, metrics, clock)
        self._poll_due_s = float("-inf")
        self._topics: dict[str, None] = {}
        metrics.begin_at_zero(options.name)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. Blocks; closes the stage and leaves the group at the end.

        Raises:
            DeliveryError: outputs of a file stream were lost again and again; nothing was committed.
            BusError: the bus is beyond repair.
        """
        name = self._options.name
        log.info("worker.started", extra={"worker": name})
        self._metrics.worker_up.labels(name).set(1)
        self._stop = stop
        try:
            while not stop.is_set():
                self.step(stop)
        except BusFullError:
            if not stop.is_set():
                raise
        finally:
            self._metrics.worker_up.labels(name).set(0)
            self._health.ended(name)
            self._stage.close()
            self._consumer.close()
            log.info("worker.stopped", extra={"worker": name})

    def step(self, stop: threading.Event) -> None:
        """Do one turn of the loop: at most one batch."""
        try:
            records = self._consumer.poll(self._options.max_records, self._options.idle_s, self._options.linger_s)
            self._show_lag(records)
            self._handle(records)
        except (StoreUnavailableError, BusUnavailableError, DeliveryError) as error:
            target = "store" if isinstance(error, StoreUnavailableError) else "bus"
            if isinstance(error, DeliveryError):
                self._lost_in_a_row += 1
                if self._lost_in_a_row >= _LOST_LIMIT:
                    raise
            self._health.waits(self._options.name, f"{target}: {error}")
            self._metrics.retries.labels(self._options.name, target).inc()
            log.warning("worker.retry", extra={"worker": self._options.name, "target": target, "reason": str(error)})
            stop.wait(_BACKOFF_S[min(self._failures_in_a_row, len(_BACKOFF_S) - 1)])
            self._failures_in_a_row += 1
        else:
            self._failures_in_a_row = 0
            if records:
                self._lost_in_a_row = 0
            self._tell_health()

    def _show_lag(self, records: Sequence[Record]) -> None:
        """Say how far behind this worker is, the batch that it is about to handle included."""
        self._lag.took(records)
        if self._clock.monotonic_s() < self._poll_due_s:
            self._lag_gauges.show_in_hand(records)
            return
        self._poll_due_s = self._clock.monotonic_s() + POLL_S
        owned = self._consumer.assignment()
        self._topics.update(dict.fromkeys(topic for topic, _ in owned))
        now_ms = self._clock.now_s() * 1000
        ends, committed = self._consumer.ends(), self._consumer.committed()
        self._lag_gauges.show(self._lag.poll(ends, owned, tuple(self._topics), now_ms, committed))
        self._health.standing(self._options.name, self._consumer.standing())

    def _handle(self, records: Sequence[Record]) -> None:
        try:
            rewinds = self._process(self._decode(records))
        except (StoreUnavailableError, BusUnavailableError, DeliveryError):
            self._read_again(records)
            raise
        self._commit(records, rewinds)

    def _decode(self, records: Sequence[Record]) -> list[Received]:
        received, now_ms, dead = [], self._clock.now_s() * 1000, False
        for record in records:
            topic = record.position.topic
            lane = stream_class_of(topic) or StreamClass.FILE
            self._metrics.messages_received.labels(self._options.name, topic).inc()
            self._metrics.queue_age_seconds.labels(self._options.name, lane).observe(
                max(0.0, now_ms - record.timestamp_ms) / 1000
            )
            try:
                message = decode(record.value)
                check_plausible(message, record)
            except MessageError as error:
                self._dead_letter(record, error.reason, str(error))
                dead = True
                continue
            self._poisoned_in_a_row = 0
            if not isinstance(message, End):
                self._metrics.frames.labels(self._options.name, message.lane).inc()
            received.append(Received(message, record.position, record.timestamp_ms))
        if dead:
            self._flush_dead_letters()
        return received

    def _flush_dead_letters(self) -> None:
        flush_patiently(self._dead_letters, self._options.name, self._stop, self._health)

    def _process(self, received: Sequence[Received]) -> list[Position]:
        now_s = self._clock.now_s()
        try:
            return self._run_stage(received, now_s)
        except (StoreUnavailableError, BusUnavailableError, DeliveryError, BusFullError):
            raise
        except Exception:
            log.exception("stage.failed", extra={"worker": self._options.name, "messages": len(received)})
            self._stage.on_revoked(self._consumer.assignment())
        return self._process_singly(received, now_s)

    def _process_singly(self, received: Sequence[Received], now_s: float) -> list[Position]:
        rewinds: list[Position] = []
        for item in received:
            try:
                rewinds += self._run_stage([item], now_s)
            except (StoreUnavailableError, BusUnavailableError, DeliveryError, BusFullError):
                raise
            except Exception as error:
                place = {"stream_id": item.message.stream_id, "session": item.message.epoch, "seq": item.message.seq}
                log.exception("stage.message_failed", extra={"worker": self._options.name, **place})
                self._stage.on_revoked(self._consumer.assignment())
                value = encode(item.message)
                record = Record(item.position, item.message.stream_id.encode(), value, int(now_s * 1000))
                self._dead_letter(record, "stage_error", type(error).__name__)
                self._flush_dead_letters()
                if self._options.on_failed is not None:
                    self._options.on_failed(item, type(error).__name__)
            else:
                self._poisoned_in_a_row = 0
        return rewinds

    def _run_stage(self, received: Sequence[Received], now_s: float) -> list[Position]:
        name, started = self._options.name, self._clock.monotonic_s()
        outputs = self._stage.process(received, now_s) if received else []
        outputs += self._stage.tick(now_s)
        written = self._clock.monotonic_s()
        if received:
            self._metrics.batch_size.labels(name).observe(len(received))
            self._metrics.stage_seconds.labels(name).observe(written - started)
        if not outputs:
            return []
        result = self._sink.write(outputs)
        if result.refused:
            self._stage.on_refused(result.refused)
        self._metrics.sink_seconds.labels(name).observe(self._clock.monotonic_s() - written)
        return result.rewinds

    def _commit(self, records: Iterable[Record], rewinds: Sequence[Position]) -> None:
        first: dict[tuple[str, int], Position] = {}
        for position in sorted(rewinds, key=lambda position: position.offset):
            first.setdefault((position.topic, position.partition), position)
        last: dict[tuple[str, int], Position] = {}
        for record in records:
            last[record.position.topic, record.position.partition] = record.position
        # Seeking comes first: a commit that fails must not make the worker forget what it has to read again.
        for position in first.values():
            self._metrics.rewinds.inc()
            self._consumer.seek(position)
        done = [position for place, position in last.items() if place not in first]
        if done:
            self._consumer.commit(done)
            self._lag.committed(done)

    def _read_again(self, records: Iterable[Record]) -> None:
        first: dict[tuple[str, int], Position] = {}
        for record in records:
            first.setdefault((record.position.topic, record.position.partition), record.position)
        self._stage.on_revoked(frozenset(first))
        for position in first.values():
            self._consumer.seek(position)

    def _dead_letter(self, record: Record, reason: str, detail: str) -> None:
        position = record.position
        origin = f"{position.topic}/{position.partition}@{position.offset}"
        dead_letter = DeadLetter(
            reason=reason,
            detail=detail[:500],
            topic=position.topic,
            partition=position.partition,
            offset=position.offset,
            worker=self._options.name,
            failed_at_us=int(self._clock.now_s() * 1e6),
            key=record.key[:256],
            value=record.value[:DEAD_LETTER_VALUE_LIMIT_BYTES],
        )
        self._dead_letters.send(DLQ_TOPIC, dead_letter.key, encode(dead_letter))
        self._metrics.dead_letters.labels(self._options.name, reason).inc()
        log.warning(
            "message.dead",
            extra={
                "worker": self._options.name,
                "reason": reason,
                "origin": origin,
            },
        )
        self._poisoned_in_a_row += 1
        self._last_poison = origin

    def _tell_health(self) -> None:
        """Tell that the loop has turned. Rubbish on a topic does not stop it, and a wrong deployment is not overlooked."""
        if self._poisoned_in_a_row < self._options.poison_limit:
            self._health.turned(self._options.name)
            return
        self._health.waits(
            self._options.name,
            f"a message that can be used: the last {self._poisoned_in_a_row} could not, the newest at {self._last_poison}; "
            "check that all workers run the same version, and who may write to the topics",
        )
