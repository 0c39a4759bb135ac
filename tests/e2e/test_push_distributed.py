"""Two API processes on real Kafka and Redis get frames of the same stream: it changes hands, and nothing is counted twice."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from moodline.shared.messages import StreamClass
from moodline.shared.streams import StreamSpec, StreamState
from moodline.shared.timeline import TimelineQuery, timeline
from tests.support.cluster import Cluster, free_port
from tests.support.servers import KafkaServer, RedisServer, die_with_parent, wait_until
from tests.support.service import MOODLINE

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300)]

IMAGE = np.random.default_rng(1).integers(0, 256, (96, 128, 3), dtype=np.uint8)
JPEG = bytes(cv2.imencode(".jpg", IMAGE)[1])
PATH = "/api/v1/streams/door/frames"


@contextmanager
def api(kafka: KafkaServer, redis: RedisServer, directory: Path) -> Iterator[tuple[httpx.Client, "subprocess.Popen[bytes]"]]:
    """An API process."""
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MOODLINE_")}
    environment |= {
        "MOODLINE_BUS_URL": kafka.url,
        "MOODLINE_BUS_PARTITIONS": "4",
        "MOODLINE_STORE_URL": redis.url,
        "MOODLINE_API_PORT": str(port),
        "MOODLINE_PUSH_SILENCE_S": "5",
    }
    with (directory / f"api-{port}.log").open("wb") as log:
        process = subprocess.Popen([*die_with_parent(), MOODLINE, "api"], env=environment, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            wait_until(lambda: answers(http), 60, "the API to answer")
            yield http, process
    finally:
        process.terminate()
        process.wait(30)


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def cluster(tmp_path: Path, private_kafka: KafkaServer, private_redis: RedisServer) -> Iterator[Cluster]:
    environment = {
        "MOODLINE_DETECTOR_AGE_BUDGET_S": "60",
        "MOODLINE_CLASSIFIER_AGE_BUDGET_S": "60",
        "MOODLINE_PUSH_SILENCE_S": "5",
    }
    with Cluster(private_kafka.url, private_redis.url, tmp_path, tmp_path, env=environment) as running:
        running.store.add(StreamSpec(stream_id="door", url="push://", lane=StreamClass.LIVE, sample_fps="all"))
        running.start(1)
        running.wait_until_up()
        yield running
        assert running.crashes == []


def counted(cluster: Cluster) -> int:
    return sum(point.sampled for point in timeline(cluster.store, "door", StreamClass.LIVE, TimelineQuery(resolution_s=1)).points)


def state(cluster: Cluster) -> StreamState:
    return cluster.store.statuses(["door"])[0].state


def test_two_processes_count_nothing_twice(
    cluster: Cluster, tmp_path: Path, private_kafka: KafkaServer, private_redis: RedisServer
) -> None:
    """First one after the other, then both at once, each with every frame: what is counted is at most what one was given."""
    with api(private_kafka, private_redis, tmp_path) as (one, _), api(private_kafka, private_redis, tmp_path) as (two, process):
        for http in (one, two):
            for _ in range(20):
                assert http.post(PATH, content=JPEG).status_code == 202
                time.sleep(0.05)
            wait_until(lambda http=http: counted(cluster) == (20 if http is one else 40), 60, "all frames of one sender")
        answers_of: dict[int, list[int]] = {0: [], 1: []}

        def send(number: int, http: httpx.Client) -> None:
            for _ in range(120):
                answers_of[number].append(http.post(PATH, content=JPEG).status_code)
                time.sleep(0.05)

        threads = [threading.Thread(target=send, args=pair) for pair in enumerate((one, two))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        wait_until(lambda: state(cluster) is StreamState.PENDING, 60, "silence to be noticed")
        total = counted(cluster) - 40
        taken = [statuses.count(202) for statuses in answers_of.values()]
        print(f"both at once: {taken} of 120 each were taken, {total} are counted")  # noqa: T201
        assert set(answers_of[0] + answers_of[1]) <= {202, 409}
        assert 409 in answers_of[0] + answers_of[1], "the one that lost the stream says so"
        assert 60 <= total <= sum(taken)
        assert total <= 150, "never the frames of both"

        assert two.post(PATH, content=JPEG).status_code == 202
        wait_until(lambda: state(cluster) is StreamState.LIVE, 30, "the stream to be live")
        before = counted(cluster)
        process.kill()
        process.wait(10)
        # Nobody but ingest is left who could say that no frame comes any more.
        wait_until(lambda: state(cluster) is StreamState.PENDING, 60, "an abandoned stream to be pending")
        assert one.post(PATH, content=JPEG).status_code == 202
        wait_until(lambda: counted(cluster) == before + 1, 30, "the next frame")
        wait_until(lambda: state(cluster) is StreamState.LIVE, 30, "the stream to be live again")


def test_an_api_process_without_its_bus_says_so_and_goes_on(
    cluster: Cluster, tmp_path: Path, private_kafka: KafkaServer, private_redis: RedisServer
) -> None:
    with api(private_kafka, private_redis, tmp_path) as (http, _):
        private_kafka.kill()
        began_s = time.monotonic()
        slow: list[int] = []
        first = threading.Thread(target=lambda: slow.append(http.post(PATH, content=JPEG).status_code))
        first.start()
        time.sleep(0.5)
        refused = http.post(PATH, content=JPEG)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_busy")
        cluster.store.add(StreamSpec(stream_id="gate", url="push://", lane=StreamClass.LIVE))
        other = http.post(PATH.replace("door", "gate"), content=JPEG)
        assert (other.status_code, other.json()["error"]["code"]) == (503, "bus_unavailable")
        assert time.monotonic() - began_s < 10, "only one sender waits for the bus"
        assert http.get("/api/v1/streams").status_code == 200
        private_kafka.start()
        first.join(60)
        wait_until(lambda: http.post(PATH, content=JPEG).status_code == 202, 90, "frames to be taken again")
        assert slow[0] in (202, 503)
