"""What is special to Redis: how much memory a timeline takes, and that it expires."""

from collections.abc import Iterator

import pytest

from moodline.shared.store import BucketValue, Retention, Store
from moodline.shared.streams import StreamStatus
from tests.support.servers import wait_until
from tests.support.stores import RETENTION, TIERS_S, RedisBackend, Writer

pytestmark = pytest.mark.redis

EVERYWHERE = 2**53
MEMORY_LIMIT_BYTES = 100


@pytest.fixture
def store(redis_backend: RedisBackend) -> Iterator[Store]:
    opened = redis_backend.open()
    yield opened
    opened.close()


def encoding(backend: RedisBackend, key: bytes) -> bytes:
    return bytes(backend.admin.object("encoding", key))


class TestMemory:
    @pytest.mark.parametrize("length", [45, 60])
    def test_a_second_takes_at_most_100_bytes(self, redis_backend: RedisBackend, store: Store, length: int) -> None:
        """One live stream for an hour, written second by second; the share of names, index and expiry is counted."""
        admin, seconds = redis_backend.admin, 3600
        writer = Writer(store, "lobby")
        writer.write(BucketValue("", 1, 0, b""))
        used_before = admin.info("memory")["used_memory"]
        for second in range(60, 60 + seconds):
            writer.write(BucketValue("", 1, 28_333_320 + second, second.to_bytes(4, "big") * (length // 4) + b"x" * (length % 4)))
        grown = admin.info("memory")["used_memory"] - used_before
        measured = sum(admin.memory_usage(key, samples=0) for key in redis_backend.keys("lobby"))
        assert grown / seconds <= MEMORY_LIMIT_BYTES
        assert measured / seconds <= MEMORY_LIMIT_BYTES

    @pytest.mark.parametrize(("length", "wanted"), [(1, b"listpack"), (64, b"listpack"), (128, b"listpack"), (129, b"hashtable")])
    def test_a_full_block_stays_compact(self, redis_backend: RedisBackend, store: Store, length: int, wanted: bytes) -> None:
        Writer(store, "lobby").write(*(BucketValue("", 1, index, b"v" * length) for index in range(60)))
        [block] = [key for key in redis_backend.keys("lobby") if b"@" in key]
        assert encoding(redis_backend, block) == wanted

    def test_a_removed_stream_leaves_no_key(self, redis_backend: RedisBackend, store: Store) -> None:
        Writer(store, "other")
        store.remove("other")
        size = redis_backend.admin.dbsize()
        writer = Writer(store, "lobby")
        store.set_status("lobby", writer.epoch, StreamStatus())
        writer.write(*(BucketValue("", tier_s, index, b"v") for tier_s in TIERS_S for index in range(0, 60 * 250, 60)))
        assert redis_backend.admin.dbsize() == size + 1 + 2 + 250 * len(TIERS_S)
        store.remove("lobby")
        assert redis_backend.keys("lobby") == []
        assert redis_backend.admin.dbsize() == size


class TestExpiry:
    def test_every_block_lives_as_long_as_its_level_says(self, redis_backend: RedisBackend, store: Store) -> None:
        writer = Writer(store, "lobby")
        bucket_values = [BucketValue("", tier_s, 7, b"v") for tier_s in TIERS_S]
        writer.write(*bucket_values, BucketValue("tracks", 0, 7, b"v"), BucketValue("track/3", 1, 7, b"v"))
        wanted = {("", tier_s): RETENTION.seconds(tier_s) for tier_s in TIERS_S}
        wanted |= {("tracks", 0): RETENTION.seconds(1), ("track/3", 1): RETENTION.seconds(1)}
        for (series, tier_s), kept_s in wanted.items():
            place = f"}}:{series}@{tier_s}:".encode()
            [block] = [key for key in redis_backend.keys("lobby") if place in key]
            assert kept_s - 30 < redis_backend.admin.ttl(block) <= kept_s
        assert redis_backend.admin.ttl("moodline:{lobby}:blocks") > RETENTION.seconds(3600) - 30
        assert redis_backend.admin.ttl("moodline:{lobby}") == -1

    def test_cells_go_by_themselves_and_writing_keeps_them(self, redis_backend: RedisBackend) -> None:
        store = redis_backend.open(Retention({1: 1, 10: 3600}))
        writer = Writer(store, "lobby")
        writer.write(BucketValue("", 1, 1, b"gone"), BucketValue("", 10, 1, b"kept"))
        wait_until(lambda: not store.read("lobby", "", 1, 0, EVERYWHERE), 10, "expiry")
        assert store.bounds("lobby", 1) is None
        assert store.read("lobby", "", 10, 0, EVERYWHERE) == [(1, b"kept")]
        writer.write(BucketValue("", 1, 600, b"new"))
        assert store.bounds("lobby", 1) == (600, 600)
        assert redis_backend.admin.zcard("moodline:{lobby}:blocks") == 2
        store.close()

    def test_names_of_expired_blocks_leave_the_index(self, redis_backend: RedisBackend, store: Store) -> None:
        writer, admin = Writer(store, "lobby"), redis_backend.admin
        for number in range(200):
            writer.write(BucketValue("", 1, 60 * number, b"v"))
        # As if they had expired. Names before them live on, as those of faces that stay for days.
        for key in sorted(key for key in redis_backend.keys("lobby") if b"@1:" in key)[50:150]:
            admin.delete(key)
        assert store.bounds("lobby", 1) == (0, 60 * 199)
        for number in range(200, 300):
            writer.write(BucketValue("", 1, 60 * number, b"v"))
        assert admin.zcard("moodline:{lobby}:blocks") == 200
        assert len(store.read("lobby", "", 1, 0, EVERYWHERE)) == 200

    def test_bounds_are_those_of_what_is_left(self, redis_backend: RedisBackend, store: Store) -> None:
        Writer(store, "lobby").write(*(BucketValue("", 1, 60 * number, b"v") for number in range(100)))
        blocks = sorted(key for key in redis_backend.keys("lobby") if b"@1:" in key)
        for key in blocks[:40] + blocks[60:]:
            redis_backend.admin.delete(key)
        assert store.bounds("lobby", 1) == (60 * 40, 60 * 59)

    def test_a_wide_range_reads_only_what_is_there(self, redis_backend: RedisBackend, store: Store) -> None:
        Writer(store, "lobby").write(*(BucketValue("", 1, index, b"v") for index in (0, 10**6, 10**12)))
        redis_backend.admin.config_resetstat()
        assert [index for index, _ in store.read("lobby", "", 1, 0, EVERYWHERE)] == [0, 10**6, 10**12]
        assert redis_backend.admin.info("commandstats")["cmdstat_hgetall"]["calls"] == 3
