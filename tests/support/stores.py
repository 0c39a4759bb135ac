"""Stores for tests: the same data opened as often as a test likes, and short ways to write updates."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import redis
from redis.cluster import RedisCluster

from moodline.shared.bus.base import Position
from moodline.shared.clock import Clock, SystemClock
from moodline.shared.store import BucketValue, HighWaterMark, Retention, Store, TimelineUpdate
from moodline.shared.store.redis import RedisStore
from moodline.shared.store.sqlite import SqliteStore
from moodline.shared.streams import StreamSpec
from tests.support.servers import HOST, RedisServer, free_port, wait_until

TIERS_S = (1, 10, 60, 600, 3600)
RETENTION = Retention({1: 2 * 86_400, 10: 14 * 86_400, 60: 60 * 86_400, 600: 365 * 86_400, 3600: 1825 * 86_400})
NOW_S = 1_700_000_000.0
NOW_US = int(NOW_S) * 1_000_000
_DATABASE: Final = 9


class Backend(Protocol):
    """Where stores keep their data; every store opened here sees the same."""

    def open(self, retention: Retention = RETENTION, clock: Clock | None = None) -> Store: ...

    def remains(self, stream_id: str) -> int:
        """Return how many rows or keys are kept of a stream; for SQLite, of all streams."""
        ...

    def lose_counter(self) -> None:
        """Forget every epoch given so far, as a store does that lost its last writes."""
        ...


class SqliteBackend:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    def open(self, retention: Retention = RETENTION, clock: Clock | None = None) -> Store:
        return SqliteStore(self.url, retention, clock=clock)

    def remains(self, stream_id: str) -> int:
        return sum(self.query(f"SELECT count(*) FROM {table}")[0][0] for table in ("stream", "block", "cell"))

    def lose_counter(self) -> None:
        self.query("UPDATE meta SET value = 0 WHERE name = 'sessions'")

    def query(self, sql: str) -> list[Any]:
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()


class RedisBackend:
    def __init__(self, url: str) -> None:
        # A database of its own: the server may be one that somebody works with.
        self.url = urlsplit(url)._replace(path=f"/{_DATABASE}").geturl()
        self.admin: Any = redis.Redis.from_url(self.url)
        self.admin.flushdb()

    def open(self, retention: Retention = RETENTION, clock: Clock | None = None) -> Store:
        return RedisStore(self.url, retention, clock=clock)

    def keys(self, stream_id: str) -> list[bytes]:
        return [key for key in self.admin.keys("*") if b"{%s}" % stream_id.encode() in key]

    def remains(self, stream_id: str) -> int:
        return len(self.keys(stream_id))

    def lose_counter(self) -> None:
        self.admin.hdel("moodline:{_}", "sessions")

    def close(self) -> None:
        self.admin.close()


class RedisClusterBackend(RedisBackend):
    def __init__(self, url: str) -> None:
        self.url = url
        self.admin = RedisCluster.from_url(url)
        self.admin.flushdb(target_nodes=RedisCluster.PRIMARIES)

    def keys(self, stream_id: str) -> list[bytes]:
        found = self.admin.keys("*", target_nodes=RedisCluster.PRIMARIES)
        return [key for key in found if b"{%s}" % stream_id.encode() in key]


class RedisClusterServer(RedisServer):
    """One node of a cluster."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.bus_port = free_port()

    def _command(self) -> tuple[str, ...]:
        return (*super()._command(), "--cluster-enabled", "yes", "--cluster-port", str(self.bus_port))


def join_nodes(nodes: list[RedisClusterServer]) -> None:
    """Make one cluster of fresh nodes and wait until it answers."""
    admins: list[Any] = [redis.Redis(host=HOST, port=node.port) for node in nodes]
    share = 16384 // len(nodes)
    for number, admin in enumerate(admins):
        last = 16383 if number == len(nodes) - 1 else (number + 1) * share - 1
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        admin.execute_command("CLUSTER", "MEET", HOST, nodes[0].port, nodes[0].bus_port)
    for admin in admins:
        wait_until(lambda admin=admin: admin.cluster("info")["cluster_state"] == "ok", what="cluster state")  # type: ignore[misc]
        wait_until(lambda admin=admin: len(admin.cluster("nodes")) == len(nodes), what="cluster nodes")  # type: ignore[misc]
        admin.close()


class SteppedClock(SystemClock):
    """Wall time as a test sets it; waiting is real."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self.set_s = now_s

    def now_s(self) -> float:
        return self.set_s


def spec(stream_id: str, **changes: Any) -> StreamSpec:
    values = {"stream_id": stream_id, "url": "synthetic://test", "created_at_us": NOW_US} | changes
    return StreamSpec(**values)


def update(
    stream_id: str,
    expected: HighWaterMark | None,
    high_water_mark: HighWaterMark,
    bucket_values: Iterable[BucketValue] = (),
    **changes: Any,
) -> TimelineUpdate:
    values: dict[str, Any] = {
        "stream_id": stream_id,
        "expected": expected,
        "high_water_mark": high_water_mark,
        "final": False,
        "position": Position("moodline.emotions.file.v1", 2, 100 + high_water_mark.seq),
        "state": b"state %d" % high_water_mark.seq,
        "last_event_time_us": NOW_US + high_water_mark.seq,
        "bucket_values": tuple(bucket_values),
    }
    return TimelineUpdate(**(values | changes))


class Writer:
    """An aggregator's view of one acquired stream: writes bucket values in steps, each on top of the last."""

    def __init__(self, store: Store, stream_id: str, *, add: bool = True) -> None:
        self.store, self.stream_id = store, stream_id
        if add:
            store.add(spec(stream_id))
        self.epoch = store.acquire(stream_id, NOW_S).epoch
        self.high_water_mark: HighWaterMark | None = None

    def next(self, bucket_values: Iterable[BucketValue] = (), **changes: Any) -> TimelineUpdate:
        seq = 0 if self.high_water_mark is None else self.high_water_mark.seq + 1
        return update(self.stream_id, self.high_water_mark, HighWaterMark(self.epoch, seq), bucket_values, **changes)

    def write(self, *bucket_values: BucketValue, **changes: Any) -> TimelineUpdate:
        step = self.next(bucket_values, **changes)
        assert self.store.apply([step]) == ["applied"]
        self.high_water_mark = step.high_water_mark
        return step
