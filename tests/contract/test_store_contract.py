"""What every store promises of streams and their progress, proved on SQLite, on Redis, and on a Redis cluster."""

import threading
import time
from collections.abc import Callable

import msgspec
import pytest

from moodline.shared.bus.base import Position
from moodline.shared.errors import RevisionConflictError, StoreError, StreamExistsError, StreamNotFoundError
from moodline.shared.store import ApplyResult, BucketValue, FrameFailure, HighWaterMark, Progress, Standing, Store, dump
from moodline.shared.streams import FailureReason, StreamState, StreamStatus
from tests.support.stores import NOW_S, NOW_US, TIERS_S, Backend, SqliteBackend, Writer, spec, update

NOW_MS = int(NOW_S * 1000)
EVERYWHERE = 2**53
THREADS = 6


def together(actions: list[Callable[[], object]]) -> list[object]:
    """Run actions in threads at the same moment; return what each returned or raised."""
    barrier = threading.Barrier(len(actions))
    results: list[object] = [None] * len(actions)

    def run(number: int) -> None:
        barrier.wait(30)
        try:
            results[number] = actions[number]()
        except StoreError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


class TestRegistry:
    def test_a_stream_is_returned_as_it_was_added(self, store: Store) -> None:
        stream = spec("lobby", labels={"Ort": "Köln", "": "\x00"}, paused=True, sample_fps="30000/1001", recorded_at_us=-5)
        assert store.add(stream) == stream
        assert store.get("lobby") == stream
        assert store.statuses(["lobby"]) == [StreamStatus()]

    def test_streams_are_listed_by_id(self, store: Store) -> None:
        assert store.list_streams() == []
        for name in ("b", "a-2", "a", "a.1", "0"):
            store.add(spec(name))
        assert [stream.stream_id for stream in store.list_streams()] == ["0", "a", "a-2", "a.1", "b"]

    def test_an_id_is_taken_once(self, store: Store) -> None:
        store.add(spec("lobby", url="file:///one"))
        with pytest.raises(StreamExistsError, match="lobby"):
            store.add(spec("lobby", url="file:///two"))
        assert store.get("lobby").url == "file:///one"

    def test_unknown_streams_are_named(self, store: Store) -> None:
        for action in (
            lambda: store.get("nobody"),
            lambda: store.replace(spec("nobody")),
            lambda: store.remove("nobody"),
            lambda: store.acquire("nobody", NOW_S),
        ):
            with pytest.raises(StreamNotFoundError, match="nobody"):
                action()

    def test_a_change_names_the_revision_it_is_based_on(self, store: Store) -> None:
        first = store.add(spec("lobby"))
        second = store.replace(msgspec.structs.replace(first, paused=True))
        assert (second.revision, second.paused) == (first.revision + 1, True)
        assert store.get("lobby") == second
        with pytest.raises(RevisionConflictError, match="lobby"):
            store.replace(msgspec.structs.replace(first, labels={"late": "yes"}))
        assert store.get("lobby") == second

    def test_a_change_keeps_progress_and_timeline(self, store: Store) -> None:
        writer = Writer(store, "lobby")
        writer.write(BucketValue("", 1, 5, b"five"))
        before = store.load(["lobby"])
        store.replace(msgspec.structs.replace(store.get("lobby"), paused=True))
        assert store.load(["lobby"]) == before
        assert store.read("lobby", "", 1, 0, EVERYWHERE) == [(5, b"five")]

    def test_the_version_changes_with_every_definition_and_only_then(self, backend: Backend, store: Store) -> None:
        other, seen = backend.open(), [store.version()]
        for action in (
            lambda: store.add(spec("lobby")),
            lambda: store.replace(spec("lobby", paused=True)),
            lambda: store.remove("lobby"),
        ):
            action()
            seen.append(other.version())
        assert len(set(seen)) == len(seen)
        writer = Writer(store, "yard")
        before = other.version()
        writer.write(BucketValue("", 1, 5, b"five"))
        store.set_status("yard", writer.epoch, StreamStatus())
        assert other.version() == before == store.version()
        other.close()

    def test_changes_name_the_streams_that_changed_since_a_version(self, backend: Backend, store: Store) -> None:
        other = backend.open()
        version, names = other.changes(None)
        assert names is None, "who knows nothing must read everything"
        assert other.changes(version) == (version, frozenset())
        for action, changed in (
            (lambda: store.add(spec("lobby")), "lobby"),
            (lambda: store.add(spec("yard")), "yard"),
            (lambda: store.replace(spec("lobby", paused=True)), "lobby"),
            (lambda: store.remove("yard"), "yard"),
        ):
            action()
            before, (version, names) = version, other.changes(version)
            assert names == {changed}
            assert version > before
            assert version == store.version()
        assert other.changes(before)[1] == {"yard"}, "it can be asked again"
        store.set_status("lobby", store.acquire("lobby", NOW_S).epoch, StreamStatus())
        assert other.changes(version) == (version, frozenset()), "what a reader writes is no change of a definition"
        other.close()

    def test_changes_of_a_version_that_is_too_old_or_was_never_given_are_unknown(self, store: Store) -> None:
        store.add(spec("lobby"))
        first, _ = store.changes(None)
        assert store.changes(first + 10**15).stream_ids is None, "the store lost the version that was known"
        changed = store.get("lobby")
        for _ in range(5100):
            changed = store.replace(changed)
        version, names = store.changes(first)
        assert names is None
        assert store.changes(version) == (version, frozenset())

    def test_many_streams_are_returned_in_the_order_asked_for(self, store: Store) -> None:
        assert store.get_many([]) == []
        lobby, yard = store.add(spec("lobby")), store.add(spec("yard"))
        assert store.get_many(["yard", "nobody", "lobby"]) == [yard, None, lobby]

    def test_of_many_at_once_one_adds_one_changes_one_removes(self, backend: Backend) -> None:
        stores = [backend.open() for _ in range(THREADS)]
        added = together([lambda s=s, n=n: s.add(spec("lobby", labels={"n": str(n)})) for n, s in enumerate(stores)])
        winners = [result for result in added if not isinstance(result, StreamExistsError)]
        assert winners == [stores[0].get("lobby")]
        changed = together([lambda s=s: s.replace(winners[0]) for s in stores])
        assert sum(not isinstance(result, RevisionConflictError) for result in changed) == 1
        assert stores[0].get("lobby").revision == 2
        removed = together([lambda s=s: s.remove("lobby") for s in stores])
        assert sum(not isinstance(result, StreamNotFoundError) for result in removed) == 1
        assert stores[0].list_streams() == []
        for opened in stores:
            opened.close()


