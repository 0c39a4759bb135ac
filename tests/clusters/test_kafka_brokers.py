"""Three brokers are restarted, killed, and given other partitions, under files that play and a camera that runs.

Files' timelines equal, byte for byte, those of undisturbed embedded runs; every frame of the camera that was sent is on its
timeline, with a result or as skipped. `MOODLINE_TEST_CLUSTERS=long` keeps a killed broker away for 60 s and repeats each fault.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count
from pathlib import Path

import msgspec
import pytest

from moodline.services.runtime.bootstrap import WORKERS
from moodline.services.simulator import CameraSimulator
from moodline.shared.bus import open_bus
from moodline.shared.errors import BusUnavailableError
from moodline.shared.messages import ALL_TOPICS, STREAMS_TOPIC, PipelineStep, StreamClass, topic
from moodline.shared.streams import StreamSpec, StreamState
from moodline.shared.timeline import TimelineQuery, timeline
from tests.support.cluster import Cluster
from tests.support.fixtures import unavailable
from tests.support.kafka_group import KafkaGroup, KafkaNode
from tests.support.reference import reference_dump, synthetic_spec
from tests.support.servers import RedisServer, kafka_libs, wait_until
from tests.support.standstill import Standstill

pytestmark = [pytest.mark.redis, pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.quiet]

LONG = os.environ.get("MOODLINE_TEST_CLUSTERS") == "long"
AWAY_S = 60.0 if LONG else 8.0
ROUNDS = 3 if LONG else 1
SECONDS = 6
"""Of a file: 150 frames."""
CREDIT_FRAMES = 16
LEAST_FRAMES = 10
CAMERA = "door"
FPS = 5
PARTITIONS = 4


class Playing:
    """Files that play one after the other, so that every fault falls on one in its middle."""

    def __init__(self, cluster: Cluster, reference: bytes) -> None:
        self.cluster, self._reference = cluster, reference
        self._numbers = count()

    def begin(self) -> StreamSpec:
        """Register a file and wait until it is under way."""
        spec = synthetic_spec(f"film-{next(self._numbers)}", SECONDS, seed=1)
        self.cluster.store.add(spec)
        wait_until(lambda: self.frames(spec) >= LEAST_FRAMES, 120, "the middle of the file")
        return spec

    def frames(self, spec: StreamSpec) -> int:
        progress = self.cluster.store.load([spec.stream_id])[0]
        return 0 if progress is None or progress.high_water_mark is None else progress.high_water_mark.seq + 1

    def keep_on(self, spec: StreamSpec) -> StreamSpec:
        """Return the file that plays: another one when this has ended."""
        progress = self.cluster.store.load([spec.stream_id])[0]
        if progress is None or not progress.final:
            return spec
        self.check(spec)
        return self.begin()

    @contextmanager
    def under(self, fault: str) -> Iterator[StreamSpec]:
        """Play a file while a fault happens, to its end, and compare; say how long the timeline stood still."""
        spec = self.begin()
        camera_since_us = int(time.time() * 1e6)
        with Standstill(self.cluster.store, [spec]) as watch:
            yield spec
            self.cluster.wait_until_final([spec], 180)
        self.check(spec)
        wait_until(lambda: self.camera_lives(camera_since_us), 90, "new frames of the camera")
        gap_s = longest_gap_s(self.cluster, camera_since_us)
        print(f"{fault}: {watch}; of the camera {gap_s} s; files equal")  # noqa: T201

    def camera_lives(self, since_us: int) -> bool:
        points = timeline(self.cluster.store, CAMERA, StreamClass.LIVE, TimelineQuery(from_us=since_us, resolution_s=1)).points
        return (
            self.cluster.store.statuses([CAMERA])[0].state is StreamState.LIVE
            and sum(point.sampled for point in points[-3:]) >= FPS
        )

    def check(self, spec: StreamSpec) -> None:
        assert self.cluster.dump(spec) == self._reference, f"{spec.stream_id} differs from the undisturbed run"


def longest_gap_s(cluster: Cluster, since_us: int) -> int:
    """Return the longest run of seconds without a frame of the camera."""
    points = timeline(cluster.store, CAMERA, StreamClass.LIVE, TimelineQuery(from_us=since_us, resolution_s=1)).points
    longest = run = 0
    for point in points:
        run = 0 if point.sampled else run + 1
        longest = max(longest, run)
    return longest


@pytest.fixture(scope="module")
def brokers() -> Iterator[KafkaGroup]:
    if kafka_libs() is None or shutil.which("redis-server") is None:
        unavailable("no Kafka jars or no redis-server: run deploy/local/kafka-setup.sh and deploy/local/system-packages.sh")
    with KafkaGroup() as group:
        yield group


@pytest.fixture(scope="module")
def playing(brokers: KafkaGroup, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playing]:
    folder = tmp_path_factory.mktemp("workers")
    reference = reference_dump(folder, synthetic_spec("film-0", SECONDS, seed=1))
    env = {
        "MOODLINE_INGEST_CREDIT_FRAMES": str(CREDIT_FRAMES),
        "MOODLINE_INGEST_BACKOFF_MIN_S": "0.3",
        "MOODLINE_DETECTOR_SIDE_PX": "480",
    }
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        cameras = stack.enter_context(CameraSimulator(None, paths=1, size="320x180"))
        cluster = stack.enter_context(Cluster(brokers.url, redis.url, folder, folder, partitions=PARTITIONS, env=env))
        cluster.store.add(StreamSpec(stream_id=CAMERA, url=cameras.url("cam0"), lane=StreamClass.LIVE, sample_fps=str(FPS)))
        cluster.start(1)
        cluster.wait_until_up()
        brokers.wait_until_in_step()
        yield Playing(cluster, reference)


@pytest.fixture(autouse=True)
def _all_well(brokers: KafkaGroup, playing: Playing) -> Iterator[None]:
    yield
    for node in brokers.nodes:
        if not node.running:
            node.start()
    brokers.wait_until_in_step()
    assert playing.cluster.crashes == []
    expected = [worker for worker in playing.cluster.workers if not worker.stopped]
    assert all(worker.alive for worker in expected), "no worker had to be started again"


def test_all_brokers_restart_one_after_the_other(brokers: KafkaGroup, playing: Playing) -> None:
    for _ in range(ROUNDS):
        with playing.under("rolling restart of all brokers") as first:
            spec = first
            for node in brokers.nodes:
                node.stop()
                node.start()
                brokers.wait_until_in_step()
                spec = playing.keep_on(spec)
            playing.cluster.wait_until_final([spec], 180)
            playing.check(spec)


def test_a_broker_is_killed_and_comes_back(brokers: KafkaGroup, playing: Playing) -> None:
    for number in range(ROUNDS):
        with playing.under(f"broker killed, back after {AWAY_S:.0f} s") as first:
            node, spec = brokers.nodes[number % len(brokers.nodes)], first
            node.kill()
            until_s = time.monotonic() + AWAY_S
            while time.monotonic() < until_s:
                spec = playing.keep_on(spec)
                time.sleep(0.2)
            node.start()
            playing.cluster.wait_until_final([spec], 180)
            playing.check(spec)


@pytest.mark.parametrize("kind", WORKERS if LONG else ("detector", "aggregator"))
def test_the_coordinators_broker_is_killed_while_a_worker_joins(brokers: KafkaGroup, playing: Playing, kind: str) -> None:
    group = {
        "ingest": f"moodline.ingest.{STREAMS_TOPIC}",
        "detector": f"moodline.detector.{topic(PipelineStep.FRAMES, StreamClass.FILE)}",
        "classifier": f"moodline.classifier.{topic(PipelineStep.FACES, StreamClass.FILE)}",
        "aggregator": f"moodline.aggregator.{topic(PipelineStep.EMOTIONS, StreamClass.FILE)}",
    }[kind]
    for _ in range(ROUNDS):
        with playing.under(f"coordinator of {group} killed while a {kind} joins"):
            coordinator, members = brokers.coordinator(group), brokers.members(group)
            joining = playing.cluster.spawn(kind)
            wait_until(lambda members=members: brokers.members(group) > members, 60, "the new member")  # type: ignore[misc]
            coordinator.kill()
        coordinator.start()
        brokers.wait_until_in_step()
        assert playing.cluster.stop(joining) == 0


def test_partitions_are_given_to_other_brokers(brokers: KafkaGroup, playing: Playing, tmp_path: Path) -> None:
    """Each partition loses the broker that leads it, and later gets it back: with copies made, and two changes of the leader."""
    numbers = [node.number for node in brokers.nodes]
    led = brokers.admin.list_topics(timeout=10).topics
    topics = [name for name in ALL_TOPICS if StreamClass.FILE.value in name]
    with playing.under("reassignment of the partitions"):
        without = {part: [one for one in numbers if one != led[topics[0]].partitions[part].leader] for part in range(PARTITIONS)}
        brokers.reassign(topics, without, tmp_path)
        again = {part: [*(set(numbers) - set(rest)), *rest] for part, rest in without.items()}
        brokers.reassign(topics, again, tmp_path)


def test_the_new_leader_is_asked_where_records_of_a_time_are(brokers: KafkaGroup, playing: Playing) -> None:
    """librdkafka's administrative client remembers a leader that is gone, and answers that there is no such record."""
    name = topic(PipelineStep.FRAMES, StreamClass.FILE)

    def leader(partition: int) -> int:
        return int(brokers.admin.list_topics(name, timeout=10).topics[name].partitions[partition].leader)

    with playing.under("the leader of a partition killed"), closing(open_bus(brokers.url)) as bus:
        offsets = {partition: bus.offset_at(name, partition, 0) for partition in range(PARTITIONS)}
        partition, first = next((partition, offset) for partition, offset in offsets.items() if offset is not None)
        before = brokers.node(leader(partition))
        before.kill()
        answers = []
        while leader(partition) in (-1, before.number) or answers[-1:] != [first]:
            with suppress(BusUnavailableError):
                answers.append(bus.offset_at(name, partition, 0))
        assert set(answers) == {first}, "never that there is none"
        before.start()


