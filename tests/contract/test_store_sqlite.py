"""What is special to SQLite: one file that several processes share, that survives `kill -9`, and that may be damaged."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moodline.shared.errors import SettingsError, StoreError, StoreUnavailableError
from moodline.shared.store import BucketValue, Retention, Store, open_store
from moodline.shared.store.sqlite import SqliteStore
from moodline.shared.streams import StreamStatus
from tests.support.servers import wait_until
from tests.support.stores import NOW_S, RETENTION, TIERS_S, SqliteBackend, SteppedClock, Writer, spec

EVERYWHERE = 2**53

# Writes steps as fast as it can; every bucket value of a step has the step's number in it.
_WRITER = """
import sys
from moodline.shared.bus.base import Position
from moodline.shared.store import BucketValue, HighWaterMark, Retention, TimelineUpdate, open_store

tiers_s = (1, 10, 60, 600, 3600)
store, seed = open_store(sys.argv[1], Retention(dict.fromkeys(tiers_s, 10**9))), int(sys.argv[2])
while True:
    [progress] = store.load(["lobby"])
    seq = 0 if progress.high_water_mark is None else progress.high_water_mark.seq + 1
    value = b"%d" % seq * 20
    bucket_values = tuple(BucketValue("", tier_s, index, value) for tier_s in tiers_s for index in range(0, 600, 60))
    [result] = store.apply([TimelineUpdate(
        stream_id="lobby", expected=progress.high_water_mark, high_water_mark=HighWaterMark(progress.min_epoch + seed, seq),
        final=False, state=value,
        position=Position("topic", 0, seq), last_event_time_us=seq, bucket_values=bucket_values)])
    if result == "applied":
        print(seq, flush=True)
