"""Everything that can go wrong between a client and Redis: lost answers, deaths between two steps, servers in trouble."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from moodline.shared.errors import SettingsError, StoreError, StoreUnavailableError, StreamExistsError, StreamNotFoundError
from moodline.shared.store import ApplyResult, BucketValue, HighWaterMark, Store, open_store
from moodline.shared.store.redis import RedisStore
from moodline.shared.streams import StreamState, StreamStatus
from tests.support.proxy import LossyProxy
from tests.support.servers import RedisServer, free_port, wait_until
from tests.support.stores import NOW_S, RETENTION, RedisBackend, Writer, spec, update

pytestmark = pytest.mark.redis

EVERYWHERE = 2**53
STEPS = range(9)
"""No operation on the registry takes more round trips than this."""


@pytest.fixture
def store(redis_backend: RedisBackend) -> Iterator[Store]:
    opened = redis_backend.open()
    yield opened
    opened.close()


@pytest.fixture
def proxy(redis_backend: RedisBackend) -> Iterator[LossyProxy]:
    with LossyProxy(urlsplit(redis_backend.url).port or 6379) as running:
        yield running


def through(proxy: LossyProxy, backend: RedisBackend, retry_s: float = 2.0) -> RedisStore:
    return RedisStore(f"redis://127.0.0.1:{proxy.port}{urlsplit(backend.url).path}", RETENTION, retry_s=retry_s)


class TestLostAnswers:
    """Whatever answer gets lost, the call succeeds once, with the result that it would have had."""

    @pytest.mark.parametrize("after", STEPS)
    def test_changes_of_the_registry(self, redis_backend: RedisBackend, store: Store, proxy: LossyProxy, after: int) -> None:
        shaky = through(proxy, redis_backend)
        shaky.ping()
        proxy.lose(after)
        assert shaky.add(spec("lobby")) == spec("lobby")
        proxy.lose(after)
        changed = shaky.replace(spec("lobby", paused=True))
        assert store.get("lobby") == changed == spec("lobby", paused=True, revision=2)
        proxy.lose(after)
        shaky.remove("lobby")
        assert store.list_streams() == []
        assert redis_backend.keys("lobby") == []
        shaky.close()

    def test_claims_statuses_and_updates(self, redis_backend: RedisBackend, store: Store, proxy: LossyProxy) -> None:
        shaky = through(proxy, redis_backend)
        shaky.ping()
        writer = Writer(shaky, "lobby")
        proxy.lose(0)
        writer.write(BucketValue("", 1, 1, b"one"))
        assert proxy.lost == 1
        proxy.lose(1)
        epoch = shaky.acquire("lobby", NOW_S).epoch
        assert epoch > writer.epoch
        proxy.lose(0)
        assert shaky.set_status("lobby", epoch, StreamStatus(state=StreamState.PLAYING)) is True
        proxy.lose(0)
        stale = update("lobby", None, HighWaterMark(epoch, 5), [BucketValue("", 1, 1, b"lie")])
        assert shaky.apply([stale, writer.next()][:1]) == [ApplyResult.STALE]
        assert store.read("lobby", "", 1, 0, EVERYWHERE) == [(1, b"one")]
        shaky.close()

    def test_documents_and_records(self, redis_backend: RedisBackend, store: Store, proxy: LossyProxy) -> None:
        shaky = through(proxy, redis_backend)
        shaky.ping()
        # The server knows the script, so that what gets lost is the answer of a step that was done.
        store.append_record("other", b"line", 10)
        steps: list[tuple[Callable[[], object], object]] = [
            (lambda: shaky.put_entry("rules", "a", b"one", None), 1),
            (lambda: shaky.put_entry("rules", "a", b"two", 1), 2),
            (lambda: shaky.remove_entry("rules", "a", 2), True),
            (lambda: shaky.append_record("log", b"line", 10), 1),
            (lambda: shaky.append_record("log", b"line", 10), 2),
        ]
        for step, wanted in steps:
            proxy.lose(0)
            assert step() == wanted
            assert proxy.lost == 1
        assert store.list_entries("rules") == []
        assert store.records("log") == [(1, b"line"), (2, b"line")]
        shaky.close()

    def test_a_batch_whose_answers_were_lost_is_applied_once(
        self, redis_backend: RedisBackend, store: Store, proxy: LossyProxy
    ) -> None:
        shaky = through(proxy, redis_backend)
        writers = [Writer(shaky, f"s{number}") for number in range(30)]
        for step in range(3):
            proxy.lose(0)
            updates = [writer.next([BucketValue("", 1, step, b"v")]) for writer in writers]
            assert shaky.apply(updates) == [ApplyResult.APPLIED] * 30
            assert proxy.lost == 1
            for writer, applied in zip(writers, updates, strict=True):
                writer.high_water_mark = applied.high_water_mark
        assert all(store.read(writer.stream_id, "", 1, 0, 60) == [(n, b"v") for n in range(3)] for writer in writers)
        shaky.close()


class TestDiedInTheMiddle:
    """A process that dies after any of its steps leaves a registry that others can work with."""

    @pytest.mark.parametrize("after", STEPS)
    def test_of_adding(self, redis_backend: RedisBackend, store: Store, proxy: LossyProxy, after: int) -> None:
        dying = through(proxy, redis_backend, retry_s=0.0)
        dying.ping()
        store.version()
        proxy.lose(after, stay_dead=True)
        done = outcome(lambda: dying.add(spec("lobby")))
        listed = [stream.stream_id for stream in store.list_streams()]
        if listed or isinstance(outcome(lambda: store.add(spec("lobby"))), StreamExistsError):
            assert store.get("lobby") == spec("lobby")
        else:
            assert isinstance(done, StoreUnavailableError)
        assert_works(store, "lobby")
        dying.close()

    @pytest.mark.parametrize("listed_first", [False, True], ids=["added-again", "listed"])
    @pytest.mark.parametrize("after", STEPS)
    def test_of_removing(
        self, redis_backend: RedisBackend, store: Store, proxy: LossyProxy, after: int, listed_first: bool
    ) -> None:
        dying = through(proxy, redis_backend, retry_s=0.0)
        writer = Writer(store, "lobby")
        writer.write(*(BucketValue("", 1, 60 * number, b"v") for number in range(1200)))
        dying.ping()
        proxy.lose(after, stay_dead=True)
        outcome(lambda: dying.remove("lobby"))
        if not isinstance(outcome(lambda: store.get("lobby")), StreamNotFoundError):
            assert len(store.read("lobby", "", 1, 0, EVERYWHERE)) == 1200
            store.remove("lobby")
        if listed_first:
            assert store.list_streams() == []
            assert redis_backend.keys("lobby") == []
        store.add(spec("lobby"))
        assert store.read("lobby", "", 1, 0, EVERYWHERE) == []
        assert store.apply([writer.next([BucketValue("", 1, 1, b"late")])]) == [ApplyResult.GONE]
        assert_works(store, "lobby")
        dying.close()

    def test_the_version_tells_in_the_end(
        self, redis_backend: RedisBackend, store: Store, proxy: LossyProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dying = through(proxy, redis_backend, retry_s=0.0)
        dying.ping()
        before, (known, _) = store.version(), store.changes(None)
        # The definition is written, and the process dies before it can say so.
        proxy.lose(2, stay_dead=True)
        assert isinstance(outcome(lambda: dying.add(spec("lobby"))), StoreUnavailableError)
        assert store.get("lobby") == spec("lobby")
        assert len({before, store.version(), store.version()}) == 3, "as long as it may still go on, readers look each time"
        for _ in range(2):
            known, names = store.changes(known)
            assert names == {"lobby"}, "the same for those who ask what has changed"
        redis_backend.admin.hdel("moodline:{_}:ids", "lobby")
        monkeypatch.setattr("moodline.shared.store.redis._CHANGE_LIMIT_MS", -1)
        assert store.changes(known).stream_ids == {"lobby"}
        assert store.version() == store.version()
        known = store.changes(known).version
        assert store.changes(known) == (store.version(), frozenset())
        assert [stream.stream_id for stream in store.list_streams()] == ["lobby"]
        dying.close()


def outcome(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except StoreError as error:
        return error


def assert_works(store: Store, stream_id: str) -> None:
    assert [stream.stream_id for stream in store.list_streams()] == [stream_id]
    writer = Writer(store, stream_id, add=False)
    assert writer.epoch < 2 * NOW_S * 1000, "sessions are about the time in ms"
    writer.write(BucketValue("", 1, 1, b"one"))
    assert store.set_status(stream_id, writer.epoch, StreamStatus()) is True
    assert store.read(stream_id, "", 1, 0, EVERYWHERE) == [(1, b"one")]


class TestServerTrouble:
    def test_scripts_are_sent_again_when_the_server_forgot_them(self, redis_backend: RedisBackend, store: Store) -> None:
        writers = [Writer(store, f"s{number}") for number in range(20)]
        for step in range(3):
            redis_backend.admin.script_flush()
            updates = [writer.next([BucketValue("", 1, step, b"v")]) for writer in writers]
            assert store.apply(updates) == [ApplyResult.APPLIED] * 20
            for writer, applied in zip(writers, updates, strict=True):
                writer.high_water_mark = applied.high_water_mark
            redis_backend.admin.script_flush()
            assert store.bounds("s0", 1) == (0, step)

    def test_a_restart_loses_nothing_that_was_answered(self, private_redis: RedisServer) -> None:
        store = open_store(private_redis.url, RETENTION)
        writer, stop, errors = Writer(store, "lobby"), threading.Event(), []

        def write() -> None:
            step = 0
            try:
                while not stop.is_set():
                    writer.write(BucketValue("", 1, step, b"%d" % step), BucketValue("", 10, step, b"%d" % step))
                    step += 1
            except (StoreError, AssertionError) as error:
                errors.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(3):
            seen = writer.high_water_mark
            wait_until(lambda seen=seen: writer.high_water_mark != seen, what="a step after the restart")  # type: ignore[misc]
            private_redis.restart()
        stop.set()
        thread.join(30)
        assert errors == []
        [progress] = store.load(["lobby"])
        assert progress is not None
        assert progress.high_water_mark == writer.high_water_mark
        wanted = [(index, b"%d" % index) for index in range(writer.high_water_mark.seq + 1)]  # type: ignore[union-attr]
        assert store.read("lobby", "", 1, 0, EVERYWHERE) == store.read("lobby", "", 10, 0, EVERYWHERE) == wanted
        store.close()

    def test_out_of_memory_changes_nothing_and_passes(self, private_redis: RedisServer) -> None:
        store, admin = RedisStore(private_redis.url, RETENTION, retry_s=0.2), redis.Redis.from_url(private_redis.url)
        writer = Writer(store, "lobby")
        writer.write(BucketValue("", 1, 1, b"long" * 30))
        admin.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailableError, match="memory"):
            writer.write(BucketValue("", 1, 1, b"short"))
        assert store.read("lobby", "", 1, 0, 60) == [(1, b"long" * 30)]
        admin.config_set("maxmemory", 0)
        writer.write(BucketValue("", 1, 1, b"short"))
        assert store.read("lobby", "", 1, 0, 60) == [(1, b"short")]
        close(store, admin)

    def test_a_replica_is_waited_for_to_become_the_master(self, private_redis: RedisServer) -> None:
        store, admin = RedisStore(private_redis.url, RETENTION, retry_s=0.2), redis.Redis.from_url(private_redis.url)
        writer = Writer(store, "lobby")
        admin.replicaof("127.0.0.1", free_port())
        with pytest.raises(StoreUnavailableError, match="ReadOnly"):
            writer.write(BucketValue("", 1, 1, b"v"))
        admin.replicaof("NO", "ONE")
        writer.write(BucketValue("", 1, 1, b"v"))
        close(store, admin)

    def test_a_busy_server_is_waited_for(self, private_redis: RedisServer) -> None:
        store, admin = RedisStore(private_redis.url, RETENTION, retry_s=0.2), redis.Redis.from_url(private_redis.url)
        store.ping()
        admin.config_set("busy-reply-threshold", 20)
        endless = threading.Thread(target=outcome_of_endless_script, args=(private_redis.url,))
        endless.start()
        wait_until(lambda: isinstance(outcome(store.ping), StoreUnavailableError), what="BUSY")
        admin.script_kill()
        endless.join(10)
        store.ping()
        close(store, admin)

    def test_a_frozen_server_is_unavailable_and_then_back(self, private_redis: RedisServer) -> None:
        store = RedisStore(f"{private_redis.url}?socket_timeout=0.2", RETENTION, retry_s=0.3)
        writer = Writer(store, "lobby")
        private_redis.pause()
        started_s = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            writer.write(BucketValue("", 1, 1, b"v"))
        assert time.monotonic() - started_s < 5
        private_redis.resume()
        # What the frozen server had received it does now; the same step is then a replay.
        writer.write(BucketValue("", 1, 1, b"v"))
        assert store.read("lobby", "", 1, 0, 60) == [(1, b"v")]
        store.close()

    def test_a_newer_schema_is_refused(self, redis_backend: RedisBackend, store: Store) -> None:
        redis_backend.admin.hset("moodline:{_}", "schema", 2)
        with pytest.raises(StoreError, match="newer Moodline"):
            store.ping()


class TestSecrets:
    def test_a_missing_server_is_named_without_its_password(self) -> None:
        port = free_port()
        store = RedisStore(f"redis://user:s3cret@127.0.0.1:{port}/3", RETENTION, retry_s=0.2)
        started_s = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}/3") as caught:
            store.ping()
        assert time.monotonic() - started_s < 5
        assert "s3cret" not in "".join(traceback.format_exception(caught.value)) + repr(store)
        store.close()

    def test_a_refused_password_is_not_shown_and_not_tried_again(self, private_redis: RedisServer) -> None:
        admin = redis.Redis.from_url(private_redis.url)
        admin.config_set("requirepass", "right")
        place = private_redis.url.removeprefix("redis://")
        for credentials in ("", ":s3cret@", "user:s3cret@"):
            store = RedisStore(f"redis://{credentials}{place}", RETENTION, retry_s=60)
            with pytest.raises(StoreUnavailableError, match="refuses this user or password") as caught:
                store.ping()
            assert "s3cret" not in "".join(traceback.format_exception(caught.value))
            store.close()
        store = RedisStore(f"redis://:right@{place}", RETENTION)
        store.ping()
        close(store, admin)

    @pytest.mark.parametrize("rest", ["s3cret@host:port/0", "s3cret@host/zero", "s3cret@[::1/0", "s3cret@host:99999/0"])
    def test_a_url_that_cannot_be_used_is_not_quoted(self, rest: str) -> None:
        with pytest.raises(SettingsError, match="redis://") as caught:
            RedisStore(f"redis://:{rest}", RETENTION)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value, limit=0))


def outcome_of_endless_script(url: str) -> None:
    client = redis.Redis.from_url(url)
    with pytest.raises(redis.ResponseError, match="killed"):
        client.eval("while true do end", 0)
    client.close()


def close(store: Store, admin: redis.Redis) -> None:
    store.close()
    admin.close()
