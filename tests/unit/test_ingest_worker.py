"""The worker: the right readers run, and only those, whatever users, other workers, the bus and the store do."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from moodline.services.ingest.camera.reader import CameraParts
from moodline.services.ingest.live.records import Job
from moodline.services.ingest.worker import IngestWorker
from moodline.shared.bus import Record, partition_for
from moodline.shared.camera import CameraAddress
from moodline.shared.clock import SystemClock
from moodline.shared.errors import BusUnavailableError, SourceError, StoreUnavailableError
from moodline.shared.messages import STREAMS_TOPIC, End, Message, StreamClass
from moodline.shared.store import HighWaterMark, Standing
from moodline.shared.streams import FailureReason, StreamSpec, StreamState, StreamStatus, Transport
from tests.support.ingest_doubles import NOW_S, Desk, StubSource, add_stream, frames_of, open_desk

SHARDS = 4


class StubConsumer:
    """A member of the group whose shards the test sets."""

    def __init__(self) -> None:
        self.shards = set(range(SHARDS))
        self.errors: list[Exception] = []
        self.closed = False

    def poll(self, max_records: int, timeout_s: float, linger_s: float = 0.0) -> list[Record]:
        time.sleep(0.001)
        if self.errors:
            raise self.errors.pop()
        return []

    def assignment(self) -> frozenset[tuple[str, int]]:
        return frozenset((STREAMS_TOPIC, shard) for shard in self.shards)

    def committed(self) -> dict[tuple[str, int], int]:
        return {}

    def standing(self) -> dict[tuple[str, int], float]:
        return {}

    def close(self) -> None:
        self.closed = True


class Bench:
    """A worker whose loop the test turns."""

    def __init__(self, desk: Desk, turned: bool) -> None:
        self.desk = desk
        self.consumer = StubConsumer()
        self.partitions = SHARDS
        self.stop = threading.Event()
        parts = desk.parts
        self.worker = IngestWorker(
            self.consumer,  # type: ignore[arg-type]
            desk.producer,
            desk.store,
            parts.settings,
            desk.metrics,
            parts.clock,
            shards=SHARDS,
            count_shards=lambda: self.partitions,
            source_opener=parts.open_source,
        )
        if turned:
            self.worker._watch.start()

    def run_until(self, done: Callable[[], bool], timeout_s: float = 20.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline_s, "did not come to pass"
            self.worker.step(self.stop)

    def run(self, times: int = 15) -> None:
        for _ in range(times):
            self.worker.step(self.stop)

    def state(self, stream_id: str = "clip") -> StreamState:
        return self.desk.store.statuses([stream_id])[0].state

    def change(self, spec: StreamSpec, **fields: object) -> StreamSpec:
        return self.desk.store.replace(msgspec.structs.replace(self.desk.store.get(spec.stream_id), **fields))

    def reading(self) -> set[str]:
        return {name for name, reader in self.worker._readers.items() if reader.is_alive}


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    opened: list[Bench] = []

    def make(*, turned: bool = True, **settings: object) -> Bench:
        # Every look at the clock takes 6 ms, so that each turn of the loop compares streams and readers.
        bench = Bench(open_desk(tmp_path, **{"step_s": 0.006, "stall_s": 1e6, **settings}), turned)  # type: ignore[arg-type]
        opened.append(bench)
        return bench

    yield make
    for bench in opened:
        bench.worker._shut_down()
        bench.desk.store.close()


@pytest.fixture
def bench(benches: Callable[..., Bench]) -> Bench:
    return benches()


@pytest.fixture
def held(benches: Callable[..., Bench]) -> Bench:
    """Nothing is ever applied: readers read four frames and wait."""
    return benches(applies=False, credit_frames=4)


def sent(bench: Bench, stream_id: str = "clip") -> list[int]:
    return [message.seq for message in bench.desk.producer.of(stream_id)]


def test_reads_new_streams_to_their_ends(bench: Bench) -> None:
    for stream_id in ("a", "b", "c"):
        add_stream(bench.desk, stream_id)
    bench.run_until(lambda: all(bench.state(stream_id) is StreamState.ENDED for stream_id in "abc"))
    late = add_stream(bench.desk, "late")
    bench.run_until(lambda: bench.state(late.stream_id) is StreamState.ENDED)
    assert all(sent(bench, stream_id) == list(range(21)) for stream_id in ("a", "b", "c", "late"))
    bench.run()
    assert len(bench.desk.opened) == 4, "what has ended is not read again"


class StubCameras:
    """Cameras whose processes say nothing until the test speaks for them."""

    def __init__(self) -> None:
        self.links: dict[str, list[StubLink]] = {}
        self.closed = False

    def open(self, job: Job) -> "StubLink":
        link = StubLink()
        self.links.setdefault(job.host, []).append(link)
        return link

    def address_of(self, spec: StreamSpec) -> CameraAddress:
        return CameraAddress("rtsp", spec.stream_id, 554)

    def close(self) -> None:
        self.closed = True


class StubLink:
    def __init__(self) -> None:
        self.closed = threading.Event()

    def next(self, timeout_s: float) -> Record | None:
        self.closed.wait(timeout_s)
        raise SourceError(FailureReason.CORRUPT, "gone")

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def cameras(bench: Bench) -> StubCameras:
    stub, parts = StubCameras(), bench.desk.parts
    bench.worker._cameras = stub
    bench.worker._camera_parts = CameraParts(
        parts.producer, parts.store, parts.settings, parts.metrics, SystemClock(), stub.open, stub.address_of
    )
    return stub


def add_camera(bench: Bench, stream_id: str, **fields: object) -> StreamSpec:
    return add_stream(bench.desk, stream_id, lane=StreamClass.LIVE, **fields)


def test_all_cameras_are_read_at_once_however_many_files_wait(bench: Bench, cameras: StubCameras) -> None:
    bench.worker._slots = 0
    add_stream(bench.desk, "file")
    names = {f"cam{number}" for number in range(30)}
    for name in sorted(names):
        add_camera(bench, name)
    bench.run_until(lambda: set(cameras.links) == names)
    assert bench.reading() == names
    assert bench.state("file") is StreamState.PENDING


def test_a_changed_camera_is_opened_again_and_the_others_are_left_alone(bench: Bench, cameras: StubCameras) -> None:
    one, other = add_camera(bench, "one"), add_camera(bench, "other")
    bench.run_until(lambda: set(cameras.links) == {"one", "other"})
    bench.change(one, labels={"floor": "2"})
    bench.run()
    assert len(cameras.links["one"]) == 1, "a label is nothing to connect again for"
    for change in ({"sealed": "other"}, {"sample_fps": "1"}, {"transport": Transport.UDP}, {"tls_verify": False}):
        before = len(cameras.links["one"])
        bench.change(one, **change)
        bench.run_until(lambda before=before: len(cameras.links["one"]) == before + 1)
        assert cameras.links["one"][before - 1].closed.is_set()
    bench.change(other, paused=True)
    bench.run_until(lambda: bench.state("other") is StreamState.PAUSED)
    assert cameras.links["other"][0].closed.is_set()
    assert bench.reading() == {"one"}


def test_cameras_move_with_their_shards_and_end_with_the_worker(bench: Bench, cameras: StubCameras) -> None:
    add_camera(bench, "cam")
    bench.run_until(lambda: "cam" in cameras.links)
    bench.consumer.shards = {shard for shard in range(SHARDS) if shard != partition_for(b"cam", SHARDS)}
    bench.run_until(lambda: not bench.reading())
    assert cameras.links["cam"][0].closed.is_set()
    bench.consumer.shards = set(range(SHARDS))
    bench.run_until(lambda: len(cameras.links["cam"]) == 2)
    bench.worker._shut_down()
    assert cameras.closed
    assert not bench.reading()


def test_reads_only_its_shards_and_only_files(bench: Bench) -> None:
    ids = [f"s{number}" for number in range(12)]
    bench.consumer.shards = {1, 3}
    mine = [name for name in ids if partition_for(name.encode(), SHARDS) in (1, 3)]
    assert 0 < len(mine) < 12
    for name in ids:
        add_stream(bench.desk, name)
    add_stream(bench.desk, "camera", lane=StreamClass.LIVE)
    bench.run_until(lambda: all(bench.state(name) is StreamState.ENDED for name in mine))
    bench.run()
    assert {message.stream_id for message in bench.desk.producer.messages} == set(mine)


def test_gives_up_moved_shards_and_takes_new_ones(held: Bench) -> None:
    add_stream(held.desk)
    shard = partition_for(b"clip", SHARDS)
    held.run_until(lambda: sent(held) == [0, 1, 2, 3])
    held.consumer.shards = set()
    started_s = time.monotonic()
    held.run_until(lambda: not held.reading())
    assert time.monotonic() - started_s < 1.0
    assert held.state() is StreamState.PENDING
    held.consumer.shards = {shard}
    held.run_until(lambda: len(sent(held)) == 8)
    first, second = sorted({message.epoch for message in held.desk.producer.messages})
    assert [message.seq for message in held.desk.producer.messages if message.epoch == second] == [0, 1, 2, 3]
    assert first < second


def test_partitions_that_are_added_while_it_runs_change_what_it_reads(bench: Bench) -> None:
    """Else workers that were started before would share the streams out in another way than those that come later."""
    moving = next(name for name in map("clip-{}".format, range(100)) if partition_for(name.encode(), 2 * SHARDS) >= SHARDS)
    bench.consumer.shards = set(range(SHARDS, 2 * SHARDS))
    add_stream(bench.desk, moving)
    bench.run(50)
    assert bench.reading() == set()
    bench.partitions = 2 * SHARDS
    bench.run_until(lambda: bench.state(moving) is StreamState.ENDED)


def test_pausing_stops_at_once_and_resuming_goes_on_after_the_mark(benches: Callable[..., Bench]) -> None:
    bench = benches(credit_frames=4)
    spec = add_stream(bench.desk)
    # What comes after frame 7 is lost, so the reader soon waits.
    bench.desk.producer.on_send = lambda message: setattr(bench.desk.producer, "lose_next", int(message.seq > 7))
    bench.run_until(lambda: len(sent(bench)) == 12)
    bench.change(spec, paused=True)
    started_s = time.monotonic()
    bench.run_until(lambda: bench.state() is StreamState.PAUSED)
    assert time.monotonic() - started_s < 1.0
    assert not bench.reading()
    bench.run()
    assert sent(bench) == list(range(12))
    bench.desk.producer.on_send = None
    bench.desk.producer.lose_next = 0
    bench.change(spec, paused=False)
    bench.run_until(lambda: bench.state() is StreamState.ENDED)
    assert sent(bench)[12:] == list(range(8, 21))


def test_a_stream_that_is_paused_before_anybody_read_it_says_so(bench: Bench) -> None:
    spec = add_stream(bench.desk, paused=True)
    bench.run_until(lambda: bench.state() is StreamState.PAUSED)
    since = bench.desk.store.statuses(["clip"])
    bench.run()
    assert bench.desk.store.statuses(["clip"]) == since
    assert bench.desk.opened == []
    bench.change(spec, paused=False)
    bench.run_until(lambda: bench.state() is StreamState.ENDED)


def test_removed_streams_are_left(held: Bench) -> None:
    add_stream(held.desk)
    held.run_until(lambda: len(sent(held)) == 4)
    held.desk.store.remove("clip")
    held.run_until(lambda: not held.reading())
    held.run()
    assert held.worker._readers == {}


@pytest.mark.parametrize("change", [{"sample_fps": "12.5"}, {"max_side_px": 64}, {"recorded_at_us": 5}])
def test_a_change_of_content_starts_the_reader_again(held: Bench, change: dict[str, object]) -> None:
    spec = add_stream(held.desk)
    held.run_until(lambda: len(sent(held)) == 4)
    held.change(spec, **change)
    held.run_until(lambda: len(sent(held)) == 8)
    assert len({message.epoch for message in held.desk.producer.messages}) == 2


def test_a_change_of_labels_does_not(held: Bench) -> None:
    spec = add_stream(held.desk)
    held.run_until(lambda: len(sent(held)) == 4)
    held.change(spec, labels={"place": "lobby"})
    held.run()
    assert len(held.desk.opened) == 1
    assert held.reading() == {"clip"}


def test_a_failed_stream_is_left_until_the_user_tries_again(bench: Bench) -> None:
    failing = threading.Event()
    failing.set()

    def source() -> StubSource:
        if failing.is_set():
            raise SourceError(FailureReason.NOT_FOUND, "the file does not exist")
        return StubSource()

    tries = []
    spec = add_stream(bench.desk, source=lambda: tries.append(1) or source())
    bench.run_until(lambda: bench.state() is StreamState.FAILED)
    bench.run(40)
    assert len(tries) == 1
    failing.clear()
    bench.change(spec, attempt=1)
    bench.run_until(lambda: bench.state() is StreamState.ENDED)
    assert bench.desk.store.statuses(["clip"])[0].attempt == 1


def test_no_more_files_than_slots_are_decoded_and_the_others_wait_in_turn(held: Bench) -> None:
    held.worker._slots = 2
    ids = ["d", "a", "c", "b"]
    for age, name in enumerate(ids):
        add_stream(held.desk, name, created_at_us=age)
    held.desk.store.set_status("c", held.desk.store.acquire("c", NOW_S).epoch, StreamStatus(state=StreamState.PLAYING))
    held.run_until(lambda: held.reading() == {"d", "a"} and held.state("c") is StreamState.PENDING)
    held.run()
    assert {name for name in ids if sent(held, name)} == {"d", "a"}
    add_stream(held.desk, "0-newest", created_at_us=99)
    held.desk.store.remove("d")
    held.run_until(lambda: "c" in held.reading())
    assert held.reading() == {"a", "c"}


def test_a_resumed_stream_waits_behind_those_that_wait_already(held: Bench) -> None:
    held.worker._slots = 1
    old = add_stream(held.desk, "old", created_at_us=1, paused=True)
    for age, name in enumerate(["reads", "first", "second"], 2):
        add_stream(held.desk, name, created_at_us=age)
    held.run_until(lambda: held.reading() == {"reads"})
    held.change(old, paused=False)
    held.run_until(lambda: held.state("old") is StreamState.PENDING)
    for done, following in [("reads", "first"), ("first", "second"), ("second", "old")]:
        held.desk.store.remove(done)
        held.run_until(lambda done=done: bool(held.reading() - {done}))
        assert held.reading() == {following}


def test_waiting_for_the_rest_of_a_timeline_takes_no_slot(benches: Callable[..., Bench]) -> None:
    bench = benches(applies=False, credit_frames=64)
    bench.worker._slots = 1
    for name in ("a", "b", "c"):
        add_stream(bench.desk, name)
    bench.run_until(lambda: all(len(sent(bench, name)) == 21 for name in "abc"))
    assert bench.reading() == {"a", "b", "c"}


def test_metrics_show_streams_by_state(held: Bench) -> None:
    add_stream(held.desk, "a")
    add_stream(held.desk, "b", paused=True)
    held.run_until(lambda: held.desk.count("streams", state="paused") == 1 and held.desk.count("streams", state="playing") == 1)
    held.desk.store.remove("b")
    held.run_until(lambda: held.desk.count("streams", state="paused") == 0)


def test_a_complete_timeline_whose_worker_died_is_said_to_have_ended(bench: Bench) -> None:
    add_stream(bench.desk)
    bench.run_until(lambda: bench.state() is StreamState.ENDED)
    epoch = bench.desk.store.acquire("clip", NOW_S).epoch
    bench.desk.store.set_status("clip", epoch, StreamStatus(state=StreamState.PLAYING))
    bench.run_until(lambda: bench.state() is StreamState.ENDED)
    assert len(bench.desk.opened) == 1


def test_a_store_that_lost_its_last_writes_makes_an_ended_file_play_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    add_stream(bench.desk)
    bench.run_until(lambda: bench.state() is StreamState.ENDED)
    store, rolled_back = bench.desk.store, Standing(high_water_mark=HighWaterMark(int(NOW_S * 1000), 11))
    standings, acquisition, again = store.standings, store.acquire, bench.desk.producer.messages
    monkeypatch.setattr(store, "standings", lambda ids: standings(ids) if len(again) > 21 else [rolled_back for _ in ids])
    monkeypatch.setattr(store, "acquire", lambda *args: msgspec.structs.replace(acquisition(*args), next_seq=12, final=False))
    bench.run_until(lambda: len(again) == 30)
    assert [message.seq for message in again[21:]] == list(range(12, 21))


def test_a_pass_asks_about_few_of_many_streams_that_lie_still_and_of_each_within_ten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"s{number}" for number in range(3000)]
    for name in names:
        add_stream(bench.desk, name, paused=True)
    bench.run_until(lambda: bool(bench.worker._streams.desired))
    assert {status.state for status in bench.desk.store.statuses(names)} == {StreamState.PAUSED}
    store, asked, whole = bench.desk.store, [], []
    standings, list_streams = store.standings, store.list_streams
    monkeypatch.setattr(store, "standings", lambda ids: asked.append(list(ids)) or standings(ids))
    monkeypatch.setattr(store, "list_streams", lambda: whole.append(1) or list_streams())
    bench.run(20)
    assert whole == [], "the registry is not read again while nothing changes"
    assert max(map(len, asked)) == 300
    assert {name for ids in asked[-10:] for name in ids} == set(names)
    asked.clear()
    bench.change(store.get("s7"), paused=False)
    bench.run_until(lambda: bool(asked))
    assert "s7" in asked[0], "a change is looked at at once"
    assert len(asked[0]) <= 301
    bench.run_until(lambda: bench.state("s7") is StreamState.ENDED)


def test_a_stream_that_another_worker_took_is_left_alone_for_a_while(benches: Callable[..., Bench]) -> None:
    bench = benches(applies=False, credit_frames=64, step_s=0.05)
    add_stream(bench.desk, source=lambda: StubSource(5000))
    bench.desk.producer.on_send = lambda message: message.seq == 10 and bench.desk.store.acquire("clip", NOW_S)
    bench.run_until(lambda: "clip" in bench.worker._resting)
    assert len(bench.desk.opened) == 1
    bench.run_until(lambda: len(bench.desk.opened) == 2)


def test_readers_go_on_while_the_store_is_out_of_reach(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, outage = bench.desk.store, threading.Event()
    monkeypatch.setattr("moodline.services.ingest.worker._RETRY_S", 0.0)
    reached_ten = threading.Event()

    def at_ten(message: Message) -> None:
        if message.seq == 10:
            outage.set()
            reached_ten.set()

    def fragile(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object) -> object:
            if outage.is_set():
                raise StoreUnavailableError("the store does not answer")
            return call(*args)

        return wrapped

    for name in ("changes", "list_streams", "statuses", "set_status"):
        monkeypatch.setattr(store, name, fragile(getattr(store, name)))
    bench.desk.producer.on_send = at_ten
    add_stream(bench.desk, source=lambda: StubSource(40))
    bench.run_until(reached_ten.is_set)
    bench.run_until(lambda: any(isinstance(message, End) for message in bench.desk.producer.messages))
    bench.run()
    assert sum(record.message == "worker.out_of_reach" for record in caplog.records) == 1, "it is said once"
    assert bench.desk.count("retries_total", worker="ingest", target="store") > 1
    outage.clear()
    bench.run_until(lambda: bench.state() is StreamState.ENDED)
    assert [frame.seq for frame in frames_of(bench.desk.producer.messages)][:40] == list(range(40))


def test_a_bus_out_of_reach_is_retried_and_readers_go_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moodline.services.ingest.worker._RETRY_S", 0.0)
    bench.consumer.errors = [BusUnavailableError("no broker") for _ in range(5)]
    add_stream(bench.desk)
    bench.run_until(lambda: bench.state() is StreamState.ENDED and not bench.consumer.errors)
    assert bench.desk.count("retries_total", worker="ingest", target="bus") == 5


def test_run_stops_everything_quickly(benches: Callable[..., Bench]) -> None:
    bench = benches(turned=False, applies=False, credit_frames=4)
    ids = ["a", "b", "c"]
    for name in ids:
        add_stream(bench.desk, name)
    thread = threading.Thread(target=bench.worker.run, args=(bench.stop,))
    thread.start()
    deadline_s = time.monotonic() + 20
    while not all(len(sent(bench, name)) == 4 for name in ids):
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    assert bench.desk.count("worker_up", worker="ingest") == 1
    started_s = time.monotonic()
    bench.stop.set()
    thread.join(5.0)
    assert not thread.is_alive()
    assert time.monotonic() - started_s < 2.0
    assert bench.consumer.closed
    assert bench.desk.count("worker_up", worker="ingest") == 0
    assert not any(isinstance(message, End) for message in bench.desk.producer.messages)
    assert {bench.state(name) for name in ids} == {StreamState.PENDING}
