"""Servers that are not there, or go away: clear words, no secrets, nothing lost."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from moodline.shared.bus import ConsumerSettings, open_bus
from moodline.shared.messages import PipelineStep, StreamClass, topic
from moodline.shared.streams import StreamSpec
from tests.support.cluster import Cluster
from tests.support.reference import reference_dump, synthetic_spec
from tests.support.servers import KafkaServer, RedisServer, free_port, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MOODLINE = str(Path(sys.executable).parent / "moodline")
PASSWORD = "hunter2-canary"
CREDIT_FRAMES = 16
"""Frames of a file that may be under way: few against its 200."""


def run_worker(kind: str, bus_url: str, store_url: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "MOODLINE_BUS_URL": bus_url, "MOODLINE_STORE_URL": store_url}
    return subprocess.run([MOODLINE, kind], env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_redis_absent_at_start(tmp_path: Path) -> None:
    done = run_worker("aggregator", "kafka://127.0.0.1:1", f"redis://user:{PASSWORD}@127.0.0.1:{free_port()}/0", tmp_path)
    assert done.returncode == 1
    assert "moodline: " in done.stderr
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr + done.stdout


@pytest.mark.redis
def test_kafka_absent_at_start(tmp_path: Path, private_redis: RedisServer) -> None:
    bus_url = f"kafka://127.0.0.1:{free_port()}?sasl.password={PASSWORD}"
    done = run_worker("detector", bus_url, private_redis.url, tmp_path)
    assert done.returncode == 1
    assert "Kafka" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr + done.stdout


@contextmanager
def held_back(cluster: Cluster, spec: StreamSpec) -> Iterator[None]:
    """Play a stream with the aggregator paused: frames wait for it, and the rest of the file waits for credit.

    So whatever happens inside happens in the middle of the file, however fast the machine is.
    """
    aggregator = cluster.running("aggregator")[0]
    cluster.pause(aggregator)
    cluster.store.add(spec)
    wait_for_emotions(cluster, spec)
    progress = cluster.store.load([spec.stream_id])[0]
    assert progress is not None
    assert not progress.final, "the server goes away in the middle of the file"
    yield
    cluster.resume(aggregator)


def wait_for_emotions(cluster: Cluster, spec: StreamSpec) -> None:
    """Wait until a frame of this stream is ready for the aggregator."""
    wanted = spec.stream_id.encode()
    with closing(open_bus(cluster.kafka_url, partitions=cluster.partitions)) as bus:
        settings = ConsumerSettings(group=f"test.{spec.stream_id}", topics=(topic(PipelineStep.EMOTIONS, StreamClass.FILE),))
        with closing(bus.open_consumer(settings)) as consumer:
            wait_until(lambda: any(record.key == wanted for record in consumer.poll(64, 0.5, 0.0)), 60, "a frame's emotions")


@pytest.mark.redis
@pytest.mark.kafka
def test_servers_lost_for_a_while_lose_nothing(tmp_path: Path, private_kafka: KafkaServer, private_redis: RedisServer) -> None:
    specs = [synthetic_spec(name, seconds=8, seed=seed) for seed, name in enumerate(("undisturbed", "no-redis", "no-kafka"))]
    undisturbed, no_redis, no_kafka = specs
    references = [reference_dump(tmp_path, spec) for spec in specs]
    env = {"MOODLINE_INGEST_CREDIT_FRAMES": str(CREDIT_FRAMES)}
    with Cluster(private_kafka.url, private_redis.url, tmp_path, tmp_path, env=env) as cluster:
        cluster.start(1)
        cluster.wait_until_up()
        cluster.store.add(undisturbed)
        cluster.wait_until_final([undisturbed], 60)

        with held_back(cluster, no_redis):
            private_redis.kill()
        aggregator = cluster.running("aggregator")[0]
        wait_until(lambda: "worker.retry" in cluster.log_of(aggregator), 60, "the aggregator saying that it tries again")
        private_redis.restart()
        cluster.wait_until_final([no_redis], 120)

        with held_back(cluster, no_kafka):
            private_kafka.kill()
        private_kafka.restart()
        cluster.wait_until_final(specs, 180)

        assert [cluster.dump(spec) for spec in specs] == references
        assert cluster.crashes == []
        assert all(worker.alive for worker in cluster.workers), "no worker had to be started again"
