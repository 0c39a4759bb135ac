"""Stores that the contract suites run on: SQLite, Redis, and a Redis cluster of two nodes."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shared.store import Store
from tests.support.fixtures import Server
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
