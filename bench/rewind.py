"""The worst case of a hole: how much of a day's results of one partition the aggregator reads again, and how long that takes.

Run from the checkout: `python -m bench.rewind`. A real Kafka is started in a temporary folder (jars from `make kafka`). One
partition holds a day of results of 25 cameras, all in their timelines already. Then a camera that was registered a moment
ago sends its first frames, of which the bus has lost the first five: no mark says where to read again. The time is from the
first sight of the hole until the frames after it are in the timeline.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer as KafkaClient

from moodline.services.aggregator.sink import TimelineSink
from moodline.services.aggregator.stage import AggregatorStage
from moodline.shared.bus import Bus, ConsumerSettings, Position, open_bus
from moodline.shared.clock import SystemClock
from moodline.shared.messages import Emotions, PipelineStep, StreamClass, encode, topic
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.worker import Worker, WorkerOptions
from moodline.shared.settings import AggregatorSettings
from moodline.shared.store import HighWaterMark, Retention, Store, TimelineUpdate, open_store
from moodline.shared.streams import StreamSpec
from tests.support.servers import KafkaServer

TOPIC: Final = topic(PipelineStep.EMOTIONS, StreamClass.LIVE)
RETENTION: Final = Retention({1: 86_400})
CAMERAS: Final = 25
DAY_S: Final = 86_400
NEW: Final = "new"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=500_000, help="records of a day in the partition")
    options = parser.parse_args()
    with KafkaServer() as server, tempfile.TemporaryDirectory() as folder:
        bus = open_bus(server.url, partitions=1)
        bus.ensure_topics([TOPIC])
        store = open_store(f"sqlite:///{Path(folder) / 'bench.db'}", RETENTION)
        config = {"queue.buffering.max.messages": 1_000_000, "linger.ms": 50, "log_level": 0}
        client = KafkaClient({"bootstrap.servers": server.servers, **config})
        fill(client, store, options.records)
        measure(client, bus, store, options.records)


def fill(client: Any, store: Store, count: int) -> None:
    now_s = time.time()
    epochs = {}
    for number in range(CAMERAS):
        name = f"camera-{number}"
        store.add(StreamSpec(stream_id=name, url="rtsp://camera.example/1", lane=StreamClass.LIVE))
        epochs[name] = store.acquire(name, now_s - DAY_S).epoch
        update = TimelineUpdate(
            stream_id=name,
            expected=None,
            high_water_mark=HighWaterMark(epochs[name], count),
            final=True,
            position=Position(TOPIC, 0, count),
            state=b"",
            last_event_time_us=0,
        )
        store.apply([update])
    for number in range(count):
        name, at_s = f"camera-{number % CAMERAS}", now_s - DAY_S + DAY_S * number / count
        send(client, frame(name, epochs[name], number // CAMERAS, at_s), at_s)
    client.flush()


def measure(client: Any, bus: Bus, store: Store, before: int) -> None:
    metrics, clock, stop = Metrics(), SystemClock(), threading.Event()
    stage = AggregatorStage(store.load, AggregatorSettings(), metrics)
    looking_up = [bus.offset_at] if hasattr(bus, "offset_at") else []
    sink = TimelineSink(store, metrics, clock, *looking_up)
    consumer = bus.open_consumer(ConsumerSettings(group="moodline.aggregator", topics=(TOPIC,)))
    producer = bus.open_producer()
    worker = Worker(WorkerOptions("aggregator", 500, 0.02), consumer, stage, sink, producer, metrics, clock)

    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(name, labels) or 0.0

    def received() -> float:
        return value("moodline_messages_received_total", worker="aggregator", topic=TOPIC)

    while not consumer.assignment():
        worker.step(stop)
    consumer.seek(Position(TOPIC, 0, before))
    store.add(
        StreamSpec(stream_id=NEW, url="rtsp://camera.example/2", lane=StreamClass.LIVE, created_at_us=int(clock.now_s() * 1e6))
    )
    epoch = store.acquire(NEW, clock.now_s()).epoch
    for seq in range(5, 10):
        send(client, frame(NEW, epoch, seq, clock.now_s()), clock.now_s())
    client.flush()
    while not value("moodline_rewinds_total"):
        worker.step(stop)
    read_before, started_s = received(), time.monotonic()
    while not _is_in(store):
        worker.step(stop)
    took_s = time.monotonic() - started_s
    print(
        f"{before} records in the partition: {received() - read_before:.0f} read again, {took_s:.2f} s until the frames were in"
    )
    consumer.close()
    producer.close()


def _is_in(store: Store) -> bool:
    progress = store.load([NEW])[0]
    return progress is not None and progress.high_water_mark is not None


def send(client: Any, message: Emotions, at_s: float) -> None:
    client.produce(TOPIC, encode(message), message.stream_id.encode(), timestamp=int(at_s * 1000))
    client.poll(0)


def frame(stream_id: str, epoch: int, seq: int, at_s: float) -> Emotions:
    at_us = int(at_s * 1e6)
    return Emotions(
        stream_id=stream_id,
        epoch=epoch,
        seq=seq,
        event_time_us=at_us,
        captured_at_us=at_us,
        lane=StreamClass.LIVE,
        width=640,
        height=360,
    )


if __name__ == "__main__":
    main()
