"""One reader: every sampled frame becomes one message, in order, whatever happens; and it never runs ahead of its credit."""

import dataclasses
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from moodline.services.ingest.file.patience import Patience
from moodline.services.ingest.file.reader import BusFaultError, FileReader, StalledError
from moodline.services.ingest.file.reader_thread import ReaderThread
from moodline.services.ingest.media.frames import DecodedFrame, Ending
from moodline.services.ingest.stream.crashes import Crashes
from moodline.services.ingest.stream.outcome import Outcome
from moodline.shared.bus import Position
from moodline.shared.errors import DeliveryError, SourceError, StoreUnavailableError
from moodline.shared.messages import DropReason, End, Frame, Message, PipelineStep, StreamClass, topic
from moodline.shared.store import HighWaterMark, TimelineUpdate
from moodline.shared.streams import FailureReason, StreamSpec, StreamState, StreamStatus
from tests.support.ingest_doubles import NOW_S, Desk, StubSource, add_stream, apply, frames_of, open_desk
from tests.support.servers import wait_until

DeskOpener = Callable[..., Desk]


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[DeskOpener]:
    opened: list[Desk] = []

    def make(**settings: object) -> Desk:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        desk = open_desk(folder, **settings)  # type: ignore[arg-type]
        desk.watch.start()
        opened.append(desk)
        return desk

    yield make
    for desk in opened:
        desk.close()


def reader(desk: Desk, spec: StreamSpec, stop: threading.Event | None = None, patience: Patience | None = None) -> FileReader:
    return FileReader(spec, desk.parts, stop or threading.Event(), patience or Patience(desk.parts.settings.stall_s))


def status(desk: Desk, stream_id: str = "clip") -> StreamStatus:
    return desk.store.statuses([stream_id])[0]


