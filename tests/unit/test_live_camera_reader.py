"""The worker's side of a camera: sessions, numbers, states, back-off, and what it does without bus or store."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from moodline.services.ingest.camera.reader import CameraParts, CameraThread
from moodline.services.ingest.live.records import Failed, Job, Opened, Record, Sample, Stats
from moodline.services.ingest.stream.back_off import BackOff
from moodline.services.ingest.stream.outcome import Outcome
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import InvalidStreamError, SealError, SourceError, StoreUnavailableError
from moodline.shared.messages import DropReason, Frame, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.settings import IngestSettings
from moodline.shared.store import Store
from moodline.shared.streams import FailureReason, StreamSpec, StreamState, StreamStatus
from tests.support.ingest_doubles import NOW_S, RecordingProducer, frames_of, open_store

CANARY = "c4n4ry-pw"
NOW_US = int(NOW_S * 1e6)


class TestClock:
    """Wall time stands; monotonic time goes on only as the test says."""

    __test__ = False

    def __init__(self) -> None:
        self.at_s = 1000.0

    def now_s(self) -> float:
        return NOW_S

    def monotonic_s(self) -> float:
        return self.at_s

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here may sleep")


class FakeLink:
    """A camera's process as the worker sees it; the test puts in what it says."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.said: queue.Queue[Record | Exception | None] = queue.Queue()
        self.closed = threading.Event()

    def set_state(self, *records: Record | Exception) -> None:
        for record in records:
            self.said.put(record)

    def time_out(self) -> None:
        self.said.put(None)

    def next(self, timeout_s: float) -> Record | None:
        item = self.said.get(timeout=20.0)
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            self.said.put(SourceError(FailureReason.CORRUPT, "the process is gone"))


@dataclass
class Yard:
    """One camera with everything around it."""

    store: Store
    producer: RecordingProducer
    metrics: Metrics
    clock: TestClock
    settings: IngestSettings
    links: "queue.Queue[FakeLink]" = field(default_factory=queue.Queue)
    address: Callable[[StreamSpec], CameraAddress] | None = None
    threads: list[CameraThread] = field(default_factory=list)

    def start(self, **fields: object) -> CameraThread:
        spec = StreamSpec(stream_id="cam", url="rtsp://cam.test/1", lane=StreamClass.LIVE, **fields)  # type: ignore[arg-type]
        parts = CameraParts(
            self.producer, self.store, self.settings, self.metrics, self.clock, self._open, self.address or self._address
        )
        thread = CameraThread(self.store.add(spec), parts)
        self.threads.append(thread)
        thread.start()
        return thread

    def link(self) -> FakeLink:
        return self.links.get(timeout=20.0)

    def _open(self, job: Job) -> FakeLink:
        link = FakeLink(job)
        self.links.put(link)
        return link

    def _address(self, spec: StreamSpec) -> CameraAddress:
        return CameraAddress("rtsp", "cam.test", 554, "/1", "user", CANARY)

    @property
    def status(self) -> StreamStatus:
        return self.store.statuses(["cam"])[0]

    @property
    def frames(self) -> list[Frame]:
        return frames_of(self.producer.of("cam"))

    def wait(self, done: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 20.0
        while not done():
            assert time.monotonic() < deadline_s, f"did not come to pass: {self.status}"
            time.sleep(0.001)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"moodline_{name}", labels) or 0.0


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    settings = IngestSettings(backoff_min_s=0.001, backoff_max_s=0.002)
    made = Yard(open_store(tmp_path), RecordingProducer(), Metrics(), TestClock(), settings)
    yield made
    for thread in made.threads:
        thread.stop()
    assert all(thread.join(10.0) for thread in made.threads)
    made.store.close()


OPENED = Opened(codec="h264", width=640, height=360, fps="25")


def sample(number: int, segment: int = 0, **fields: object) -> Sample:
    at_us = NOW_US + number * 200_000
    given = {"event_time_us": at_us, "captured_at_us": at_us, "segment": segment, "width": 4, "height": 2, "jpeg": b"jpeg"}
    return Sample(**{**given, **fields})  # type: ignore[arg-type]


def stats(**fields: object) -> Stats:
    given = {"decoded": 0, "damaged": 0, "packets": 0, "lost_packets": 0, "last_frame_us": 0, "fps": 25.0}
    return Stats(**{**given, "width": 640, "height": 360, "clock_offset_ms": None, **fields})  # type: ignore[arg-type]