"""


@pytest.fixture
def backend(tmp_path: Path) -> SqliteBackend:
    return SqliteBackend(tmp_path / "data" / "moodline.db")


@pytest.fixture
def store(backend: SqliteBackend) -> Iterator[Store]:
    opened = backend.open()
    yield opened
    opened.close()


@pytest.fixture
def start_writer(backend: SqliteBackend, repo: Path) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(seed: int) -> subprocess.Popen[bytes]:
        command = (sys.executable, "-c", _WRITER, backend.url, str(seed))
        started.append(subprocess.Popen(command, cwd=repo, stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def assert_whole(store: Store) -> int:
    """Check that high-water mark, state and all bucket values are of one step; return its number."""
    [progress] = store.load(["lobby"])
    assert progress is not None
    assert progress.high_water_mark is not None
    value = b"%d" % progress.high_water_mark.seq * 20
    assert progress.state == value
    for tier_s in TIERS_S:
        assert store.read("lobby", "", tier_s, 0, EVERYWHERE) == [(index, value) for index in range(0, 600, 60)]
    return progress.high_water_mark.seq


class TestProcesses:
    def test_kill_9_while_writing_leaves_whole_steps_and_loses_none(
        self, backend: SqliteBackend, start_writer: Callable[[int], subprocess.Popen[bytes]]
    ) -> None:
        store, rng = backend.open(), random.Random(5)
        store.add(spec("lobby"))
        store.close()
        for round_number in range(5):
            process = start_writer(round_number)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.1))
            process.kill()
            said = [int(line) for line in process.communicate()[0].split(b"\n")[:-1]]
            store = backend.open()
            assert assert_whole(store) >= max(said, default=0)
            store.close()
            assert backend.query("PRAGMA integrity_check") == [("ok",)]

    def test_processes_and_threads_write_the_same_stream_by_turns(
        self, store: Store, start_writer: Callable[[int], subprocess.Popen[bytes]]
    ) -> None:
        store.add(spec("lobby"))
        processes = [start_writer(seed) for seed in range(2)]
        steps: list[int] = []
        for process in processes:
            assert process.stdout is not None
            steps += [int(process.stdout.readline()) for _ in range(20)]
        # Mark and bucket values are read one after the other, so nobody may write in between: writers stand still wherever they
        # are.
        for process in processes:
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
        assert_whole(store)
        for process in processes:
            process.kill()
            steps += [int(line) for line in process.communicate()[0].split(b"\n")[:-1]]
        assert len(set(steps)) == len(steps), "two writers made the same step"
        assert assert_whole(store) >= max(steps)

    def test_many_open_a_new_file_at_the_same_moment(self, backend: SqliteBackend, repo: Path) -> None:
        code = "import sys; from moodline.shared.store import *; open_store(sys.argv[1], Retention({1: 60})).list_streams()"
        command = (sys.executable, "-c", code, backend.url)
        processes = [subprocess.Popen(command, cwd=repo, stderr=subprocess.PIPE) for _ in range(6)]
        assert [process.communicate()[1] for process in processes] == [b""] * 6

    def test_a_writer_that_stays_in_the_way_is_an_unavailable_store(self, backend: SqliteBackend) -> None:
        store = SqliteStore(backend.url, RETENTION, busy_timeout_s=0.1)
        writer = Writer(store, "lobby")
        other = sqlite3.connect(backend.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            writer.write(BucketValue("", 1, 1, b"one"))
        assert store.read("lobby", "", 1, 0, EVERYWHERE) == [], "readers do not wait"
        other.execute("ROLLBACK")
        other.close()
        writer.write(BucketValue("", 1, 1, b"one"))
        store.close()


class TestFile:
    def test_folder_and_file_are_made_and_keep_everything(self, backend: SqliteBackend, store: Store) -> None:
        writer = Writer(store, "lobby")
        writer.write(BucketValue("", 1, 1, b"one"))
        store.set_status("lobby", writer.epoch, StreamStatus(detail="here"))
        before = store.list_streams(), store.load(["lobby"]), store.statuses(["lobby"]), store.version()
        store.close()
        again = backend.open()
        assert (again.list_streams(), again.load(["lobby"]), again.statuses(["lobby"]), again.version()) == before
        assert again.read("lobby", "", 1, 0, EVERYWHERE) == [(1, b"one")]
        again.close()

    def test_a_relative_path_is_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        open_store("sqlite:///some/where.db", RETENTION).close()
        assert (tmp_path / "some" / "where.db").exists()

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:////", "sqlite:///:memory:"])
    def test_a_url_without_a_file_is_refused(self, url: str) -> None:
        with pytest.raises(SettingsError, match="sqlite:///"):
            open_store(url, RETENTION)

    def test_a_newer_schema_is_refused_and_left_alone(self, backend: SqliteBackend, store: Store) -> None:
        store.close()
        backend.query("PRAGMA user_version = 2")
        with pytest.raises(StoreError, match="newer Moodline"):
            backend.open()
        assert backend.query("PRAGMA user_version") == [(2,)]

    def test_the_database_of_another_program_is_refused_and_left_alone(self, backend: SqliteBackend) -> None:
        backend.path.parent.mkdir()
        backend.query("CREATE TABLE theirs (x)")
        before = backend.path.read_bytes()
        with pytest.raises(StoreError, match="not a Moodline database"):
            backend.open()
        assert backend.path.read_bytes() == before

    def test_a_file_that_is_no_database_is_damaged(self, backend: SqliteBackend) -> None:
        backend.path.parent.mkdir()
        backend.path.write_bytes(b"no database at all, " * 1000)
        with pytest.raises(StoreError, match="damaged"):
            backend.open()

    def test_a_damaged_page_is_a_typed_error(self, backend: SqliteBackend, store: Store) -> None:
        writer = Writer(store, "lobby")
        writer.write(*(BucketValue("", 1, index, b"v" * 100) for index in range(5000)))
        store.close()
        content = bytearray(backend.path.read_bytes())
        # All pages but the first, which holds the schema's names.
        content[4096 * 8 :] = random.Random(1).randbytes(len(content) - 4096 * 8)
        backend.path.write_bytes(content)
        damaged = backend.open()
        with pytest.raises(StoreError, match="damaged"):
            damaged.read("lobby", "", 1, 0, EVERYWHERE)
        damaged.close()

    def test_a_place_that_cannot_be_used_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreUnavailableError, match="folder"):
            open_store(f"sqlite:///{tmp_path}/file/moodline.db", RETENTION)
        with pytest.raises(StoreUnavailableError, match="unable to open"):
            open_store(f"sqlite:///{tmp_path}", RETENTION)


class TestPruning:
    def test_a_block_goes_when_its_last_cell_was_written_long_enough_ago(self, backend: SqliteBackend) -> None:
        clock = SteppedClock()
        store = backend.open(Retention({1: 60, 10: 600}), clock)
        writer = Writer(store, "lobby")
        writer.write(
            BucketValue("", 1, 5, b"a"),
            BucketValue("", 1, 65, b"b"),
            BucketValue("", 10, 5, b"c"),
            BucketValue("tracks", 0, 1, b"d"),
        )
        clock.set_s += 50
        writer.write(BucketValue("", 1, 66, b"e"))
        assert store.prune(NOW_S + 59.9) == 0
        assert store.prune(NOW_S + 60) == 2
        assert store.read("lobby", "", 1, 0, EVERYWHERE) == [(65, b"b"), (66, b"e")]
        assert store.read("lobby", "tracks", 0, 0, EVERYWHERE) == []
        assert store.prune(NOW_S + 109) == 0
        assert store.prune(NOW_S + 110) == 1
        assert store.bounds("lobby", 1) is None
        assert store.read("lobby", "", 10, 0, EVERYWHERE) == [(5, b"c")]
        assert store.load(["lobby"])[0].high_water_mark == writer.high_water_mark  # type: ignore[union-attr]
        writer.write(BucketValue("", 1, 67, b"again"))
        assert store.read("lobby", "", 1, 0, EVERYWHERE) == [(67, b"again")]
        clock.set_s += 10_000
        assert store.prune(clock.set_s) == 2
        store.close()
        assert backend.query("SELECT count(*) FROM cell") == backend.query("SELECT count(*) FROM block") == [(0,)]

    def test_many_blocks_go_in_one_call(self, backend: SqliteBackend) -> None:
        clock = SteppedClock()
        store = backend.open(Retention({1: 60}), clock)
        Writer(store, "lobby").write(*(BucketValue("", 1, 60 * number, b"v") for number in range(1300)))
        Writer(store, "yard").write(BucketValue("", 1, 0, b"v"))
        assert store.prune(NOW_S + 61) == 1301
        assert store.prune(NOW_S + 61) == 0
        store.close()


def test_the_log_of_writes_does_not_grow_for_ever(backend: SqliteBackend, store: Store) -> None:
    writer = Writer(store, "lobby")
    for step in range(1500):
        writer.write(*(BucketValue("", 1, 60 * number, b"%d" % step * 50) for number in range(20)))
    wait_until(lambda: Path(f"{backend.path}-wal").stat().st_size < 16 * 1024 * 1024, 5, "a short log")


def test_a_file_of_the_version_before_gets_what_was_added_and_can_still_be_read_by_it(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path / "moodline.db")
    backend.open().close()
    version = backend.query("PRAGMA user_version")
    for table in ("note", "document", "record"):
        backend.query(f"DROP TABLE {table}")
    store = backend.open()
    store.set_config_entry("model", b"new")
    assert store.config_entry("model") == b"new"
    assert store.put_entry("keys", "one", b"value", None) == 1
    assert store.append_record("audit", b"line", 10) == 1
    assert backend.query("PRAGMA user_version") == version
    store.close()