def wait_for(done: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline_s, "did not come to pass"
        time.sleep(0.002)


def test_every_sampled_frame_becomes_one_message_and_the_end_follows(desks: DeskOpener) -> None:
    desk = desks()
    spec = add_stream(desk, source=lambda: StubSource(50, Fraction(30_000, 1001)), sample_fps="10", recorded_at_us=7_000_000)
    assert reader(desk, spec).run() is Outcome.ENDED
    *frames, end = desk.producer.messages
    assert isinstance(end, End)
    assert [frame.seq for frame in frames] == list(range(17))
    assert end.seq == 17
    numbers = range(0, 50, 3)
    assert [frame.event_time_us for frame in frames] == [7_000_000 + number * 1001 * 1_000_000 // 30_000 for number in numbers]
    assert end.event_time_us == 7_000_000 + 50 * 1001 * 1_000_000 // 30_000
    assert {(frame.captured_at_us, frame.lane) for frame in desk.producer.messages} == {(int(NOW_S * 1e6), StreamClass.FILE)}
    assert {message.epoch for message in desk.producer.messages} == {int(NOW_S * 1000)}
    assert set(desk.producer.topics) == {topic(PipelineStep.FRAMES, StreamClass.FILE)}
    assert set(desk.producer.keys) == {b"clip"}
    for number, frame in zip(numbers, frames_of(frames), strict=True):
        picture = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (frame.height, frame.width, 3) == (16, 16, 3)
        assert abs(int(picture.mean()) - number) <= 2
    assert status(desk).state is StreamState.ENDED
    assert desk.opened[0].closed
    assert desk.opened[0].converted == list(numbers), "only sampled frames are converted"


def test_metrics_and_status_say_what_was_done(desks: DeskOpener) -> None:
    desk = desks(step_s=0.01)
    spec = add_stream(desk, source=lambda: StubSource(20, damaged=3, broken=frozenset({4})), attempt=2)
    reader(desk, spec).run()
    assert desk.count("frames_decoded_total") == 20
    assert desk.count("decode_errors_total") == 3
    assert desk.count("frames_total", worker="ingest", lane="file") == 20
    assert desk.count("frames_skipped_total", worker="ingest", lane="file", reason="corrupt") == 1
    assert desk.count("messages_sent_total", worker="ingest", topic="moodline.frames.file.v1") == 21
    said = status(desk)
    assert (said.attempt, said.frames_sent, said.codec, said.width, said.height) == (2, 20, "stub", 16, 16)
    assert (said.source_fps, said.duration_us, said.since_us) == ("25", 800_000, int(NOW_S * 1e6))


def test_damage_is_said_before_the_timeline_is_complete_and_stays_said(desks: DeskOpener) -> None:
    desk = desks()
    ending = Ending(FailureReason.TRUNCATED, "0.8 of 2.0 s; 5 frames are damaged", 5, 2)
    spec = add_stream(desk, source=lambda: StubSource(20, ending=ending))
    told: list[StreamStatus] = []
    desk.producer.on_send = lambda message: told.append(status(desk)) if isinstance(message, End) else None
    assert reader(desk, spec).run() is Outcome.ENDED
    assert [(said.state, said.reason, said.detail) for said in told] == [(StreamState.PLAYING, ending.reason, ending.detail)]
    for _ in range(2):
        said = status(desk)
        assert (said.state, said.reason, said.detail) == (StreamState.ENDED, ending.reason, ending.detail)
        assert (said.frames_decoded, said.frames_corrupt, said.frames_lost, said.played_us) == (20, 5, 2, 800_000)
        # A worker that starts anew finds the timeline complete.
        assert reader(desk, spec).run() is Outcome.ENDED
    assert desk.count("files_ended_total", ending="truncated") == 1
    assert desk.count("file_damaged_frames_total", kind="corrupt") == 3
    assert desk.count("file_damaged_frames_total", kind="lost") == 2


def test_pictures_are_reduced_to_the_streams_limit(desks: DeskOpener) -> None:
    desk = desks()
    reader(desk, add_stream(desk, source=lambda: StubSource(2, side_px=100), max_side_px=64)).run()
    assert {(frame.width, frame.height) for frame in frames_of(desk.producer.messages)} == {(64, 64)}


@pytest.mark.parametrize("stands_at", [0, 7, 18, 19])
def test_reading_on_gives_the_very_same_messages(desks: DeskOpener, stands_at: int) -> None:
    whole = desks()
    reader(whole, add_stream(whole)).run()
    desk = desks()
    spec = add_stream(desk)
    for message in whole.producer.messages[: stands_at + 1]:
        assert apply(desk.store, message)
    assert reader(desk, spec).run() is Outcome.ENDED
    first, epoch = stands_at + 1, desk.producer.messages[0].epoch
    assert epoch > whole.producer.messages[0].epoch
    assert [content(message) for message in desk.producer.messages] == [
        content(message) for message in whole.producer.messages[first:]
    ]
    assert desk.opened[0].converted == list(range(first, 20)), "frames that are in the timeline are not converted again"


def test_a_complete_timeline_is_only_said_to_be_complete(desks: DeskOpener) -> None:
    desk = desks()
    spec = add_stream(desk)
    reader(desk, spec).run()
    sent = len(desk.producer.messages)
    assert reader(desk, spec).run() is Outcome.ENDED
    assert len(desk.producer.messages) == sent
    assert (status(desk).state, status(desk).codec) == (StreamState.ENDED, "stub")
    assert len(desk.opened) == 1


@pytest.mark.parametrize(
    ("settings", "side_px", "frames_out"),
    [
        pytest.param({"credit_frames": 8}, 16, 8, id="frames"),
        # 600 x 600 px of one grey are some 6 kB of JPEG.
        pytest.param({"credit_frames": 4096, "credit_bytes": 1 << 20}, 600, None, id="bytes"),
    ],
)
def test_never_further_ahead_than_the_credit(
    desks: DeskOpener, settings: dict[str, int], side_px: int, frames_out: int | None
) -> None:
    desk = desks(applies=False, **settings)
    spec = add_stream(desk, source=lambda: StubSource(400, side_px=side_px))
    applied, most = 0, [0, 0]
    thread = ReaderThread(spec, desk.parts)
    thread.start()
    # Nothing is applied before the reader waits: it asks the store only then.
    wait_for(lambda: bool(desk.watch._waiting))
    while thread.is_alive:
        sent = desk.producer.of("clip")
        out = frames_of(sent[applied:])
        most = [max(most[0], len(out)), max(most[1], sum(len(frame.jpeg) for frame in out))]
        if applied < len(sent):
            assert apply(desk.store, sent[applied])
            applied += 1
        else:
            time.sleep(0.001)
    assert thread.outcome is Outcome.ENDED
    if frames_out is not None:
        assert most[0] == frames_out
    else:
        assert (1 << 20) - 64_000 < most[1] < (1 << 20) + 8_000


def test_ten_thousand_frames_take_no_memory(desks: DeskOpener) -> None:
    desk = desks(credit_frames=64)
    spec = add_stream(desk, source=lambda: StubSource(10_000, side_px=8))
    kept: list[Message] = desk.producer.messages
    peaks: list[int] = []

    def forget(message: Message) -> None:
        kept.clear()
        desk.producer.keys.clear()
        desk.producer.topics.clear()
        desk.opened[0].converted.clear()
        if message.seq in (1000, 9999):
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()

    desk.producer.on_send = forget
    tracemalloc.start()
    try:
        assert reader(desk, spec).run() is Outcome.ENDED
    finally:
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000


def test_a_frame_that_cannot_be_encoded_leaves_no_hole(desks: DeskOpener) -> None:
    desk = desks()
    assert reader(desk, add_stream(desk, source=lambda: StubSource(5, broken=frozenset({0, 3})))).run() is Outcome.ENDED
    frames = frames_of(desk.producer.messages)
    assert [(frame.seq, frame.skip, bool(frame.jpeg)) for frame in frames] == [
        (0, DropReason.CORRUPT, False),
        (1, None, True),
        (2, None, True),
        (3, DropReason.CORRUPT, False),
        (4, None, True),
    ]


def test_a_frame_larger_than_the_bus_takes_leaves_no_hole(desks: DeskOpener) -> None:
    desk = desks(limit_bytes=300)
    assert reader(desk, add_stream(desk, source=lambda: StubSource(3))).run() is Outcome.ENDED
    assert [(frame.seq, frame.skip, frame.width) for frame in frames_of(desk.producer.messages)] == [
        (seq, DropReason.CORRUPT, 16) for seq in range(3)
    ]


def test_a_full_bus_is_waited_for(desks: DeskOpener) -> None:
    desk = desks()
    desk.producer.full_times = 3
    assert reader(desk, add_stream(desk)).run() is Outcome.ENDED
    assert [message.seq for message in desk.producer.messages] == list(range(21))
    assert desk.count("retries_total", worker="ingest", target="bus") == 3


@pytest.mark.parametrize("reason", list(FailureReason))
def test_a_source_that_cannot_be_read_fails_the_stream_with_its_reason(desks: DeskOpener, reason: FailureReason) -> None:
    desk = desks()

    def refuse() -> StubSource:
        raise SourceError(reason, "a clear sentence")

    assert reader(desk, add_stream(desk, source=refuse, attempt=1)).run() is Outcome.FAILED
    said = status(desk)
    assert (said.state, said.reason, said.detail, said.attempt) == (StreamState.FAILED, reason, "a clear sentence", 1)
    assert desk.producer.messages == []


def test_a_source_that_breaks_in_its_middle_fails_the_stream(desks: DeskOpener) -> None:
    desk = desks()
    error = SourceError(FailureReason.CORRUPT, "no further")
    assert reader(desk, add_stream(desk, source=lambda: StubSource(raises_at={4: error}))).run() is Outcome.FAILED
    assert [message.seq for message in desk.producer.messages] == [0, 1, 2, 3]
    assert desk.opened[0].closed


def test_an_impossible_rate_fails_the_stream(desks: DeskOpener) -> None:
    desk = desks()
    assert reader(desk, add_stream(desk, sample_fps="0")).run() is Outcome.FAILED
    assert "sample_fps" in status(desk).detail


def test_a_newer_claim_ends_the_reader_at_its_next_word(desks: DeskOpener) -> None:
    desk = desks(step_s=0.6)
    spec = add_stream(desk, source=lambda: StubSource(5_000))
    desk.producer.on_send = lambda message: message.seq == 10 and desk.store.acquire("clip", NOW_S)
    assert reader(desk, spec).run() is Outcome.FENCED
    assert 10 < len(desk.producer.messages) < 20
    assert status(desk).state is StreamState.PLAYING, "what the fenced reader has to say does not count"


def test_a_newer_sessions_frames_end_the_reader(desks: DeskOpener) -> None:
    desk = desks(applies=False, credit_frames=4)
    spec = add_stream(desk)
    update = TimelineUpdate(
        stream_id="clip",
        expected=None,
        high_water_mark=HighWaterMark(int(NOW_S * 1000) + 99, 0),
        final=False,
        position=Position("t", 0, 0),
        state=b"",
        last_event_time_us=0,
    )
    desk.producer.on_send = lambda message: message.seq == 3 and desk.store.apply([update])
    assert reader(desk, spec).run() is Outcome.FENCED


@pytest.mark.parametrize("registered_again", [False, True])
def test_a_removed_stream_is_given_up(desks: DeskOpener, registered_again: bool) -> None:
    desk = desks(applies=False, credit_frames=4)
    spec = add_stream(desk)

    def remove(message: Message) -> None:
        if message.seq == 3:
            desk.store.remove("clip")
            if registered_again:
                desk.store.add(spec)

    desk.producer.on_send = remove
    assert reader(desk, spec).run() is Outcome.GONE
    assert len(desk.producer.messages) == 4


def test_a_stream_that_was_removed_before_the_claim_is_given_up(desks: DeskOpener) -> None:
    desk = desks()
    spec = add_stream(desk)
    desk.store.remove("clip")
    assert reader(desk, spec).run() is Outcome.GONE


def test_stopping_while_out_of_credit_is_prompt_and_sends_no_end(desks: DeskOpener) -> None:
    desk = desks(applies=False, credit_frames=4)
    thread = ReaderThread(add_stream(desk), desk.parts)
    thread.start()
    wait_for(lambda: len(desk.producer.messages) == 4)
    started_s = time.monotonic()
    thread.stop()
    desk.watch.wake()
    assert thread.join(5.0)
    assert time.monotonic() - started_s < 0.4
    assert thread.outcome is Outcome.STOPPED
    assert all(isinstance(message, Frame) for message in desk.producer.messages)
    assert status(desk).state is StreamState.PENDING
    assert desk.opened[0].closed


def test_a_source_that_was_told_to_stop_has_not_come_to_its_end(desks: DeskOpener) -> None:
    desk, stop = desks(), threading.Event()
    spec = add_stream(desk, source=lambda: StubSource(1000))
    desk.producer.on_send = lambda message: message.seq == 5 and stop.set()
    assert reader(desk, spec, stop).run() is Outcome.STOPPED
    assert not any(isinstance(message, End) for message in desk.producer.messages)


def test_a_source_that_finds_nothing_more_for_long_is_told_to_stop(desks: DeskOpener) -> None:
    class Damaged(StubSource):
        def frames(self) -> Iterator[DecodedFrame]:
            yield from super().frames()
            wait_for(self.cancelled)

    desk = desks()
    thread = ReaderThread(add_stream(desk, source=lambda: Damaged(3)), desk.parts)
    thread.start()
    wait_for(lambda: len(desk.producer.messages) == 3)
    thread.stop()
    assert thread.join(2.0)
    assert thread.outcome is Outcome.STOPPED


def test_lost_records_are_found_by_the_flush_and_read_again(desks: DeskOpener) -> None:
    desk = desks()
    desk.producer.lose_next, desk.producer.flush_errors = 1, 1
    thread = ReaderThread(add_stream(desk), desk.parts, back_off_s=(0.0,))
    thread.start()
    assert thread.join(20.0)
    assert thread.outcome is Outcome.ENDED
    assert desk.store.load(["clip"])[0].final
    assert desk.parts.faults.count == 1
    assert desk.count("reader_restarts_total", cause="bus") == 1
    epochs = sorted({message.epoch for message in desk.producer.messages})
    assert len(epochs) == 2
    assert [message.seq for message in desk.producer.messages if message.epoch == epochs[1]] == list(range(21))


def test_a_reader_that_waits_in_vain_asks_the_bus_whether_it_has_everything(desks: DeskOpener) -> None:
    desk = desks(applies=False, credit_frames=4, step_s=0.3, stall_s=1e6)
    desk.producer.flush_errors = 1
    with pytest.raises(DeliveryError):
        reader(desk, add_stream(desk)).run()
    assert len(desk.producer.messages) == 4


def test_frames_of_cameras_that_were_lost_are_nothing_to_read_a_file_again_for(desks: DeskOpener) -> None:
    desk = desks()
    desk.producer.flush_errors, desk.producer.lost_topics = 1, frozenset({topic(PipelineStep.FRAMES, StreamClass.LIVE)})
    assert reader(desk, add_stream(desk)).run() is Outcome.ENDED
    desk = desks()
    desk.producer.flush_errors, desk.producer.lost_topics = 1, frozenset(topic(PipelineStep.FRAMES, lane) for lane in StreamClass)
    with pytest.raises(DeliveryError):
        reader(desk, add_stream(desk)).run()


def test_records_that_another_reader_lost_are_read_again_too(desks: DeskOpener) -> None:
    desk = desks()

    def lose(message: Message) -> None:
        desk.parts.faults.count += message.seq == 5

    desk.producer.on_send = lose
    with pytest.raises(BusFaultError):
        reader(desk, add_stream(desk)).run()


def test_a_timeline_that_stands_still_is_read_again_from_its_mark(desks: DeskOpener) -> None:
    desk = desks(step_s=0.3, stall_s=2.0)
    # The first record is lost for good: the timeline cannot begin until the file is read again.
    desk.producer.lose_next = 1
    thread = ReaderThread(add_stream(desk), desk.parts)
    thread.start()
    assert thread.join(20.0)
    assert thread.outcome is Outcome.ENDED
    assert desk.count("reader_restarts_total", cause="stall") == 1
    assert desk.producer.flushes >= 2, "before it doubts the pipeline it asks the bus"


def test_frames_that_stay_lost_are_sent_again_and_again_and_the_stream_says_so(desks: DeskOpener) -> None:
    desk = desks(step_s=0.5, stall_s=1.0, applies=False)
    spec, states = add_stream(desk), []
    thread = ReaderThread(spec, desk.parts)
    thread.start()
    wait_until(lambda: len(desk.opened) >= 5, 60.0, "five readings")
    states.append(status(desk))
    thread.stop()
    desk.parts.watch.wake()
    assert thread.join(20.0)
    assert thread.outcome is Outcome.STOPPED, "it never fails for want of the other workers"
    assert states[0].state in (StreamState.STALLED, StreamState.PLAYING)
    assert desk.count("reader_restarts_total", cause="stall") >= 4


def test_patience_doubles_at_one_mark_up_to_a_limit_and_begins_anew_at_the_next() -> None:
    patience, high_water_mark = Patience(10.0), HighWaterMark(1, 5)
    seen = [(patience.limit_s(high_water_mark), patience.try_again(high_water_mark)) for _ in range(8)]
    assert seen == [(10.0, 1), (20.0, 2), (40.0, 3), (80.0, 4), (160.0, 5), (320.0, 6), (320.0, 7), (320.0, 8)]
    assert (patience.limit_s(HighWaterMark(2, 6)), patience.try_again(HighWaterMark(2, 6))) == (10.0, 1)


def test_a_store_out_of_reach_is_no_standstill(desks: DeskOpener, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = desks(stall_s=60.0, applies=False, credit_frames=4)
    spec = add_stream(desk)
    standings, outage = desk.store.standings, threading.Event()

    def failing(ids: list[str]) -> object:
        if outage.is_set():
            raise StoreUnavailableError("gone")
        return standings(ids)

    monkeypatch.setattr(desk.store, "standings", failing)
    desk.producer.on_send = lambda message: message.seq == 3 and outage.set()
    thread = ReaderThread(spec, desk.parts)
    thread.start()
    wait_for(lambda: desk.count("retries_total", worker="ingest", target="store") >= 3)
    # Hours go by on the clock, but nobody could see the timeline.
    desk.parts.clock.step_s = 600.0  # type: ignore[attr-defined]
    outage.clear()
    wait_for(lambda: desk.watch.watched_s > 0)
    desk.parts.clock.step_s = 0.0  # type: ignore[attr-defined]
    assert desk.watch.watched_s < 60.0
    assert desk.count("reader_restarts_total", cause="stall") == 0
    thread.stop()
    desk.watch.wake()
    assert thread.join(5.0)


def test_a_crash_takes_down_one_reader_and_it_starts_again(desks: DeskOpener, caplog: pytest.LogCaptureFixture) -> None:
    desk = desks()
    crashes = [RuntimeError("bug"), RuntimeError("bug")]

    def crashing() -> StubSource:
        return StubSource(raises_at={6: crashes.pop()} if crashes else {})

    threads = [
        ReaderThread(add_stream(desk, "fine"), desk.parts),
        ReaderThread(add_stream(desk, "broken", crashing), desk.parts, back_off_s=(0.001,)),
    ]
    for thread in threads:
        thread.start()
    assert all(thread.join(20.0) for thread in threads)
    assert [thread.outcome for thread in threads] == [Outcome.ENDED, Outcome.ENDED]
    assert desk.count("reader_restarts_total", cause="crash") == 2
    assert sum(record.message == "reader.crashed" and record.exc_info is not None for record in caplog.records) == 2
    for stream_id in ("fine", "broken"):
        assert desk.store.load([stream_id])[0].high_water_mark.seq == 20
    assert len({message.epoch for message in desk.producer.of("fine")}) == 1


def test_a_reader_that_crashes_in_the_same_way_says_so_and_is_tried_ever_more_seldom(desks: DeskOpener) -> None:
    desk = desks()
    spec = add_stream(desk, "broken", lambda: StubSource(raises_at={0: RuntimeError("rtsp://user:c4n4ry@cam")}))
    thread = ReaderThread(spec, desk.parts, crash_pauses_s=(0.001, 0.001, 0.001, 60.0))
    thread.start()
    wait_for(lambda: "in the same way 4 times" in status(desk, "broken").detail)
    said = status(desk, "broken")
    assert (said.state, said.reason) == (StreamState.BACKING_OFF, FailureReason.INTERNAL)
    assert said.detail.startswith("reading crashed (RuntimeError at ingest_doubles.py:")
    assert "tried again in 60 s" in said.detail
    assert "c4n4ry" not in said.detail
    assert desk.count("reader_crashes_total", lane="file") == 4
    thread.stop()
    assert thread.join(5.0)


def test_pauses_after_crashes_grow_while_they_are_alike() -> None:
    crashes = Crashes((1.0, 10.0, 100.0))

    assert [crashes.add("A at a.py:1") for _ in range(4)] == [1.0, 10.0, 100.0, 100.0]
    assert crashes.add("B at a.py:2") == 1.0
    assert crashes.add("B at a.py:2") == 10.0
    crashes.forget()
    assert crashes.add("B at a.py:2") == 1.0


def test_a_reader_that_cannot_deliver_says_that_it_backs_off(desks: DeskOpener) -> None:
    desk = desks()
    desk.producer.flush_errors = 1
    desk.producer.lose_next = 100
    thread = ReaderThread(add_stream(desk), desk.parts, back_off_s=(30.0,))
    thread.start()
    wait_for(lambda: status(desk).state is StreamState.BACKING_OFF)
    assert not thread.is_decoding
    thread.stop()
    assert thread.join(1.0)
    assert thread.outcome is Outcome.STOPPED


def test_the_raw_reader_lets_its_supervisor_know(desks: DeskOpener) -> None:
    desk = desks(step_s=0.5, stall_s=1.0, applies=False)
    spec = add_stream(desk)
    with pytest.raises(StalledError):
        reader(desk, spec).run()
    assert status(desk).state is StreamState.STALLED
    desk.producer.flush_errors = 1
    with pytest.raises(DeliveryError):
        reader(desk, spec).run()


def content(message: Message) -> tuple[object, ...]:
    """What decides the timeline: all but the epoch."""
    if isinstance(message, Frame):
        return message.seq, message.event_time_us, message.jpeg, message.width, message.height, message.skip
    return message.seq, message.event_time_us, "end"


LETTER = "ValueError in the detector, dead letter of moodline.frames.file.v1/3@1234"


def poison(desk: Desk, seqs: set[int]) -> None:
    """A worker fails on these frames, unless they come without a picture."""

    def on_send(message: Message) -> None:
        if isinstance(message, Frame) and message.seq in seqs and message.jpeg:
            desk.store.add_failure(message.stream_id, message.epoch, message.seq, LETTER)
            desk.producer.lose_next = 1

    desk.producer.on_send = on_send


def said_by(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[StreamStatus]:
    """Every status that is written from now on."""
    said: list[StreamStatus] = []
    set_status = desk.store.set_status

    def write(stream_id: str, epoch: int, status: StreamStatus) -> bool:
        said.append(status)
        return set_status(stream_id, epoch, status)

    monkeypatch.setattr(desk.store, "set_status", write)
    return said


def test_a_frame_on_which_a_worker_fails_again_and_again_is_left_out_and_named(
    desks: DeskOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desks(step_s=0.25, stall_s=1e6)
    spec = add_stream(desk)
    poison(desk, {7, 12})
    thread = ReaderThread(spec, desk.parts)
    said = said_by(desk, monkeypatch)
    thread.start()
    wait_for(lambda: thread.outcome is Outcome.ENDED)
    of_frame = [detail for detail in stalls(said) if detail.startswith("frame 7")]
    assert of_frame[0] == f"frame 7 failed for the 1. time, it is tried again: {LETTER}"
    assert len(of_frame) == 3
    assert "it is left out now" in of_frame[-1]
    sent = frames_of(desk.producer.of("clip"))
    for seq in (7, 12):
        assert [frame.skip for frame in sent if frame.seq == seq][-1] is DropReason.CORRUPT
        assert sum(frame.seq == seq and bool(frame.jpeg) for frame in sent) == 3, "it is tried as often as the settings say"
    assert {frame.seq for frame in sent if frame.skip is not None} == {7, 12}, "all others keep their pictures"
    assert desk.store.standings(["clip"])[0].final  # type: ignore[union-attr]
    assert desk.count("frames_skipped_total", worker="ingest", lane="file", reason="corrupt") >= 2
    assert status(desk).state is StreamState.ENDED
    assert status(desk).detail.endswith(LETTER), "its dead letter is named for good"


def test_where_many_frames_fail_the_worker_is_broken_and_none_is_left_out(
    desks: DeskOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desks(step_s=1.0, stall_s=2.0)
    spec = add_stream(desk)
    poison(desk, set(range(2, 20)))
    thread = ReaderThread(spec, desk.parts)
    said = said_by(desk, monkeypatch)
    thread.start()
    wait_for(lambda: sum(each.state is StreamState.STALLED for each in said) >= 3)
    assert "18 of its frames failed" in next(each.detail for each in said if each.state is StreamState.STALLED)
    assert all(frame.skip is None for frame in frames_of(desk.producer.of("clip")))
    desk.producer.on_send = None
    wait_for(lambda: thread.outcome is Outcome.ENDED)
    assert all(frame.skip is None for frame in frames_of(desk.producer.of("clip"))), "nothing was lost by it"


def test_a_timeline_that_stands_still_is_said_with_how_long_and_where_until_it_moves(
    desks: DeskOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desks(step_s=0.5, stall_s=1e6, applies=False, credit_frames=4)
    spec = add_stream(desk, source=lambda: StubSource(8))
    said = said_by(desk, monkeypatch)
    parts = dataclasses.replace(
        desk.parts, waiting=lambda name, lane, still_s: f"{name} ({lane}) waits for the classifier, {still_s:.0f} s"
    )
    thread = ReaderThread(spec, parts)
    thread.start()
    wait_for(lambda: len(stalls(said)) == 2)
    first_s, second_s = (float(detail.split()[-2]) for detail in stalls(said))
    assert 10 <= first_s < 15
    assert second_s >= 20
    for message in desk.producer.of("clip"):
        apply(desk.store, message)
    wait_for(lambda: said[-1].state is StreamState.PLAYING)
    thread.stop()
    desk.watch.wake()
    assert thread.join(5.0)


def stalls(said: list[StreamStatus]) -> list[str]:
    """What was said of a standstill, each sentence once."""
    return list(dict.fromkeys(each.detail for each in said if each.state is StreamState.STALLED))