def test_the_controller_changes(brokers: KafkaGroup, playing: Playing) -> None:
    for _ in range(ROUNDS):
        before: KafkaNode = brokers.controller()
        with playing.under("controller killed"):
            before.kill()
            assert brokers.controller() is not before
            before.start()


def test_the_camera_has_lost_no_frame_in_silence(playing: Playing) -> None:
    """The last of the module: over all of the faults, each sampled frame of the camera's session is on its timeline once."""
    store = playing.cluster.store
    store.replace(msgspec.structs.replace(store.get(CAMERA), paused=True))
    wait_until(lambda: playing.cluster.store.statuses([CAMERA])[0].state is StreamState.PAUSED, 30, "the camera to be paused")
    progress = playing.cluster.store.load([CAMERA])[0]
    assert progress is not None
    assert progress.high_water_mark is not None
    points = timeline(playing.cluster.store, CAMERA, StreamClass.LIVE, TimelineQuery(resolution_s=1)).points
    counted = sum(point.sampled for point in points)
    print(f"camera: {counted} frames on the timeline, last of the session {progress.high_water_mark.seq}")  # noqa: T201
    assert counted >= progress.high_water_mark.seq + 1
    assert max(point.sampled for point in points) <= 2 * FPS - 2, "never the frames of two readers in a second"
