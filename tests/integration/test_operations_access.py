"""The users that docs/operations.md describes for Redis can do all that Moodline does, and nothing else."""

import re
import time
from pathlib import Path

import pytest
import redis

from moodline.shared.bus.base import Position
from moodline.shared.errors import StoreUnavailableError
from moodline.shared.store import ApplyResult, BucketValue, HighWaterMark, Store, TimelineUpdate, dump, open_store
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus
from moodline.shared.timeline import TIERS_S
from tests.support.cluster import RETENTION
from tests.support.servers import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture
def limited_url(repo: Path, private_redis: RedisServer) -> str:
    """A URL of the user that the page makes, on a server whose default user is off."""
    page = (repo / "docs/operations.md").read_text()
    (line,) = re.findall(r"^ACL SETUSER (moodline .*~moodline:.*)$", page, re.MULTILINE)
    with redis.Redis(port=private_redis.port) as admin:
        admin.execute_command("ACL", "SETUSER", *line.split())
    return f"redis://moodline:WORD@127.0.0.1:{private_redis.port}/0"


def use_everything(store: Store) -> None:
    store.ping()
    spec = StreamSpec(stream_id="door", url="synthetic://astronaut", recorded_at_us=0)
    store.add(spec)
    assert [found.stream_id for found in store.list_streams()] == ["door"]
    acquisition = store.acquire("door", time.time())
    assert store.set_status("door", acquisition.epoch, StreamStatus(state=StreamState.PLAYING))
    update = TimelineUpdate(
        stream_id="door",
        expected=None,
        high_water_mark=HighWaterMark(acquisition.epoch, 0),
        final=False,
        position=Position("moodline.emotions.file.v1", 0, 0),
        state=b"state",
        last_event_time_us=1,
        bucket_values=(BucketValue("", 1, 0, b"value"),),
    )
    assert store.apply([update]) == [ApplyResult.APPLIED]
    assert len(dump(store, "door", TIERS_S)) > 5
    assert store.load(["door"])[0] is not None
    assert store.bounds("door", 1) is not None
    revision = store.put_entry("keys", "one", b"{}", None)
    assert [found.key for found in store.list_entries("keys")] == ["one"]
    assert store.remove_entry("keys", "one", revision)
    store.append_record("audit", b"{}", 10)
    assert len(store.records("audit", limit=5)) == 1
    store.set_config_entry("model", b"fer-1")
    assert store.config_entry("model") == b"fer-1"
    store.remove("door")
    assert store.list_streams() == []


def test_the_user_of_the_page_can_do_all_that_moodline_does(limited_url: str) -> None:
    store = open_store(limited_url, RETENTION)
    use_everything(store)
    store.close()


def test_it_can_do_nothing_else(limited_url: str) -> None:
    with redis.Redis.from_url(limited_url) as user:
        for command in (("GET", "other"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SHUTDOWN",), ("ACL", "LIST")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                user.execute_command(*command)


def test_a_wrong_word_is_refused(limited_url: str) -> None:
    store = open_store(limited_url.replace("WORD", "other"), RETENTION)
    with pytest.raises(StoreUnavailableError, match="refuses this user"):
        store.ping()
    store.close()
