"""Live cameras on real Kafka and Redis: ingest workers come, go, die and freeze; no camera is lost, none is counted twice."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moodline.services.simulator import CameraSimulator
from moodline.shared.camera_url import register_url
from moodline.shared.messages import StreamClass
from moodline.shared.seal import Sealer, new_key
from moodline.shared.streams import StreamSpec, StreamState
from moodline.shared.timeline import TimelineQuery, timeline
from tests.support.cluster import Cluster, WorkerProcess
from tests.support.servers import KafkaServer, RedisServer, wait_until

pytestmark = [pytest.mark.quiet, pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]

CANARY = "c4n4ry-s3cr3t"
KEY = new_key()
NAMES = [f"cam{number}" for number in range(6)]
FPS = 5


@pytest.fixture(scope="module")
def cameras() -> Iterator[CameraSimulator]:
    with CameraSimulator(None, paths=len(NAMES), size="640x360", user="viewer", password=CANARY) as simulator:
        yield simulator


@pytest.fixture
def cluster(
    tmp_path: Path, private_kafka: KafkaServer, private_redis: RedisServer, cameras: CameraSimulator
) -> Iterator[Cluster]:
    environment = {
        "MOODLINE_SECRETS_KEY": KEY,
        "MOODLINE_INGEST_BACKOFF_MIN_S": "0.3",
        "MOODLINE_INGEST_READ_TIMEOUT_S": "2",
        "MOODLINE_DETECTOR_SIDE_PX": "96",
        "MOODLINE_LOG_LEVEL": "debug",
    }
    with Cluster(private_kafka.url, private_redis.url, tmp_path, tmp_path, partitions=8, env=environment) as running:
        sealer = Sealer(KEY)
        for name in NAMES:
            registered = register_url(cameras.url(name, "viewer", CANARY))
            assert registered.secret is not None
            sealed = sealer.seal(name, registered.secret)
            running.store.add(
                StreamSpec(stream_id=name, url=registered.url, sealed=sealed, lane=StreamClass.LIVE, sample_fps=str(FPS))
            )
        running.start({"ingest": 2, "detector": 1, "classifier": 1, "aggregator": 1})
        wait_until(lambda: all_live(running), 90, "all cameras to be live")
        yield running
        assert running.crashes == []


def all_live(cluster: Cluster) -> bool:
    return all(status.state is StreamState.LIVE for status in cluster.store.statuses(NAMES))


def frames(cluster: Cluster, name: str, from_us: int | None = None, to_us: int | None = None) -> int:
    answer = timeline(cluster.store, name, StreamClass.LIVE, TimelineQuery(from_us=from_us, to_us=to_us, resolution_s=1))
    return sum(point.sampled for point in answer.points)


def longest_gap_s(cluster: Cluster, name: str, since_us: int) -> int:
    """Return the longest run of seconds without a frame, up to the last one with frames."""
    points = timeline(cluster.store, name, StreamClass.LIVE, TimelineQuery(from_us=since_us, resolution_s=1)).points
    longest = run = 0
    for point in points:
        run = 0 if point.sampled else run + 1
        longest = max(longest, run)
    return longest


def now_us() -> int:
    return int(time.time() * 1e6)


def wait_for_frames(cluster: Cluster, since_us: int, count: int, timeout_s: float) -> None:
    wait_until(lambda: all(frames(cluster, name, since_us) >= count for name in NAMES), timeout_s, "frames of all cameras")


def a_reading_worker(cluster: Cluster) -> WorkerProcess:
    return cluster.running("ingest")[0]


def test_a_killed_ingest_worker_is_replaced_within_fifteen_seconds(cluster: Cluster) -> None:
    began_us = now_us()
    wait_for_frames(cluster, began_us, 10, 30)
    victim = a_reading_worker(cluster)
    killed_us = now_us()
    victim.process.kill()
    victim.process.wait(10)
    wait_until(
        lambda: all_live(cluster) and all(frames(cluster, name, killed_us + 3_000_000) >= 5 for name in NAMES), 30, "the others"
    )
    gaps = {name: longest_gap_s(cluster, name, began_us) for name in NAMES}
    print(f"gaps after kill -9: {gaps}")  # noqa: T201
    assert max(gaps.values()) < 15
    assert max(gaps.values()) > 0, "the killed worker had read nothing"


def test_a_clean_stop_hands_over_within_two_seconds(cluster: Cluster) -> None:
    began_us = now_us()
    wait_for_frames(cluster, began_us, 10, 30)
    victim = a_reading_worker(cluster)
    stopped_us = now_us()
    victim.process.terminate()
    victim.process.wait(15)
    wait_for_frames(cluster, stopped_us + 3_000_000, 10, 30)
    gaps = {name: longest_gap_s(cluster, name, began_us) for name in NAMES}
    print(f"gaps after a clean stop: {gaps}")  # noqa: T201
    assert max(gaps.values()) <= 2


def test_two_owners_at_once_count_nothing_twice(cluster: Cluster) -> None:
    """A frozen worker wakes up after the group gave its cameras to the other: for a moment both read them."""
    began_us = now_us()
    wait_for_frames(cluster, began_us, 5, 30)
    frozen = a_reading_worker(cluster)
    cluster.pause(frozen)
    time.sleep(12.0)
    cluster.resume(frozen)
    time.sleep(8.0)
    ended_us = now_us()
    wait_for_frames(cluster, ended_us - 4_000_000, 10, 30)
    for name in NAMES:
        points = timeline(
            cluster.store, name, StreamClass.LIVE, TimelineQuery(from_us=began_us, to_us=ended_us, resolution_s=1)
        ).points
        # What one reader samples in a second, and the seam of two sessions: never the frames of two readers.
        assert max(point.sampled for point in points) <= 2 * FPS - 2, [point.sampled for point in points]
        total = sum(point.sampled for point in points)
        assert total <= FPS * (ended_us - began_us) / 1e6 + 2 * FPS
    wait_until(lambda: all_live(cluster), 30, "all cameras to be live")


def test_the_password_is_nowhere_on_bus_store_or_disk(
    cluster: Cluster, tmp_path: Path, private_kafka: KafkaServer, private_redis: RedisServer
) -> None:
    wait_for_frames(cluster, now_us(), 5, 30)
    for worker in cluster.workers:
        worker.process.terminate()
        worker.process.wait(15)
    private_redis.stop()
    private_kafka.stop()
    places = {"logs": tmp_path, "kafka": private_kafka.folder, "redis": private_redis.folder}
    searched = 0
    for place, folder in places.items():
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                searched += len(content)
                assert CANARY.encode() not in content, f"{place}: {path.name}"
    assert searched > 100_000
