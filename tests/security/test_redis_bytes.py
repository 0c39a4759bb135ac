"""Redis with values that others wrote, and what is left in its files of a stream that was removed."""

import logging
import time
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from moodline.shared.bus.base import Position
from moodline.shared.messages import StreamClass
from moodline.shared.store import Retention, Store, open_store
from moodline.shared.store.base import BucketValue, HighWaterMark, TimelineUpdate
from moodline.shared.streams import StreamSpec, StreamStatus
from moodline.shared.timeline.bucket import TIERS_S
from tests.support.fixtures import Server
from tests.support.servers import HOST, RedisServer

pytestmark = pytest.mark.redis

START_S: Final = 1_777_636_800.0
CANARY: Final = b"canary-5b1f"
JUNK: Final = (
    b"",
    b"x",
    b"\xff" * 10,
    b"9" * 400,
    b"[[[[",
    b'{"stream_id":1}',
    b"[" * 100_000,
    b"\x80\x04\x95cos\nsystem\n(S'x'\ntR.",
)


def fill(store: Store, name: str) -> None:
    labels = {"site": CANARY.decode()}
    created_us = int(START_S * 1e6)
    store.add(StreamSpec(stream_id=name, url="rtsp://192.0.2.1/", lane=StreamClass.LIVE, created_at_us=created_us, labels=labels))
    epoch = store.acquire(name, START_S).epoch
    store.set_status(name, epoch, StreamStatus(detail=CANARY.decode()))
    bucket_values = tuple(BucketValue("", 1, index, CANARY) for index in range(3000))
    update = TimelineUpdate(
        stream_id=name,
        expected=None,
        high_water_mark=HighWaterMark(epoch, 0),
        final=False,
        position=Position("moodline.emotions.live.v1", 0, 1),
        state=b"\x03" + CANARY,
        last_event_time_us=5,
        bucket_values=bucket_values,
    )
    store.apply([update])
    store.add_failure(name, epoch, 1, CANARY.decode())


@pytest.fixture
def store(redis_server: Server) -> Any:
    opened = open_store(redis_server.url, Retention(dict.fromkeys(TIERS_S, 10**8)))
    yield opened
    opened.close()


def test_a_value_that_others_wrote_hides_its_stream_and_no_other(
    store: Store, redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("forged-good", "forged-bad")
    for name in names:
        fill(store, name)
    client = redis.Redis.from_url(redis_server.url)
    key = "moodline:{forged-bad}"
    saved: dict[bytes, bytes] = client.hgetall(key)  # type: ignore[assignment]
    (wanted, progress, standing, status) = (
        store.get("forged-good"),
        store.load(["forged-good"]),
        store.standings(["forged-good"]),
        store.statuses(["forged-good"]),
    )
    damaged = 0
    try:
        with caplog.at_level(logging.CRITICAL, "moodline.store"):
            for field, value in saved.items():
                for junk in JUNK:
                    client.hset(key, field, junk)  # type: ignore[arg-type]
                    assert wanted in store.list_streams()
                    found = store.get_many(names)
                    damaged += found[1] is None
                    assert found[0] == wanted
                    assert store.load(names)[:1] == progress
                    assert store.standings(names)[:1] == standing
                    assert store.statuses(names)[:1] == status
                    store.failures("forged-bad")
                client.hset(key, mapping={field: value})  # type: ignore[dict-item]
        client.hset(key, "spec", b"x")
        with caplog.at_level(logging.ERROR, "moodline.store"):
            store.list_streams()
        assert [record.stream_id for record in caplog.records if record.msg == "store.damaged"] == ["forged-bad"]  # type: ignore[attr-defined]
    finally:
        client.hset(key, mapping=saved)  # type: ignore[arg-type]
        for name in names:
            store.remove(name)
        client.close()
    assert damaged == len(JUNK), "of all fields only the definition hides the stream from the list"


def test_of_a_removed_stream_no_byte_is_left_in_redis_nor_in_its_file_once_that_is_rewritten() -> None:
    with RedisServer() as server:
        store = open_store(server.url, Retention(dict.fromkeys(TIERS_S, 10**8)))
        client = redis.Redis(HOST, server.port)
        fill(store, "lobby")
        assert b"lobby" in _memory(client)
        assert CANARY in _memory(client)
        store.remove("lobby")
        assert CANARY not in _memory(client)
        client.bgrewriteaof()
        deadline = time.monotonic() + 30
        while any(CANARY in each for each in _files(server.folder)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        store.close()
        client.close()


def _memory(client: Any) -> bytes:
    """Return all keys and values, as Redis would save them, without its compression."""
    client.config_set("rdbcompression", "no")
    return b"".join(key + client.dump(key) for key in client.scan_iter(count=1000))


def _files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix in (".aof", ".rdb")]