class TestRemoval:
    def test_nothing_is_left_of_a_removed_stream(self, backend: Backend, store: Store) -> None:
        kept = Writer(store, "yard")
        kept.write(BucketValue("", 1, 7, b"kept"))
        alone = backend.remains("lobby") + backend.remains("yard")
        writer = Writer(store, "lobby")
        store.set_status("lobby", writer.epoch, StreamStatus(state=StreamState.PLAYING))
        for step in range(40):
            bucket_values = [BucketValue("", tier_s, step * 100, b"v" * 150) for tier_s in TIERS_S]
            writer.write(
                *bucket_values, BucketValue("tracks", 0, step, b"summary"), BucketValue(f"track/{step}", 1, step, b"second")
            )
        store.remove("lobby")
        assert backend.remains("lobby") + backend.remains("yard") == alone
        assert dump(store, "lobby", TIERS_S) == dump(store, "never", TIERS_S)
        assert store.read("lobby", "track/3", 1, 0, EVERYWHERE) == []
        assert store.statuses(["lobby"]) == [StreamStatus()]
        assert store.load(["lobby", "yard"])[0] is None
        assert store.read("yard", "", 1, 0, EVERYWHERE) == [(7, b"kept")]

    def test_writers_that_knew_it_change_nothing(self, backend: Backend, store: Store) -> None:
        writer = Writer(store, "lobby")
        writer.write(BucketValue("", 1, 1, b"old"))
        store.remove("lobby")
        assert store.apply([writer.next([BucketValue("", 1, 2, b"late")])]) == [ApplyResult.GONE]
        assert store.set_status("lobby", writer.epoch, StreamStatus(state=StreamState.ENDED)) is False
        with pytest.raises(StreamNotFoundError):
            store.acquire("lobby", NOW_S)
        assert store.list_streams() == []
        assert backend.remains("lobby") == 0

    @pytest.mark.parametrize("lost", [False, True], ids=["", "counter-lost"])
    def test_a_new_stream_of_the_same_id_is_fenced_off_the_old_one(self, backend: Backend, store: Store, lost: bool) -> None:
        old = Writer(store, "lobby")
        old.write(BucketValue("", 1, 1, b"old"))
        ahead = store.acquire("lobby", NOW_S + 1000).epoch
        store.remove("lobby")
        if lost:
            backend.lose_counter()
        # The clock went back; only where the counter was lost too must the time of registration be right.
        store.add(spec("lobby", created_at_us=NOW_US + 2_000_000_000 if lost else 0))
        [progress] = store.load(["lobby"])
        assert progress is not None
        assert progress == Progress(min_epoch=progress.min_epoch)
        assert progress.min_epoch > ahead
        late = [BucketValue("", 1, 2, b"late")]
        assert store.apply([old.next(late)]) == [ApplyResult.GONE]
        assert store.apply([update("lobby", None, HighWaterMark(ahead, 0), late)]) == [ApplyResult.GONE]
        assert store.set_status("lobby", ahead, StreamStatus(state=StreamState.ENDED)) is False
        new = Writer(store, "lobby", add=False)
        assert new.epoch >= progress.min_epoch
        new.write(BucketValue("", 1, 3, b"new"))
        assert store.read("lobby", "", 1, 0, EVERYWHERE) == [(3, b"new")]