def test_samples_become_numbered_live_frames_under_one_session(yard: Yard) -> None:
    yard.start()
    link = yard.link()
    link.set_state(OPENED, sample(0), sample(1, skip=DropReason.OVERLOADED, jpeg=b"", width=0, height=0), sample(2))
    yard.wait(lambda: len(yard.frames) == 3)
    assert [(frame.seq, frame.skip, frame.lane) for frame in yard.frames] == [
        (0, None, StreamClass.LIVE),
        (1, DropReason.OVERLOADED, StreamClass.LIVE),
        (2, None, StreamClass.LIVE),
    ]
    assert len({frame.epoch for frame in yard.frames}) == 1
    assert [frame.event_time_us for frame in yard.frames] == [NOW_US, NOW_US + 200_000, NOW_US + 400_000]
    assert set(yard.producer.topics) == {"moodline.frames.live.v1"}
    assert yard.status.state is StreamState.LIVE
    assert (yard.status.codec, yard.status.width, yard.status.source_fps) == ("h264", 640, "25")
    assert yard.count("frames_skipped_total", worker="ingest", lane="live", reason="overloaded") == 1
    assert yard.count("camera_connections_total", result="live") == 1


def test_the_process_gets_the_whole_address_and_the_streams_wishes(yard: Yard) -> None:
    yard.start(sample_fps="2", max_side_px=640)
    job = yard.link().job
    assert (job.host, job.username, job.password, job.sample_fps, job.max_side_px) == ("cam.test", "user", CANARY, "2", 640)
    assert CANARY not in repr(job)


@pytest.mark.parametrize("reason", [reason for reason in FailureReason if reason is not FailureReason.FORBIDDEN_URL])
def test_whatever_ends_a_connection_it_is_tried_again_under_a_new_session(yard: Yard, reason: FailureReason) -> None:
    yard.start()
    first = yard.link()
    first.set_state(OPENED, sample(0), Failed(reason=reason, detail="a fixed sentence"))
    second = yard.link()
    assert first.closed.is_set()
    second.set_state(OPENED, sample(5))
    yard.wait(lambda: len(yard.frames) == 2)
    one, two = yard.frames
    assert two.epoch > one.epoch
    assert (one.seq, two.seq) == (0, 0)
    assert yard.count("camera_connections_total", result=reason) == 1


def test_while_it_backs_off_the_registry_says_why_how_often_and_until_when(yard: Yard) -> None:
    yard.settings = IngestSettings(backoff_min_s=30.0, backoff_max_s=60.0)
    thread = yard.start()
    yard.link().set_state(Failed(reason=FailureReason.AUTH, detail="the camera does not accept user or password"))
    yard.wait(lambda: yard.status.state is StreamState.BACKING_OFF)
    said = yard.status
    assert (said.reason, said.detail, said.attempts) == (
        FailureReason.AUTH,
        "the camera does not accept user or password",
        1,
    )
    assert NOW_US + 30_000_000 <= said.next_attempt_us <= NOW_US + 60_000_000
    thread.stop()
    assert thread.join(5.0), "a pause ends at once"
    assert thread.outcome is Outcome.STOPPED
    assert yard.status.state is StreamState.PENDING


def test_a_process_that_hangs_is_ended_before_the_pause_not_after_it(yard: Yard) -> None:
    yard.settings = IngestSettings(backoff_min_s=30.0, backoff_max_s=60.0)
    yard.start()
    link = yard.link()
    link.set_state(OPENED)
    link.time_out()
    yard.wait(lambda: yard.status.state is StreamState.BACKING_OFF)
    assert link.closed.wait(5.0)


def test_an_address_that_may_not_be_read_fails_for_good(yard: Yard) -> None:
    thread = yard.start(attempt=3)
    yard.link().set_state(Failed(reason=FailureReason.FORBIDDEN_URL, detail="no"))
    assert thread.join(10.0)
    assert thread.outcome is Outcome.FAILED
    assert (yard.status.state, yard.status.reason, yard.status.attempt) == (
        StreamState.FAILED,
        FailureReason.FORBIDDEN_URL,
        3,
    )


def test_a_process_that_says_nothing_any_more_is_ended(yard: Yard) -> None:
    yard.start()
    first = yard.link()
    first.set_state(OPENED)
    first.time_out()
    yard.link()
    assert first.closed.is_set()
    assert yard.count("camera_connections_total", result="timeout") == 1


def test_no_frames_for_half_of_the_time_out_is_stalled_and_frames_heal_it(yard: Yard) -> None:
    yard.start()
    link = yard.link()
    link.set_state(OPENED, sample(0), stats(decoded=1, last_frame_us=1))
    yard.wait(lambda: yard.count("frames_decoded_total") == 1)
    assert yard.status.state is StreamState.LIVE
    yard.clock.at_s += 2.6
    link.set_state(stats(decoded=1, last_frame_us=1))
    yard.wait(lambda: yard.status.state is StreamState.STALLED)
    link.set_state(stats(decoded=2, last_frame_us=2))
    yard.wait(lambda: yard.status.state is StreamState.LIVE)
    assert yard.count("frames_decoded_total") == 2


