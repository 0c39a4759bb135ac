"""Servers that are not there, or go away: clear words, no secrets, nothing lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.reference import reference_dump, synthetic_spec
from tests.support.servers import KafkaServer, RedisServer, free_port, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MOODLINE = str(Path(sys.executable).parent / "moodline")
PASSWORD = "hunter2-canary"


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


@pytest.mark.redis
@pytest.mark.kafka
def test_servers_lost_for_a_while_lose_nothing(tmp_path: Path, private_kafka: KafkaServer, private_redis: RedisServer) -> None:
    spec = synthetic_spec("s", seconds=12, seed=3)
    reference = reference_dump(tmp_path, spec)
    with Cluster(private_kafka.url, private_redis.url, tmp_path, tmp_path) as cluster:
        cluster.start(1)
        cluster.wait_until_up()
        cluster.store.add(spec)

        def mark() -> int:
            progress = cluster.store.load([spec.stream_id])[0]
            return progress.mark.seq if progress and progress.mark else -1

        wait_until(lambda: mark() >= 20, 60, "progress before the outages")
        private_redis.kill()
        aggregator = next(worker for worker in cluster.workers if worker.kind == "aggregator")
        wait_until(lambda: "worker.retry" in cluster.log_of(aggregator), 60, "the aggregator saying that it tries again")
        private_redis.restart()
        before = mark()
        wait_until(lambda: mark() >= min(before + 20, 250), 60, "progress after Redis came back")
        private_kafka.kill()
        private_kafka.restart()
        cluster.wait_until_final([spec], 180)
        assert cluster.dump(spec) == reference
        assert cluster.crashes == []
        assert all(worker.alive for worker in cluster.workers), "no worker had to be started again"