class TestAcquiring:
    def test_the_session_is_the_time_and_reading_starts_at_the_beginning(self, store: Store) -> None:
        store.add(spec("lobby", created_at_us=0))
        acquisition = store.acquire("lobby", NOW_S + 0.5)
        assert (acquisition.epoch, acquisition.next_seq, acquisition.final) == (NOW_MS + 500, 0, False)

    def test_reading_goes_on_after_the_mark(self, store: Store) -> None:
        writer = Writer(store, "lobby")
        writer.write(), writer.write()
        assert store.acquire("lobby", NOW_S).next_seq == 2
        writer.write(final=True)
        again = store.acquire("lobby", NOW_S)
        assert (again.next_seq, again.final) == (3, True)

    def test_sessions_grow_over_all_streams_whatever_the_clock_says(self, store: Store) -> None:
        for name in ("a", "b"):
            store.add(spec(name))
        times = (NOW_S, NOW_S, NOW_S - 5000, NOW_S + 100, 0.0, NOW_S + 50)
        epochs = [store.acquire("ab"[number % 2], now_s).epoch for number, now_s in enumerate(times)]
        assert epochs == sorted(set(epochs))
        assert epochs[3] == NOW_MS + 100_000

    def test_sessions_grow_for_a_stream_also_when_the_counter_was_lost(self, backend: Backend, store: Store) -> None:
        store.add(spec("unclaimed"))
        min_epoch = store.load(["unclaimed"])[0]
        acquired = Writer(store, "claimed").epoch
        store.add(spec("marked", created_at_us=0))
        marked = acquired + 5000
        assert store.apply([update("marked", None, HighWaterMark(marked, 0))]) == [ApplyResult.APPLIED]
        backend.lose_counter()
        assert min_epoch is not None
        assert store.acquire("unclaimed", 0.0).epoch > min_epoch.min_epoch
        backend.lose_counter()
        assert store.acquire("claimed", 0.0).epoch > acquired
        backend.lose_counter()
        last = store.acquire("marked", 0.0).epoch
        assert last > marked
        assert store.acquire("unclaimed", 0.0).epoch > last

    def test_claims_at_once_all_differ(self, backend: Backend) -> None:
        stores = [backend.open() for _ in range(THREADS)]
        stores[0].add(spec("lobby"))
        acquisitions = together([lambda s=s: [s.acquire("lobby", NOW_S).epoch for _ in range(10)] for s in stores])
        epochs = [epoch for found in acquisitions for epoch in found]  # type: ignore[attr-defined]
        assert len(set(epochs)) == THREADS * 10
        assert stores[0].acquire("lobby", 0.0).epoch > max(epochs)
        for opened in stores:
            opened.close()


class TestStatus:
    def test_the_last_status_is_kept_as_it_was(self, store: Store) -> None:
        writer = Writer(store, "lobby")
        status = StreamStatus(
            state=StreamState.FAILED, reason=FailureReason.CODEC, detail="läuft nicht", duration_us=2**41, source_fps="30000/1001"
        )
        assert store.set_status("lobby", writer.epoch, StreamStatus(state=StreamState.PLAYING)) is True
        assert store.set_status("lobby", writer.epoch, status) is True
        assert store.statuses(["never", "lobby", "lobby"]) == [StreamStatus(), status, status]
        assert store.statuses([]) == []

    def test_a_newer_session_silences_the_older(self, store: Store) -> None:
        old = Writer(store, "lobby")
        assert store.set_status("lobby", old.epoch, StreamStatus(state=StreamState.PLAYING)) is True
        new = store.acquire("lobby", NOW_S).epoch
        assert store.set_status("lobby", old.epoch, StreamStatus(state=StreamState.FAILED)) is False
        assert store.statuses(["lobby"])[0].state is StreamState.PLAYING
        assert store.set_status("lobby", new, StreamStatus(state=StreamState.PAUSED)) is True
        assert store.set_status("lobby", old.epoch, StreamStatus(state=StreamState.FAILED)) is False
        assert store.statuses(["lobby"])[0].state is StreamState.PAUSED