def test_a_camera_whose_timeline_stands_still_is_stalled_until_it_moves(yard: Yard) -> None:
    thread = yard.start()
    link = yard.link()
    link.set_state(OPENED, sample(0), stats(decoded=1, last_frame_us=1))
    yard.wait(lambda: yard.count("frames_decoded_total") == 1)
    thread.timeline_stands("frames wait for the classifier")
    link.set_state(stats(decoded=2, last_frame_us=2))
    yard.wait(lambda: yard.status.state is StreamState.STALLED)
    assert yard.status.detail == "frames wait for the classifier"
    thread.timeline_stands("")
    link.set_state(stats(decoded=3, last_frame_us=3))
    yard.wait(lambda: yard.status.state is StreamState.LIVE)


def test_what_was_measured_is_in_the_registry_and_in_the_metrics(yard: Yard) -> None:
    yard.start()
    link = yard.link()
    link.set_state(OPENED)
    yard.wait(lambda: yard.status.state is StreamState.LIVE)
    yard.clock.at_s += 1.0
    link.set_state(
        stats(decoded=50, damaged=2, packets=90, lost_packets=4, last_frame_us=77, fps=24.987, clock_offset_ms=-3600_000)
    )
    yard.wait(lambda: yard.status.last_frame_us == 77)
    said = yard.status
    assert (said.fps, said.clock_offset_ms, said.lost_packets) == (24.99, -3600_000, 4)
    assert yard.count("camera_packets_lost_total") == 4
    assert yard.count("decode_errors_total") == 2


def test_a_jump_of_the_cameras_clock_is_a_new_session_without_a_new_connection(yard: Yard) -> None:
    yard.start()
    link = yard.link()
    link.set_state(OPENED, sample(0), sample(1), sample(2, segment=1), sample(3, segment=1))
    yard.wait(lambda: len(yard.frames) == 4)
    epochs = [frame.epoch for frame in yard.frames]
    assert epochs[0] == epochs[1] < epochs[2] == epochs[3]
    assert [frame.seq for frame in yard.frames] == [0, 1, 0, 1]
    assert yard.links.empty()


def test_time_goes_on_after_what_was_sent_before(yard: Yard) -> None:
    yard.start()
    link = yard.link()
    assert link.job.not_before_us == 0
    link.set_state(OPENED, sample(7), Failed(reason=FailureReason.UNREACHABLE, detail="gone"))
    assert yard.link().job.not_before_us == NOW_US + 7 * 200_000


def test_what_a_full_bus_does_not_take_is_counted_in_the_streams_own_sequence(yard: Yard) -> None:
    yard.producer.full_times = 2
    yard.start()
    link = yard.link()
    link.set_state(OPENED, sample(0), sample(1), sample(2), sample(3))
    yard.wait(lambda: len(yard.frames) == 4)
    assert [(frame.seq, frame.skip, bool(frame.jpeg)) for frame in yard.frames] == [
        (0, DropReason.OVERLOADED, False),
        (1, DropReason.OVERLOADED, False),
        (2, None, True),
        (3, None, True),
    ]
    assert yard.count("frames_skipped_total", worker="ingest", lane="live", reason="overloaded") == 2


def test_what_the_process_could_not_even_note_is_a_hole_in_the_numbers(yard: Yard) -> None:
    yard.start()
    yard.link().set_state(OPENED, sample(0), sample(5, missed=4, skip=DropReason.OVERLOADED, jpeg=b""), sample(6))
    yard.wait(lambda: len(yard.frames) == 3)
    assert [frame.seq for frame in yard.frames] == [0, 5, 6]
    assert yard.count("frames_total", worker="ingest", lane="live") == 7


def test_a_frame_larger_than_the_bus_takes_leaves_no_hole(yard: Yard) -> None:
    yard.producer = RecordingProducer(limit_bytes=400)
    yard.start()
    yard.link().set_state(OPENED, sample(0, jpeg=bytes(1000)), sample(1))
    yard.wait(lambda: len(yard.frames) == 2)
    assert [(frame.seq, frame.skip) for frame in yard.frames] == [(0, DropReason.CORRUPT), (1, None)]


def test_another_owner_ends_it(yard: Yard) -> None:
    thread = yard.start()
    link = yard.link()
    link.set_state(OPENED, sample(0))
    yard.wait(lambda: len(yard.frames) == 1)
    theirs = yard.store.acquire("cam", NOW_S).epoch
    said = StreamStatus(state=StreamState.LIVE, detail="theirs")
    assert yard.store.set_status("cam", theirs, said)
    yard.clock.at_s += 1.0
    link.set_state(stats(decoded=1, last_frame_us=1))
    assert thread.join(10.0)
    assert thread.outcome is Outcome.FENCED
    assert link.closed.is_set()
    assert yard.status == said


