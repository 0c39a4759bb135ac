"""What every store promises of documents and logs, proved on SQLite, on Redis, and on a Redis cluster."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from moodline.shared.errors import RevisionConflictError
from moodline.shared.store import Store, VersionedEntry
from tests.support.stores import Backend, spec

THREADS = 6
ANY_BYTES = b"\x00 1 a \xff\n" + bytes(range(256))


class TestVersionedEntries:
    def test_a_document_is_read_as_it_was_written_by_anybody(self, store: Store, backend: Backend) -> None:
        assert store.get_entry("keys", "one") is None
        revision = store.put_entry("keys", "one", ANY_BYTES, None)
        other = backend.open()
        assert other.get_entry("keys", "one") == VersionedEntry("one", revision, ANY_BYTES)
        changed = other.put_entry("keys", "one", b"", revision)
        assert store.get_entry("keys", "one") == VersionedEntry("one", changed, b"")
        other.close()

    def test_a_kind_is_listed_by_key_and_apart_from_others(self, store: Store) -> None:
        assert store.list_entries("keys") == []
        for key in ("b", "a-2", "ä", "a", "Z", "a 1/{x}"):
            store.put_entry("keys", key, key.encode(), None)
        store.put_entry("rules", "a", b"another kind's", None)
        found = store.list_entries("keys")
        assert [entry.key for entry in found] == ["Z", "a", "a 1/{x}", "a-2", "b", "ä"]
        assert all(entry.value == entry.key.encode() for entry in found)
        assert [entry.value for entry in store.list_entries("rules")] == [b"another kind's"]

    def test_a_change_must_name_what_it_is_based_on(self, store: Store) -> None:
        with pytest.raises(RevisionConflictError, match="one"):
            store.put_entry("keys", "one", b"new", 1)
        first = store.put_entry("keys", "one", b"first", None)
        with pytest.raises(RevisionConflictError):
            store.put_entry("keys", "one", b"again", None)
        second = store.put_entry("keys", "one", b"second", first)
        assert second > first
        for stale in (first, second + 1, 0):
            with pytest.raises(RevisionConflictError):
                store.put_entry("keys", "one", b"lost", stale)
        assert store.get_entry("keys", "one") == VersionedEntry("one", second, b"second")

    def test_a_removed_document_is_gone_and_its_revisions_do_not_come_back(self, store: Store) -> None:
        assert store.remove_entry("keys", "one") is False
        revision = store.put_entry("keys", "one", b"first", None)
        with pytest.raises(RevisionConflictError):
            store.remove_entry("keys", "one", revision + 1)
        assert store.remove_entry("keys", "one", revision) is True
        assert (store.get_entry("keys", "one"), store.list_entries("keys")) == (None, [])
        assert store.remove_entry("keys", "one", revision) is False
        assert store.put_entry("keys", "one", b"anew", None) > revision
        with pytest.raises(RevisionConflictError):
            store.put_entry("keys", "one", b"of the former", revision)
        assert store.remove_entry("keys", "one") is True

    def test_of_many_that_change_the_same_one_wins_each_time(self, backend: Backend) -> None:
        store, barrier = backend.open(), threading.Barrier(THREADS)
        store.put_entry("keys", "count", b"0", None)

        def count(_number: int) -> int:
            own, wins = backend.open(), 0
            barrier.wait(30)
            while wins < 10:
                found = own.get_entry("keys", "count")
                assert found is not None
                try:
                    own.put_entry("keys", "count", b"%d" % (int(found.value) + 1), found.revision)
                except RevisionConflictError:
                    continue
                wins += 1
            own.close()
            return wins

        with ThreadPoolExecutor(THREADS) as pool:
            assert sum(pool.map(count, range(THREADS))) == THREADS * 10
        found = store.get_entry("keys", "count")
        assert found is not None
        assert int(found.value) == THREADS * 10
        store.close()

    def test_documents_are_no_part_of_the_registry(self, store: Store) -> None:
        store.add(spec("keys"))
        before = store.version()
        store.put_entry("keys", "one", b"x", None)
        store.append_record("keys", b"x", 5)
        assert store.version() == before
        store.remove("keys")
        assert len(store.list_entries("keys")) == len(store.records("keys")) == 1


class TestRecords:
    def test_records_are_numbered_from_one_and_read_in_order(self, store: Store, backend: Backend) -> None:
        assert store.records("audit") == []
        assert [store.append_record("audit", value, 100) for value in (b"a", ANY_BYTES, b"")] == [1, 2, 3]
        other = backend.open()
        assert other.append_record("audit", b"d", 100) == 4
        assert other.append_record("alerts", b"of another log", 100) == 1
        assert store.records("audit") == [(1, b"a"), (2, ANY_BYTES), (3, b""), (4, b"d")]
        other.close()

    def test_a_log_is_read_in_pages_both_ways(self, store: Store) -> None:
        for number in range(1, 13):
            store.append_record("audit", b"%d" % number, 100)

        def numbers(**page: int | bool) -> list[int]:
            return [number for number, _ in store.records("audit", **page)]  # type: ignore[arg-type]

        assert numbers(limit=5) == [1, 2, 3, 4, 5]
        assert numbers(after=5, limit=5) == [6, 7, 8, 9, 10]
        assert numbers(after=12) == []
        assert numbers(limit=3, newest_first=True) == [12, 11, 10]
        assert numbers(limit=3, newest_first=True, before=10) == [9, 8, 7]
        assert numbers(after=7, before=10, newest_first=True) == [9, 8]
        assert numbers(before=1) == numbers(before=0) == []

    def test_only_the_newest_are_kept_and_numbers_go_on(self, store: Store) -> None:
        for number in range(1, 8):
            assert store.append_record("audit", b"%d" % number, 3) == number
        assert store.records("audit") == [(5, b"5"), (6, b"6"), (7, b"7")]
        assert store.append_record("audit", b"8", 1) == 8
        assert store.records("audit") == [(8, b"8")]

    def test_records_of_many_writers_all_get_a_number(self, backend: Backend) -> None:
        store, barrier = backend.open(), threading.Barrier(THREADS)

        def write(_number: int) -> list[int]:
            own = backend.open()
            barrier.wait(30)
            got = [own.append_record("audit", b"x", 1000) for _ in range(20)]
            own.close()
            return got

        with ThreadPoolExecutor(THREADS) as pool:
            got = [number for numbers in pool.map(write, range(THREADS)) for number in numbers]
        assert sorted(got) == list(range(1, THREADS * 20 + 1)) == [number for number, _ in store.records("audit", limit=1000)]
        store.close()

    def test_documents_and_records_survive_a_new_start(self, store: Store, backend: Backend) -> None:
        revision = store.put_entry("keys", "one", b"kept", None)
        store.append_record("audit", b"kept", 10)
        store.close()
        opened = backend.open()
        assert opened.get_entry("keys", "one") == VersionedEntry("one", revision, b"kept")
        assert opened.records("audit") == [(1, b"kept")]
        opened.close()