class TestFailures:
    def test_a_failure_counts_once_for_each_session(self, store: Store) -> None:
        store.add(spec("lobby"))
        first = store.acquire("lobby", NOW_S).epoch
        assert store.failures("lobby") == []
        for _ in range(2):
            store.add_failure("lobby", first, 7, "ä: one")
        store.add_failure("lobby", first, 3, "three")
        assert store.failures("lobby") == [FrameFailure(3, 1, first, "three"), FrameFailure(7, 1, first, "ä: one")]
        second = store.acquire("lobby", NOW_S).epoch
        store.add_failure("lobby", second, 7, "two")
        store.add_failure("lobby", first, 7, "late")
        assert store.failures("lobby")[1] == FrameFailure(7, 2, second, "two")

    def test_failures_go_with_their_stream_and_their_number_is_bounded(self, store: Store) -> None:
        store.add_failure("nobody", 2**50, 7, "x")
        assert store.failures("nobody") == []
        store.add(spec("lobby"))
        epoch = store.acquire("lobby", NOW_S).epoch
        for seq in range(40):
            store.add_failure("lobby", epoch, seq, "x")
        assert [failure.seq for failure in store.failures("lobby")] == list(range(8, 40))
        store.remove("lobby")
        store.add(spec("lobby"))
        assert store.failures("lobby") == []
        store.add_failure("lobby", epoch, 7, "of the former stream")
        assert store.failures("lobby") == []