def test_a_removed_stream_is_given_up(yard: Yard) -> None:
    thread = yard.start()
    link = yard.link()
    link.set_state(OPENED)
    yard.wait(lambda: yard.status.state is StreamState.LIVE)
    yard.store.remove("cam")
    link.set_state(Failed(reason=FailureReason.TIMEOUT, detail="x"))
    assert thread.join(10.0)
    assert thread.outcome in (Outcome.GONE, Outcome.FENCED)


def test_a_live_camera_goes_on_while_the_store_is_away(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.start()
    link = yard.link()
    link.set_state(OPENED, sample(0))
    yard.wait(lambda: len(yard.frames) == 1)

    def fail(*_: object) -> object:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as outage:
        outage.setattr(yard.store, "set_status", fail)
        outage.setattr(yard.store, "acquire", fail)
        yard.clock.at_s += 1.0
        link.set_state(sample(1), stats(decoded=2, last_frame_us=2), sample(2, segment=1), sample(3, segment=1))
        yard.wait(lambda: len(yard.frames) == 4)
    assert [frame.seq for frame in yard.frames] == [0, 1, 2, 3], "without a new session the old one goes on"
    link.set_state(sample(4, segment=1))
    yard.wait(lambda: len(yard.frames) == 5)
    assert yard.frames[4].seq == 0
    assert yard.frames[4].epoch > yard.frames[3].epoch


@pytest.mark.parametrize(
    ("error", "reason", "state"),
    [
        (SealError("the key is another one"), FailureReason.AUTH, StreamState.BACKING_OFF),
        (InvalidStreamError("url", "no port"), FailureReason.FORBIDDEN_URL, StreamState.FAILED),
    ],
)
def test_an_address_that_cannot_be_opened_is_said(
    yard: Yard, error: Exception, reason: FailureReason, state: StreamState
) -> None:
    yard.settings = IngestSettings(backoff_min_s=30.0)

    def refuse(_: StreamSpec) -> CameraAddress:
        raise error

    yard.address = refuse
    yard.start()
    yard.wait(lambda: yard.status.state is state)
    assert (yard.status.reason, yard.status.detail) == (reason, str(error))


def test_a_bug_takes_down_one_connection_and_its_message_stays_out_of_everything(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    yard.start()
    yard.link().set_state(RuntimeError(f"rtsp://user:{CANARY}@cam"))
    yard.link().set_state(OPENED)
    yard.wait(lambda: yard.status.state is StreamState.LIVE)
    logged = "".join(str(vars(record)) for record in caplog.records)
    assert "camera.crashed" in logged
    assert CANARY not in logged
    assert CANARY not in str(msgspec.to_builtins(yard.status))


def test_a_bug_that_comes_again_and_again_says_so_and_is_counted(yard: Yard) -> None:
    yard.start()
    for _ in range(2):
        yard.link().set_state(Failed(reason=FailureReason.INTERNAL, detail="KeyError at decoder.py:7"))
    yard.wait(lambda: "in the same way 2 times" in yard.status.detail)
    assert (yard.status.state, yard.status.reason) == (StreamState.BACKING_OFF, FailureReason.INTERNAL)
    assert "(KeyError at decoder.py:7)" in yard.status.detail
    assert yard.metrics.registry.get_sample_value("moodline_reader_crashes_total", {"lane": "live"}) == 2


def test_stopping_ends_the_process_at_once_and_leaves_the_stream_to_others(yard: Yard) -> None:
    thread = yard.start()
    link = yard.link()
    link.set_state(OPENED, sample(0))
    yard.wait(lambda: len(yard.frames) == 1)
    thread.stop()
    assert link.closed.is_set()
    assert thread.join(5.0)
    assert thread.outcome is Outcome.STOPPED
    assert yard.status.state is StreamState.PENDING


def test_pauses_double_up_to_the_limit_with_jitter_and_begin_anew_after_a_good_while() -> None:
    longest = BackOff(1.0, 60.0, uniform=lambda low, high: high)
    assert [longest.next_s() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    shortest = BackOff(1.0, 60.0, uniform=lambda low, high: low)
    assert [shortest.next_s() for _ in range(8)] == [1, 1, 2, 4, 8, 16, 30, 30]
    longest.was_live_for(59.0)
    assert longest.next_s() == 60, "a connection that lasts no longer than its pause was no success"
    longest.was_live_for(60.0)
    assert (longest.attempts, longest.next_s()) == (0, 1)


def test_years_of_failures_overflow_nothing() -> None:
    back_off = BackOff(1.0, 60.0)
    assert all(1.0 <= back_off.next_s() <= 60.0 for _ in range(5000))
