"""Workers are replaced one after the other while files play, as every upgrade does it: nothing is lost, nothing doubled."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from moodline.services.analysis.analyze import run_analysis
from moodline.services.runtime.bootstrap import WORKERS, build, open_resources
from moodline.shared import messages
from moodline.shared.bus import ConsumerSettings, open_bus
from moodline.shared.messages import DLQ_TOPIC, AnyMessage, DeadLetter, PipelineStep, StreamClass, decode_dead_letter, topic
from moodline.shared.settings import DetectorSettings, Settings
from moodline.shared.store.base import dump
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline import TIERS_S
from tests.support.cluster import Cluster
from tests.support.reference import reference_settings, synthetic_spec
from tests.support.servers import KafkaServer, RedisServer, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 12
CONTENTS = 2
PLAYING = 3
"""Streams in their first half whenever a worker is stopped, so that some are still playing when it has gone."""
SMALL = DetectorSettings(threads=1, side_px=160)
"""A cheap search, so that the time goes into restarts."""
COUNTS = {"ingest": 1, "detector": 2, "classifier": 2, "aggregator": 1}
"""Some kinds have a second worker that takes over, and some have nobody."""


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Timelines of undisturbed embedded runs, one for each content."""
    settings = reference_settings(tmp_path_factory.mktemp("media")).model_copy(update={"detector": SMALL})
    found = []
    for seed in range(CONTENTS):
        with run_analysis(settings, synthetic_spec("reference", SECONDS, seed)) as analysis:
            found.append(dump(analysis.store, "reference", TIERS_S))
    assert len(set(found)) == CONTENTS
    return found