class TestApply:
    def test_an_update_is_loaded_as_it_was_written(self, store: Store) -> None:
        writer = Writer(store, "lobby")
        min_epoch = store.load(["lobby"])[0]
        assert min_epoch is not None
        position = Position("moodline.emotions.live.v1", 15, 2**40)
        state = bytes(range(256)) * 20
        step = writer.write(BucketValue("", 1, 5, b"five"), final=True, position=position, state=state, last_event_time_us=-1)
        expected = Progress(
            high_water_mark=step.high_water_mark,
            final=True,
            position=position,
            state=state,
            min_epoch=min_epoch.min_epoch,
            last_event_time_us=-1,
            epoch=step.high_water_mark.epoch,
        )
        assert store.load(["nobody", "lobby", "lobby"]) == [None, expected, expected]
        assert store.load([]) == []
        known = Standing(
            high_water_mark=expected.high_water_mark,
            final=expected.final,
            min_epoch=expected.min_epoch,
            last_event_time_us=expected.last_event_time_us,
        )
        assert store.standings(["nobody", "lobby", "lobby"]) == [None, known, known]
        assert store.standings([]) == []
        assert store.apply([]) == []

    def test_a_writer_that_saw_another_mark_changes_nothing(self, store: Store) -> None:
        writer = Writer(store, "lobby")
        first = writer.write(BucketValue("", 1, 1, b"one"))
        writer.write(BucketValue("", 1, 1, b"two"))
        before = store.load(["lobby"]), dump(store, "lobby", TIERS_S)
        lies = [BucketValue("", 1, 1, b"lie"), BucketValue("", 1, 9, b"lie"), BucketValue("track/1", 1, 1, b"lie")]
        for expected in (None, first.high_water_mark, HighWaterMark(writer.epoch, 5), HighWaterMark(writer.epoch + 1, 1)):
            assert store.apply([update("lobby", expected, HighWaterMark(writer.epoch + 9, 2), lies)]) == [ApplyResult.STALE]
        assert (store.load(["lobby"]), dump(store, "lobby", TIERS_S)) == before

    def test_a_replay_is_applied_and_changes_nothing(self, store: Store) -> None:
        writer = Writer(store, "lobby")
        writer.write(BucketValue("", 1, 1, b"one"))
        step = writer.write(BucketValue("", 1, 1, b"two"))
        before = store.load(["lobby"]), dump(store, "lobby", TIERS_S)
        assert store.apply([step]) == [ApplyResult.APPLIED]
        assert (store.load(["lobby"]), dump(store, "lobby", TIERS_S)) == before
        elsewhere = step.position._replace(offset=step.position.offset + 1)
        assert store.apply([msgspec.structs.replace(step, position=elsewhere)]) == [ApplyResult.STALE]

    def test_state_may_change_while_the_mark_stays(self, store: Store) -> None:
        writer = Writer(store, "lobby")
        step = writer.write(BucketValue("", 1, 1, b"one"))
        tick = msgspec.structs.replace(
            step, expected=step.high_water_mark, state=b"ticked", bucket_values=(BucketValue("", 1, 1, b"final"),)
        )
        assert store.apply([tick]) == [ApplyResult.APPLIED]
        assert store.read("lobby", "", 1, 0, EVERYWHERE) == [(1, b"final")]
        assert store.load(["lobby"])[0].state == b"ticked"  # type: ignore[union-attr]

    def test_each_update_of_a_call_has_its_own_fate_in_order(self, store: Store) -> None:
        writers = [Writer(store, f"s{number}") for number in range(10)]
        updates = [writer.next([BucketValue("", 1, 0, writer.stream_id.encode())]) for writer in writers]
        updates[3] = msgspec.structs.replace(updates[3], expected=HighWaterMark(1, 1))
        updates[6] = msgspec.structs.replace(updates[6], stream_id="nobody")
        wanted = [ApplyResult.APPLIED] * 10
        wanted[3], wanted[6] = ApplyResult.STALE, ApplyResult.GONE
        assert store.apply(updates) == wanted
        found = [store.read(writer.stream_id, "", 1, 0, 1) for writer in writers]
        assert found == [[] if n in (3, 6) else [(0, f"s{n}".encode())] for n in range(10)]

    def test_of_writers_at_once_exactly_one_wins_each_step(self, backend: Backend) -> None:
        stores = [backend.open() for _ in range(THREADS)]
        Writer(stores[0], "lobby")

        def race(number: int) -> int:
            won = 0
            for _ in range(15):
                [progress] = stores[number].load(["lobby"])
                assert progress is not None
                seq = 0 if progress.high_water_mark is None else progress.high_water_mark.seq + 1
                # Every writer has a high-water mark of its own, so that none of them is taken for a replay of another.
                high_water_mark = HighWaterMark(progress.min_epoch + number, seq)
                bucket_values = [BucketValue("", 1, seq, b"%d" % number), BucketValue("tracks", 0, seq, b"%d" % number)]
                won += stores[number].apply([update("lobby", progress.high_water_mark, high_water_mark, bucket_values)]) == [
                    ApplyResult.APPLIED
                ]
            return won

        wins = together([lambda n=n: race(n) for n in range(THREADS)])
        steps = stores[0].read("lobby", "", 1, 0, EVERYWHERE)
        assert [index for index, _ in steps] == list(range(sum(wins)))  # type: ignore[arg-type]
        assert steps == stores[0].read("lobby", "tracks", 0, 0, EVERYWHERE)
        assert [sum(value == b"%d" % number for _, value in steps) for number in range(THREADS)] == wins
        for opened in stores:
            opened.close()

    def test_readers_never_see_half_an_update(self, backend: Backend, store: Store) -> None:
        reader, stop, torn = backend.open(), threading.Event(), []

        def watch() -> None:
            while not stop.is_set():
                bucket_values = reader.read("lobby", "", 1, 0, EVERYWHERE)
                if len({value for _, value in bucket_values}) > 1 or len(bucket_values) not in (0, 3):
                    torn.append(bucket_values)

        writer, watcher = Writer(store, "lobby"), threading.Thread(target=watch)
        watcher.start()
        for step in range(300):
            writer.write(*(BucketValue("", 1, index, b"%d" % step) for index in (59, 60, 5000)))
        stop.set()
        watcher.join(30)
        reader.close()
        assert torn == []


class TestConfigEntries:
    def test_a_note_is_read_as_it_was_last_written_by_anybody(self, store: Store, backend: Backend) -> None:
        assert store.config_entry("model") == b""
        store.set_config_entry("model", b"\x00old\xff")
        store.set_config_entry("other", b"stays")
        other = backend.open()
        other.set_config_entry("model", b"new")
        assert store.config_entry("model") == b"new"
        other.set_config_entry("model", b"")
        assert (store.config_entry("model"), store.config_entry("other")) == (b"", b"stays")
        other.close()

    def test_notes_are_no_part_of_the_registry(self, store: Store) -> None:
        before = store.version()
        store.set_config_entry("model", b"new")
        assert store.version() == before
        assert store.list_streams() == []


def test_the_store_tells_the_time_of_its_host_unless_that_is_this_machine(backend: Backend, store: Store) -> None:
    before_s = time.time()
    told_s = store.time_s()
    if isinstance(backend, SqliteBackend):
        assert told_s is None
    else:
        assert told_s is not None
        assert before_s - 0.001 <= told_s <= time.time() + 0.001
