"""A bus that traces what travels on it, around any other. Where tracing is off there is none."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from moodline.shared.bus.base import Bus, Consumer, ConsumerSettings, Headers, Position, Producer, Record
from moodline.shared.messages import PipelineStep, StreamClass, topic
from moodline.shared.tracing.spans import Tracing

_STEPS: Final = {topic(step, lane): step for step in PipelineStep for lane in StreamClass}


class TracedBus:
    """Keeps the contract of `moodline.shared.bus.base`, as the bus around which it is does. Closing it ends the tracing."""

    def __init__(self, bus: Bus, tracing: Tracing) -> None:
        self._bus = bus
        self._tracing = tracing

    def ensure_topics(self, names: Iterable[str]) -> None:
        self._bus.ensure_topics(names)

    def open_consumer(self, settings: ConsumerSettings) -> Consumer:
        return _TracedConsumer(self._bus.open_consumer(settings), self._tracing)

    def open_producer(self) -> Producer:
        return _TracedProducer(self._bus.open_producer(), self._tracing)

    def partitions(self, topic: str) -> int:
        return self._bus.partitions(topic)

    def uncommitted(self, group: str, topic: str, partition: int) -> int:
        return self._bus.uncommitted(group, topic, partition)

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int | None:
        return self._bus.offset_at(topic, partition, time_ms)

    def close(self) -> None:
        self._bus.close()
        self._tracing.close()


class _TracedConsumer:
    def __init__(self, consumer: Consumer, tracing: Tracing) -> None:
        self._consumer = consumer
        self._tracing = tracing

    def poll(self, max_records: int, timeout_s: float, linger_s: float = 0.0) -> list[Record]:
        records = self._consumer.poll(max_records, timeout_s, linger_s)
        for record in records:
            if record.headers and record.position.topic in _STEPS:
                self._tracing.take(_STEPS[record.position.topic], record)
        return records

    def commit(self, positions: Iterable[Position]) -> None:
        done = list(positions)
        self._consumer.commit(done)
        self._tracing.finish(done)

    def seek(self, position: Position) -> None:
        self._consumer.seek(position)

    def assignment(self) -> frozenset[tuple[str, int]]:
        return self._consumer.assignment()

    def ends(self) -> Mapping[tuple[str, int], int]:
        return self._consumer.ends()

    def committed(self) -> Mapping[tuple[str, int], int]:
        return self._consumer.committed()

    def standing(self) -> Mapping[tuple[str, int], float]:
        return self._consumer.standing()

    def close(self) -> None:
        self._consumer.close()


class _TracedProducer:
    def __init__(self, producer: Producer, tracing: Tracing) -> None:
        self._producer = producer
        self._tracing = tracing

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> None:
        step = _STEPS.get(topic)
        if step is PipelineStep.FRAMES:
            self._tracing.publish(value, partial(self._producer.send, topic, key, value))
        else:
            own = () if step is None else self._tracing.pass_on(step, key, value)
            self._producer.send(topic, key, value, headers + own)

    def flush(self, timeout_s: float = 60.0) -> None:
        self._producer.flush(timeout_s)

    def close(self) -> None:
        self._producer.close()
