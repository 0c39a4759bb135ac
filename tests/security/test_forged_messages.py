"""What somebody who may write to the bus' topics can do to workers: fill dead letters. Nobody stops, no timeline is spoilt."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import pytest

from moodline.services.aggregator.sink import TimelineSink
from moodline.services.aggregator.stage import AggregatorStage
from moodline.services.detector.stage import DetectorStage
from moodline.shared.bus import Bus, ConsumerSettings, open_bus
from moodline.shared.bus.memory import MemoryBus
from moodline.shared.clock import SystemClock
from moodline.shared.errors import MessageError
from moodline.shared.log import OncePerSecond
from moodline.shared.messages import (
    ALL_TOPICS,
    DLQ_TOPIC,
    STREAMS_TOPIC,
    AnyMessage,
    Emotions,
    End,
    FaceEmotion,
    Faces,
    Frame,
    PipelineStep,
    StreamClass,
    decode_dead_letter,
    encode,
    topic,
)
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.health import Health
from moodline.shared.pipeline.worker import ProducerSink, Worker, WorkerOptions
from moodline.shared.settings import AggregatorSettings, DetectorSettings
from moodline.shared.store import Retention
from moodline.shared.store.base import HighWaterMark, Progress
from moodline.shared.store.sqlite import SqliteStore
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline.bucket import TIERS_S

LIVE: Final = topic(PipelineStep.EMOTIONS, StreamClass.LIVE)
FILE: Final = topic(PipelineStep.EMOTIONS, StreamClass.FILE)
FRAMES: Final = topic(PipelineStep.FRAMES, StreamClass.LIVE)
FACE: Final = FaceEmotion((0, 0, 10_000, 10_000), 60_000, (0, 0, 0, 65_535, 0, 0, 0))
LAST: Final = 2**53 - 1


class Site:
    """A store, a bus in memory, and one worker; somebody else may write to the bus."""

    def __init__(self, stage: str, tmp_path: Any, bus: Bus | None = None) -> None:
        self.clock, self.metrics, self.stop = SystemClock(), Metrics(), threading.Event()
        self.store = SqliteStore(f"sqlite:///{tmp_path / 'store.db'}", Retention(dict.fromkeys(TIERS_S, 10**9)))
        for name, url in (("lobby", "rtsp://192.0.2.1/"), ("film", "file:///film.mp4")):
            lane = StreamClass.LIVE if name == "lobby" else StreamClass.FILE
            self.store.add(StreamSpec(stream_id=name, url=url, lane=lane, created_at_us=int(self.clock.now_s() * 1e6)))
        self.epoch = {name: self.store.acquire(name, self.clock.now_s()).epoch for name in ("lobby", "film")}
        self.bus = bus or MemoryBus(1, 256 * 1024 * 1024)
        self.bus.ensure_topics(ALL_TOPICS)
        self.attacker = self.bus.open_producer()
        self.health = Health(self.metrics, self.clock)
        producer = self.bus.open_producer()
        step = PipelineStep.EMOTIONS if stage == "aggregator" else PipelineStep.FRAMES
        topics = tuple(topic(step, lane) for lane in StreamClass)
        consumer = self.bus.open_consumer(ConsumerSettings(group="w", topics=topics))
        self.failed: list[str] = []
        options = WorkerOptions(stage, 500, 0.0, 100, 0.01, on_failed=lambda item, _: self.failed.append(item.message.stream_id))
        sink: Any
        if stage == "aggregator":
            self.stage: Any = AggregatorStage(self.store.load, AggregatorSettings(), self.metrics)
            sink = TimelineSink(self.store, self.metrics, self.clock, self.bus.offset_at)
        else:
            self.stage = DetectorStage(_NoDetector, DetectorSettings(threads=1), self.metrics)  # type: ignore[arg-type]
            sink = ProducerSink(stage, producer, self.metrics, self.stop, self.health)
        self.worker = Worker(options, consumer, self.stage, sink, producer, self.metrics, self.clock, self.health)

    def send(self, name: str, message: AnyMessage | bytes, key: bytes | None = None) -> None:
        value = message if isinstance(message, bytes) else encode(message)
        of = b"lobby" if isinstance(message, bytes) else message.stream_id.encode()  # type: ignore[union-attr]
        self.attacker.send(name, of if key is None else key, value)

    def work(self) -> None:
        for _ in range(6):
            self.worker.step(self.stop)

    def frame(self, seq: int, stream_id: str = "lobby", **fields: Any) -> Emotions:
        now_us = int(self.clock.now_s() * 1e6)
        lane = StreamClass.FILE if stream_id == "film" else StreamClass.LIVE
        said: dict[str, Any] = {
            "stream_id": stream_id,
            "epoch": self.epoch.get(stream_id, 1),
            "seq": seq,
            "event_time_us": now_us,
            "captured_at_us": now_us,
            "lane": lane,
            "width": 64,
            "height": 64,
            "faces": (FACE,),
            "model": "fer",
        }
        return Emotions(**(said | fields))

    def progress(self, stream_id: str = "lobby") -> Progress:
        (found,) = self.store.load([stream_id])
        assert found is not None
        return found

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def letters(self) -> list[str]:
        consumer = self.bus.open_consumer(ConsumerSettings(group=f"letters{id(object())}", topics=(DLQ_TOPIC,)))
        records = consumer.poll(10_000, 0.5)
        assert all(len(record.key) <= 256 for record in records)
        consumer.close()
        return [decode_dead_letter(record.value).reason for record in records]


class _NoDetector:
    square_from = "box"

    def search(self, image: object) -> object:
        raise AssertionError("nothing that was forged is searched")


@pytest.fixture
def site(tmp_path: Any) -> Any:
    site = Site("aggregator", tmp_path)
    site.send(LIVE, site.frame(0))
    site.work()
    assert site.progress().high_water_mark == HighWaterMark(site.epoch["lobby"], 0)
    yield site
    site.store.close()


# Forged results, each of which would spoil a stream for good.

FORGED: Final[dict[str, Callable[[Site], Emotions | End]]] = {
    "the largest epoch": lambda site: site.frame(0, epoch=LAST),
    "an epoch of next month": lambda site: site.frame(0, epoch=site.epoch["lobby"] + 30 * 86_400_000),
    "the largest number": lambda site: site.frame(LAST),
    "a number of next month": lambda site: site.frame(12_960_000),
    "the year 9999": lambda site: site.frame(1, event_time_us=253_402_300_799_000_000),
    "next week": lambda site: site.frame(1, event_time_us=int((site.clock.now_s() + 7 * 86_400) * 1e6)),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_result_that_no_reader_can_have_sent_changes_nothing(site: Site, what: str) -> None:
    for _ in range(3):
        site.send(LIVE, FORGED[what](site))
    site.send(LIVE, site.frame(1))
    site.work()
    assert site.progress().high_water_mark == HighWaterMark(site.epoch["lobby"], 1)
    assert site.count("moodline_frames_dropped_total", reason="implausible") == 3
    now_us = site.clock.now_s() * 1e6
    assert abs((site.progress().last_event_time_us or 0) - now_us) < 60e6
    # Who reads it next is not fenced, and its numbers are ones that a message may have.
    epoch = site.store.acquire("lobby", site.clock.now_s()).epoch
    assert epoch < now_us / 1000 + 60_000
    site.send(LIVE, site.frame(0, epoch=epoch))
    site.work()
    assert site.progress().high_water_mark == HighWaterMark(epoch, 0)


def test_a_live_stream_is_not_ended_nor_taken_for_a_file(site: Site) -> None:
    now_us = int(site.clock.now_s() * 1e6)
    head = {"stream_id": "lobby", "epoch": site.epoch["lobby"], "event_time_us": now_us, "captured_at_us": now_us}
    site.send(LIVE, End(**head, seq=1, lane=StreamClass.LIVE))  # type: ignore[arg-type]
    site.send(LIVE, End(**head, seq=1, lane=StreamClass.FILE))  # type: ignore[arg-type]
    site.send(FILE, End(**head, seq=1, lane=StreamClass.FILE))  # type: ignore[arg-type]
    site.send(LIVE, site.frame(1))
    site.work()
    assert site.letters() == ["implausible", "misplaced"]
    assert site.count("moodline_frames_dropped_total", reason="implausible") == 1
    assert not site.progress().final
    assert site.progress().high_water_mark == HighWaterMark(site.epoch["lobby"], 1)


def test_a_clock_that_was_a_year_ahead_when_the_stream_was_claimed_is_believed(site: Site) -> None:
    epoch = site.store.acquire("lobby", site.clock.now_s() + 365 * 86_400).epoch
    site.send(LIVE, site.frame(0, epoch=epoch))
    site.work()
    assert site.progress().high_water_mark == HighWaterMark(epoch, 0)


# Messages that are none, and floods of them.


def _header(of: Emotions) -> dict[str, Any]:
    return {name: getattr(of, name) for name in ("stream_id", "epoch", "seq", "event_time_us", "captured_at_us", "lane")}


def _misplaced(site: Site) -> list[tuple[str, bytes, bytes]]:
    good = site.frame(1)
    header = {
        name: getattr(good, name) for name in Frame.__struct_fields__ if hasattr(good, name) and name not in ("faces", "model")
    }
    frame = Frame(**{**header, "jpeg": b""})
    many = site.frame(1, faces=(FACE,) * 1001)
    repeated = site.frame(0, "film", faces=(FACE,) * 65, repeats=20_000)
    return [
        (LIVE, b"lobby", encode(frame)),
        (LIVE, b"other", encode(good)),
        (LIVE, b"", encode(good)),
        (FILE, b"lobby", encode(good)),
        (LIVE, b"lobby", encode(many)),
        (FILE, b"film", encode(repeated)),
        (LIVE, b"lobby", encode(site.frame(1, repeats=10))),
        (LIVE, b"lobby", encode(site.frame(1, model="x\n" * 1000))),
        (LIVE, b"\x1b[2J", encode(site.frame(1, stream_id="\x1b[2J"))),
        (LIVE, b"s" * 100_000, encode(site.frame(1, stream_id="s" * 100_000))),
    ]


def test_what_cannot_be_ours_is_a_dead_letter_before_a_stage_sees_it(site: Site) -> None:
    sent = _misplaced(site)
    for name, key, value in sent:
        site.send(name, value, key)
    site.send(LIVE, site.frame(1))
    site.work()
    assert sorted(site.letters()) == ["implausible"] * 6 + ["misplaced"] * 4
    assert site.progress().high_water_mark == HighWaterMark(site.epoch["lobby"], 1)
    assert site.progress("film").high_water_mark is None


RUBBISH: Final[Sequence[bytes]] = [
    b"",
    b"\xc1" * 1000,
    b"\x81" * 100_000,
    b"\xdd\xff\xff\xff\xff",
    b"\x81\xa1v\xcf" + b"\xff" * 8,
    msgspec.msgpack.encode({"v": 2, "kind": "emotions"}),
    msgspec.msgpack.encode({"v": 1, "kind": "emotions", "stream_id": "lobby", "session": 1.5}),
    msgspec.msgpack.encode({"v": 1, "kind": "x" * 100_000}),
]


def test_a_thousand_bad_messages_in_a_row_stop_nobody(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    once = OncePerSecond(lambda: 1000.0)
    for value in itertools.islice(itertools.cycle(RUBBISH), 1000):
        site.send(LIVE, value, b"k" * 100_000 if not value else b"lobby")
    with caplog.at_level(logging.WARNING):
        site.work()
    assert len([record for record in caplog.records if once.filter(record)]) <= 20
    dead = {
        each: site.count("moodline_dead_letters_total", worker="aggregator", reason=each) for each in ("malformed", "version")
    }
    assert dead == {"malformed": 750, "version": 250}
    assert "who may write to the topics" in (site.health.waiting() or "")
    assert site.health.problem() is None, "a restart would meet the same messages"
    site.send(LIVE, site.frame(1))
    site.work()
    assert site.progress().high_water_mark == HighWaterMark(site.epoch["lobby"], 1)
    assert site.health.waiting() is None


def test_results_of_ten_thousand_streams_that_do_not_exist_make_no_state(site: Site) -> None:
    for number in range(10_000):
        site.send(LIVE, site.frame(0, f"ghost{number}", lane=StreamClass.LIVE))
    for _ in range(30):
        site.worker.step(site.stop)
    assert site.count("moodline_frames_dropped_total", reason="unknown") == 10_000
    assert len(site.stage._streams) == 1


def test_forged_frames_reach_no_detector_and_no_frame_of_a_file_is_left_out_for_them(tmp_path: Any) -> None:
    site = Site("detector", tmp_path)
    good = site.frame(0)
    header = _header(good)
    bomb = b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03" + bytes(20)
    site.send(FRAMES, Frame(**header, width=65_535, height=65_535, jpeg=bomb))
    site.send(FRAMES, Frame(**header, width=8, height=8, jpeg=b"\xff\xd8" + b"\xff" * 900_000))
    site.send(FRAMES, Faces(**header, width=8, height=8))
    site.send(FRAMES, good)
    site.work()
    assert site.letters() == ["misplaced", "misplaced"]
    assert site.count("moodline_frames_skipped_total", worker="detector", **{"class": "live"}, reason="corrupt") in (0.0, 2.0)
    assert site.failed == [], "a frame on which a worker failed three times is left out of a file"
    site.store.close()


@pytest.mark.kafka
def test_what_only_kafka_lets_somebody_send_stops_nobody_either(kafka_server: Any, tmp_path: Any) -> None:
    """No value, no key, a megabyte of headers, times of other centuries, rubbish where nothing is read."""
    from confluent_kafka import Producer

    bus = open_bus(kafka_server.url, partitions=1)
    site = Site("aggregator", tmp_path, bus)
    attacker = Producer({"bootstrap.servers": kafka_server.url.removeprefix("kafka://"), "message.max.bytes": 2_000_000})
    good = encode(site.frame(0))
    sent: list[dict[str, Any]] = [
        {"value": None, "key": b"lobby"},
        {"value": None, "key": None},
        {"value": b"x" * 900_000, "key": b"k" * 100_000},
        {"value": good, "key": b"other", "headers": [("traceparent", b"\xff" * 900_000)]},
        {"value": good, "key": b"other", "headers": [(f"h{number}", None) for number in range(10_000)]},
        {"value": b"x", "key": b"lobby", "timestamp": 1},
    ]
    refused: list[object] = []
    for topic_name in (LIVE, STREAMS_TOPIC, DLQ_TOPIC):
        for each in sent:
            attacker.produce(topic_name, on_delivery=lambda error, _: refused.append(error) if error else None, **each)
    site.send(LIVE, good)
    attacker.flush(30)
    assert refused == []
    deadline = time.monotonic() + 60
    (before,) = site.store.load(["lobby"])
    while before is not None and before.high_water_mark is None and time.monotonic() < deadline:
        site.worker.step(site.stop)
        (before,) = site.store.load(["lobby"])
    for _ in range(20):
        site.worker.step(site.stop)
    assert site.progress().high_water_mark == HighWaterMark(site.epoch["lobby"], 0)
    assert site.health.problem() is None
    site.send(LIVE, site.frame(1))
    while site.progress().high_water_mark != HighWaterMark(site.epoch["lobby"], 1):
        assert time.monotonic() < deadline + 30
        site.worker.step(site.stop)
    dead = [site.count("moodline_dead_letters_total", worker="aggregator", reason=each) for each in ("malformed", "misplaced")]
    assert dead == [4.0, 2.0]
    bus.close()
    site.store.close()


def test_decoding_raises_nothing_else() -> None:
    for value in RUBBISH:
        with pytest.raises(MessageError):
            decode_dead_letter(value)
