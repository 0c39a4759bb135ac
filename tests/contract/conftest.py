"""What the contract suites run on: SQLite, Redis and a Redis cluster; memory, Kafka and an imitation of Kafka."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer as ClientProducer

from moodline.shared.bus import Bus, open_bus
from moodline.shared.bus.kafka import KafkaBus
from moodline.shared.store import Store
from tests.contract.bus_bench import PARTITIONS, Bench
from tests.support.fixtures import Server
from tests.support.servers import die_with_parent
from tests.support.stores import Backend, RedisBackend, RedisClusterBackend, RedisClusterServer, SqliteBackend, join_nodes


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisClusterServer]:
    """One node of a cluster of two."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on the path")
    with ExitStack() as stack:
        nodes = [stack.enter_context(RedisClusterServer()) for _ in range(2)]
        join_nodes(nodes)
        yield nodes[0]


@pytest.fixture
def redis_backend(redis_server: Server) -> Iterator[RedisBackend]:
    backend = RedisBackend(redis_server.url)
    yield backend
    backend.close()


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.redis) for name in ("redis", "cluster"))])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Every kind of store, empty."""
    if request.param == "sqlite":
        yield SqliteBackend(tmp_path / "store.db")
    elif request.param == "redis":
        yield request.getfixturevalue("redis_backend")
    else:
        cluster = RedisClusterBackend(request.getfixturevalue("redis_cluster").url)
        yield cluster
        cluster.close()


@pytest.fixture
def store(backend: Backend) -> Iterator[Store]:
    opened = backend.open()
    yield opened
    opened.close()


_IMITATED_CLUSTER = """
import sys
from confluent_kafka import Producer
host = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
broker = next(iter(host.list_topics(timeout=10).brokers.values()))
print(f"kafka://{broker.host}:{broker.port}", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def mock_cluster_url() -> Iterator[str]:
    """A cluster that librdkafka imitates; it makes topics of 4 partitions when they are asked for.

    In a process of its own, which is killed: librdkafka may wait indefinitely when it destroys such a cluster.
    """
    command = [*die_with_parent(), sys.executable, "-c", _IMITATED_CLUSTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        bus: Bus = open_bus("memory://", partitions=PARTITIONS, max_bytes=16 * 1024 * 1024)
    else:
        bus = open_bus(request.getfixturevalue("kafka_server").url, partitions=PARTITIONS)
    with Bench(bus) as made:
        yield made


@pytest.fixture
def mock_bench(mock_cluster_url: str) -> Iterator[Bench]:
    servers = mock_cluster_url.removeprefix("kafka://")
    bus = KafkaBus(mock_cluster_url, partitions=PARTITIONS)
    with Bench(bus, creator=lambda name: ClientProducer({"bootstrap.servers": servers}).list_topics(name, timeout=10)) as made:
        yield made