class Playing:
    """Keeps files playing: registers another as soon as fewer than `PLAYING` are in their first half."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.specs: list[StreamSpec] = []

    def finals(self) -> int:
        return sum(bool(item and item.final) for item in self.cluster.store.load([spec.stream_id for spec in self.specs]))

    def frames(self) -> int:
        loaded = self.cluster.store.load([spec.stream_id for spec in self.specs])
        return sum(item.high_water_mark.seq + 1 for item in loaded if item and item.high_water_mark)

    def top_up(self) -> None:
        loaded = self.cluster.store.load([spec.stream_id for spec in self.specs])
        half_way = sum(bool(item and item.high_water_mark and item.high_water_mark.seq >= SECONDS * 25 // 2) for item in loaded)
        while len(self.specs) - half_way < PLAYING:
            number = len(self.specs)
            spec = synthetic_spec(f"play-{number}", SECONDS, number % CONTENTS)
            self.cluster.store.add(spec)
            self.specs.append(spec)

    def until_moving(self) -> None:
        """Wait until frames reach timelines again, with files under way."""
        self.top_up()
        before = self.frames()

        def moved() -> bool:
            self.top_up()
            return self.frames() > before + 10

        wait_until(moved, 60, "frames reaching timelines")

    def differing(self, references: list[bytes]) -> list[str]:
        return [
            spec.stream_id for number, spec in enumerate(self.specs) if self.cluster.dump(spec) != references[number % CONTENTS]
        ]


def open_cluster(kafka: KafkaServer, redis: RedisServer, directory: Path) -> Cluster:
    env = {"MOODLINE_DETECTOR_SIDE_PX": str(SMALL.side_px), "MOODLINE_INGEST_CREDIT_FRAMES": "32"}
    return Cluster(kafka.url, redis.url, directory, directory, env=env)


def test_every_worker_in_turn(
    tmp_path: Path, private_kafka: KafkaServer, private_redis: RedisServer, references: list[bytes]
) -> None:
    with open_cluster(private_kafka, private_redis, tmp_path) as cluster:
        cluster.start(COUNTS)
        cluster.wait_until_up()
        playing = Playing(cluster)
        stopped_in_s = {}
        for worker in list(cluster.workers):
            playing.until_moving()
            since_s = time.monotonic()
            code = cluster.stop(worker)
            stopped_in_s[f"{worker.kind}-{worker.number}"] = time.monotonic() - since_s
            assert code == 0, f"{worker.kind} ended with {code}: {cluster.log_of(worker)}"
            assert playing.finals() < len(playing.specs), "nothing played while the worker was stopped"
            cluster.spawn(worker.kind)
            cluster.wait_until_up()
        cluster.wait_until_final(playing.specs, timeout_s=120)
        assert playing.differing(references) == []
        assert cluster.crashes == []
        # Everybody who is there now is new, and did the work of the last files.
        assert {worker.number for worker in cluster.running()} == set(range(6, 12))
    # Kubernetes kills after terminationGracePeriodSeconds, 45 in the chart; Compose after 20.
    assert max(stopped_in_s.values()) < 10, stopped_in_s
    print(f"{len(playing.specs)} files; stopped within s: {stopped_in_s}")  # noqa: T201  # for docs/operations.md


def encode_newer(message: AnyMessage) -> bytes:
    """Encode as a later release may: with fields that this one does not know, of the message and of each face."""
    fields = msgspec.msgpack.decode(messages.encode(message))
    fields["mood_ring"] = {"colour": "green", "levels": [1, 2, 3]}
    for face in fields.get("faces", ()):
        face["age_group"] = 4
    return msgspec.msgpack.encode(fields)


@contextmanager
def newer_worker(kind: str, settings: Settings) -> Iterator[None]:
    """Run a worker of a later release: the same code, its messages encoded by `encode_newer`."""
    failures: list[BaseException] = []
    with open_resources(settings) as resources:

        def work() -> None:
            try:
                build(kind, resources).run(resources.stop)
            except BaseException as error:  # shown by the test
                failures.append(error)

        thread = threading.Thread(target=work, name=f"newer-{kind}")
        thread.start()
        try:
            yield
        finally:
            resources.stop.set()
            thread.join(30)
            assert not thread.is_alive()
    assert failures == []


def test_an_upgrade_that_adds_fields(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    private_kafka: KafkaServer,
    private_redis: RedisServer,
    references: list[bytes],
) -> None:
    """From front to back, so that every older worker meets messages of a newer one; the timelines stay the same."""
    monkeypatch.setattr("moodline.shared.pipeline.worker.encode", encode_newer)
    monkeypatch.setattr("moodline.services.ingest.file.reader.encode", encode_newer)
    settings = reference_settings(tmp_path).model_copy(update={"detector": SMALL})
    settings = Settings.model_validate(
        settings.model_dump()
        | {
            "bus": {"url": private_kafka.url, "partitions": 4},
            "store": {"url": private_redis.url},
        }
    )
    with open_cluster(private_kafka, private_redis, tmp_path) as cluster:
        cluster.start(1)
        cluster.wait_until_up()
        playing = Playing(cluster)
        playing.until_moving()
        replaced = [worker for worker in cluster.workers if worker.kind != "aggregator"]
        assert [worker.kind for worker in replaced] == list(WORKERS[:-1])
        with newer_workers(cluster, playing, settings):
            cluster.wait_until_final(playing.specs, timeout_s=120)
        assert playing.differing(references) == []
        assert cluster.crashes == []
        # What a later release may not do without a new version: it is refused with the reason, and nothing else is hurt.
        last = playing.specs[-1]
        refuse_another_version(cluster, private_kafka, last)
        assert playing.differing(references) == []
        assert len(cluster.running("aggregator")) == 1


@contextmanager
def newer_workers(cluster: Cluster, playing: Playing, settings: Settings) -> Iterator[None]:
    """Replace all but the aggregator, one after the other, each while files play."""
    with ExitStack() as stack:
        for worker in [worker for worker in cluster.workers if worker.kind != "aggregator"]:
            playing.until_moving()
            assert cluster.stop(worker) == 0
            stack.enter_context(newer_worker(worker.kind, settings))
        playing.until_moving()
        yield


def refuse_another_version(cluster: Cluster, kafka: KafkaServer, spec: StreamSpec) -> None:
    """Send the aggregator a message of a later schema version and wait for its dead letter."""
    bus = open_bus(kafka.url, partitions=cluster.partitions)
    consumer = bus.open_consumer(ConsumerSettings(group="test.dead", topics=(DLQ_TOPIC,)))
    producer = bus.open_producer()
    fields = {"kind": "emotions", "v": messages.SCHEMA_VERSION + 1, "stream_id": spec.stream_id, "anything": "else"}
    producer.send(topic(PipelineStep.EMOTIONS, StreamClass.FILE), spec.stream_id.encode(), msgspec.msgpack.encode(fields))
    producer.flush()
    letters: list[DeadLetter] = []

    def arrived() -> bool:
        letters.extend(decode_dead_letter(record.value) for record in consumer.poll(10, 0.5, 0.0))
        return bool(letters)

    wait_until(arrived, 30, "a dead letter")
    for part in (consumer, producer, bus):
        part.close()
    assert [(letter.reason, letter.worker) for letter in letters] == [("version", "aggregator")]
    assert "upgrade the older side" in letters[0].detail
