"""Ingest workers on a real (in-process) bus and a real store: what arrives is complete, in order, and once per session."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moodline.services.ingest.worker import IngestWorker
from moodline.shared.bus import Bus, ConsumerSettings, open_bus
from moodline.shared.clock import SystemClock
from moodline.shared.messages import ALL_TOPICS, STREAMS_TOPIC, Frame, Message, PipelineStep, StreamClass, decode, topic
from moodline.shared.metrics import Metrics
from moodline.shared.settings import IngestSettings
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec, StreamState
from tests.support.ingest_doubles import apply, open_store

SETTINGS = IngestSettings(credit_frames=32, reconcile_s=0.05, stall_s=60.0)


class Pipeline:
    """Stands for everything after ingest: takes frames in order, some at a time, and moves the timelines' marks."""

    def __init__(self, bus: Bus, store: Store) -> None:
        self._consumer = bus.open_consumer(
            ConsumerSettings(group="moodline.detector", topics=(topic(PipelineStep.FRAMES, StreamClass.FILE),))
        )
        self._store = store
        self.arrived: list[Message] = []
        self.applied: dict[str, list[Message]] = {}

    def run(self) -> None:
        records = self._consumer.poll(16, 0.05)
        for record in records:
            message = decode(record.value)
            self.arrived.append(message)
            if apply(self._store, message):
                self.applied.setdefault(message.stream_id, []).append(message)
        if records:
            self._consumer.commit([record.position for record in records])

    def run_until_final(self, stream_ids: list[str], timeout_s: float = 60.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not all(progress is not None and progress.final for progress in self._store.load(stream_ids)):
            assert time.monotonic() < deadline_s, "the timelines did not become complete"
            self.run()


@contextmanager
def ingest(bus: Bus, store: Store) -> Iterator[Metrics]:
    metrics, stop = Metrics(), threading.Event()
    consumer = bus.open_consumer(ConsumerSettings(group="moodline.ingest", topics=(STREAMS_TOPIC,)))
    producer = bus.open_producer()
    shards = bus.partitions(STREAMS_TOPIC)
    worker = IngestWorker(consumer, producer, store, SETTINGS, metrics, SystemClock(), shards=shards)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        yield metrics
    finally:
        started_s = time.monotonic()
        stop.set()
        thread.join(10.0)
        assert not thread.is_alive()
        assert time.monotonic() - started_s < 2.5
        producer.close()


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = open_bus("memory://", partitions=4, max_bytes=16 * 1024 * 1024)
    bus.ensure_topics(ALL_TOPICS)
    yield bus
    bus.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path)
    yield store
    store.close()


def add_scenes(store: Store, count: int, seconds: int = 8) -> list[str]:
    ids = [f"scene-{number}" for number in range(count)]
    for number, stream_id in enumerate(ids):
        url = f"synthetic://astronaut?seconds={seconds}&fps=25&seed={number}"
        store.add(StreamSpec(stream_id=stream_id, url=url, sample_fps="12.5", max_side_px=160))
    return ids


def content(messages: list[Message]) -> list[tuple[object, ...]]:
    return [(message.seq, message.event_time_us, message.jpeg if isinstance(message, Frame) else "end") for message in messages]


def test_one_worker_reads_many_streams_at_once(bus: Bus, store: Store) -> None:
    ids = add_scenes(store, 6)
    pipeline = Pipeline(bus, store)
    with ingest(bus, store) as metrics:
        pipeline.run_until_final(ids)
        deadline_s = time.monotonic() + 5
        while {status.state for status in store.statuses(ids)} != {StreamState.ENDED}:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
    assert len(pipeline.arrived) == 6 * 101, "nothing was sent twice"
    assert all([message.seq for message in pipeline.applied[stream_id]] == list(range(101)) for stream_id in ids)
    assert metrics.registry.get_sample_value("moodline_reader_restarts_total", {"cause": "bus"}) is None
    assert metrics.registry.get_sample_value("moodline_frames_decoded_total") == 6 * 200


def test_workers_that_come_and_go_leave_no_hole(bus: Bus, store: Store) -> None:
    ids = add_scenes(store, 4)
    pipeline = Pipeline(bus, store)
    with ingest(bus, store):
        pipeline.run_until_final(ids)
    undisturbed = {stream_id: content(pipeline.applied[stream_id]) for stream_id in ids}
    for stream_id in ids:
        store.remove(stream_id)
    pipeline.applied.clear()
    add_scenes(store, 4)

    def applied() -> int:
        return sum(len(messages) for messages in pipeline.applied.values())

    for stop_at in (40, 120, 260):
        with ingest(bus, store):
            deadline_s = time.monotonic() + 30
            while applied() < stop_at:
                assert time.monotonic() < deadline_s
                pipeline.run()
            with ingest(bus, store):
                while applied() < stop_at + 40:
                    assert time.monotonic() < deadline_s
                    pipeline.run()
    with ingest(bus, store):
        pipeline.run_until_final(ids)
    assert {stream_id: content(pipeline.applied[stream_id]) for stream_id in ids} == undisturbed
    assert len({message.epoch for messages in pipeline.applied.values() for message in messages}) > 8
