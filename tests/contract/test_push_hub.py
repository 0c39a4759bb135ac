"""The hub of pushed frames on every bus: what comes out at the other end is what was pushed, in order, and each frame once."""

import time
import uuid
from pathlib import Path

import cv2
import numpy as np

from moodline.services.ingest.push.hub import PushHub
from moodline.shared.bus import Record
from moodline.shared.clock import SystemClock
from moodline.shared.messages import ALL_TOPICS, Frame, PipelineStep, StreamClass, decode, topic
from moodline.shared.metrics import Metrics
from moodline.shared.settings import load_settings
from moodline.shared.streams import StreamSpec, StreamState
from tests.contract.bus_bench import DEADLINE_S, Bench
from tests.support.ingest_doubles import open_store
from tests.support.servers import wait_until

TOPIC = topic(PipelineStep.FRAMES, StreamClass.LIVE)
COUNT = 30


def picture(shade: int) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((48, 64, 3), shade, np.uint8))[1])


def test_pushed_frames_of_several_streams_arrive_each_in_order(bench: Bench, tmp_path: Path) -> None:
    bench.bus.ensure_topics(ALL_TOPICS)
    consumer, store, clock = bench.consumer(TOPIC), open_store(tmp_path), SystemClock()
    names = [f"door-{uuid.uuid4().hex[:8]}" for _ in range(3)]
    producer = bench.bus.open_producer()
    metrics = Metrics()
    with PushHub(store, load_settings(), metrics, clock, lambda: producer) as hub:
        specs = [store.add(StreamSpec(stream_id=name, url="push://", lane=StreamClass.LIVE, sample_fps="all")) for name in names]
        for number in range(COUNT):
            for spec in specs:
                assert hub.push(spec, picture(number)).sampled
            time.sleep(0.005)
        # Who stops it waits for a few seconds only, and the store of a busy machine may take longer.
        sent = ("moodline_messages_sent_total", {"worker": "ingest", "topic": TOPIC})
        wait_until(lambda: metrics.registry.get_sample_value(*sent) == 3 * COUNT, DEADLINE_S, "all frames on their way")
        assert [status.state for status in store.statuses(names)] == [StreamState.LIVE] * 3
    producer.flush()
    producer.close()
    arrived: dict[str, list[Frame]] = {name: [] for name in names}
    deadline_s = time.monotonic() + DEADLINE_S
    while sum(map(len, arrived.values())) < 3 * COUNT:
        missing = {name: set(range(COUNT)) - {frame.seq for frame in frames} for name, frames in arrived.items()}
        assert time.monotonic() < deadline_s, f"missing of each: {missing}"
        records: list[Record] = consumer.poll(100, 0.5)
        for record in records:
            message = decode(record.value)
            # A shared broker keeps what other tests have sent.
            if message.stream_id in arrived:
                assert isinstance(message, Frame)
                assert record.key == message.stream_id.encode()
                arrived[message.stream_id].append(message)
    for frames in arrived.values():
        assert [frame.seq for frame in frames] == list(range(COUNT))
        assert len({frame.epoch for frame in frames}) == 1
        assert all(frame.jpeg == (b"" if frame.skip else picture(number)) for number, frame in enumerate(frames))
        assert frames[-1].skip is None, "the newest is never the one that is left out"
    store.close()
