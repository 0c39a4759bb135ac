"""The hub of pushed frames: sessions, numbers, the newest frame, states, limits, and what it does without bus or store."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from moodline.services.ingest.push.hub import PushHub
from moodline.shared.errors import (
    BusUnavailableError,
    FrameError,
    FrameTooLargeError,
    MoodlineError,
    NotPushedError,
    StoreUnavailableError,
    StreamNotFoundError,
    StreamPausedError,
    StreamTakenError,
    TooBusyError,
)
from moodline.shared.messages import DropReason, Frame, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.push import Pushed
from moodline.shared.settings import IngestSettings, PushSettings, Settings, load_settings
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus
from tests.support.ingest_doubles import RecordingProducer, frames_of, open_store

NOW_S = 1_750_000_000.0
DEADLINE_S = 20.0


class TestClock:
    """Both clocks go on only as the test says."""

    __test__ = False

    def __init__(self) -> None:
        self.at_s = 1000.0

    def now_s(self) -> float:
        return NOW_S + self.at_s - 1000.0

    def monotonic_s(self) -> float:
        return self.at_s

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here may sleep")


def picture(width: int = 64, height: int = 48, shade: int = 100, quality: int = 90) -> bytes:
    image = np.full((height, width, 3), shade, np.uint8)
    image[: height // 2] = 255 - shade
    return bytes(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1])


JPEG = picture()


@dataclass
class Door:
    """A hub with everything around it, and one stream."""

    store: Store
    settings: Settings
    producer: RecordingProducer = field(default_factory=RecordingProducer)
    metrics: Metrics = field(default_factory=Metrics)
    clock: TestClock = field(default_factory=TestClock)
    hubs: list[PushHub] = field(default_factory=list)

    def hub(self, producer: Callable[[], RecordingProducer] | None = None) -> PushHub:
        made = PushHub(self.store, self.settings, self.metrics, self.clock, producer or (lambda: self.producer))
        self.hubs.append(made)
        return made

    def add(self, stream_id: str = "door", **fields: object) -> StreamSpec:
        given = {"sample_fps": "all", "created_at_us": int(self.clock.now_s() * 1e6), **fields}
        return self.store.add(StreamSpec(stream_id=stream_id, url="push://", lane=StreamClass.LIVE, **given))  # type: ignore[arg-type]

    def frames(self, stream_id: str = "door") -> list[Frame]:
        return frames_of(self.producer.of(stream_id))

    def status(self, stream_id: str = "door") -> StreamStatus:
        return self.store.statuses([stream_id])[0]

    def wait(self, done: Callable[[], bool], step_s: float = 0.0) -> None:
        """Wait for something to come to pass; the clock goes on by `step_s` every time it has not."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not done():
            self.clock.at_s += step_s
            assert time.monotonic() < deadline_s, f"did not come to pass: {self.status()}, {len(self.frames())} frames"
            time.sleep(0.002)

    def wait_for(self, state: StreamState) -> None:
        self.wait(lambda: self.status().state is state)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"moodline_{name}", labels) or 0.0


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    settings = load_settings(
        ingest=IngestSettings(read_timeout_s=5, max_pixels=4_000_000), push=PushSettings(max_streams=3, silence_s=60)
    )
    made = Door(open_store(tmp_path), settings)
    yield made
    made.producer.on_send = None
    for hub in made.hubs:
        hub.close()
    made.store.close()


def push_in_steps(door: Door, hub: PushHub, spec: StreamSpec, count: int, step_s: float = 0.04) -> list[Pushed]:
    """Push one frame after the other, each when the one before was sent on."""
    pushed = []
    for _ in range(count):
        sent = len(door.frames(spec.stream_id))
        pushed.append(hub.push(spec, JPEG))
        door.wait(lambda sent=sent, last=pushed[-1]: len(door.frames(spec.stream_id)) > sent or not last.sampled)  # type: ignore[misc]
        door.clock.at_s += step_s
    return pushed


def test_every_frame_is_one_message_in_order(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    pushed = push_in_steps(door, hub, spec, 5)
    frames = door.frames()
    assert [frame.seq for frame in frames] == [0, 1, 2, 3, 4]
    assert len({frame.epoch for frame in frames}) == 1
    assert [frame.event_time_us for frame in frames] == [one.event_time_us for one in pushed]
    assert [frame.event_time_us - int(NOW_S * 1e6) for frame in frames] == [0, 40_000, 80_000, 120_000, 160_000]
    assert {(frame.width, frame.height, frame.jpeg, frame.skip, frame.lane) for frame in frames} == {(64, 48, JPEG, None, "live")}
    assert all(one == Pushed(sampled=True, replaced=False, event_time_us=one.event_time_us, wait_ms=0) for one in pushed)


def test_the_stream_is_live_and_says_what_comes(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    assert door.status().state is StreamState.PENDING
    push_in_steps(door, hub, spec, 30, 0.1)
    door.wait(lambda: door.status().fps > 0, step_s=0.005)
    status = door.status()
    assert (status.state, status.codec, status.width, status.height) == (StreamState.LIVE, "mjpeg", 64, 48)
    assert 1 < status.fps < 12, "10 a second, then none"
    assert door.count("pushed_streams") == 1
    door.wait(lambda: door.count("frames_total", worker="ingest", lane="live") == 30)
    assert door.count("frames_decoded_total") >= 20


def test_sample_fps_chooses_and_the_sender_hears_when_the_next_is_wanted(door: Door) -> None:
    spec, hub = door.add(sample_fps="2"), door.hub()
    pushed = push_in_steps(door, hub, spec, 11, 0.1)
    assert [one.sampled for one in pushed] == [True, False, False, False, False] * 2 + [True]
    assert [one.wait_ms for one in pushed[:6]] == [500, 400, 300, 200, 100, 500]
    assert [frame.seq for frame in door.frames()] == [0, 1, 2]


def test_the_newest_frame_wins_and_the_others_are_counted(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    release, inside = threading.Event(), threading.Event()

    def hold(_message: object) -> None:
        inside.set()
        assert release.wait(DEADLINE_S)

    door.producer.on_send = hold
    hub.push(spec, JPEG)
    assert inside.wait(DEADLINE_S)
    pushed = []
    for shade in range(10):
        door.clock.at_s += 0.04
        pushed.append(hub.push(spec, picture(shade=shade)))
    assert [one.replaced for one in pushed] == [False] + [True] * 9
    assert pushed[-1].wait_ms >= 200, "a sender that is too fast is asked to slow down"
    release.set()
    door.wait(lambda: len(door.frames()) == 11)
    frames = door.frames()
    assert [frame.seq for frame in frames] == list(range(11))
    assert [frame.skip for frame in frames] == [None] + [DropReason.OVERLOADED] * 9 + [None]
    assert {frame.jpeg for frame in frames[1:10]} == {b""}
    assert frames[10].jpeg == picture(shade=9)
    assert door.count("frames_skipped_total", worker="ingest", lane="live", reason="overloaded") == 9


def test_a_slow_stream_slows_no_other(door: Door) -> None:
    slow, quick, hub = door.add("slow"), door.add("quick"), door.hub()
    release = threading.Event()
    door.producer.on_send = lambda message: release.wait(DEADLINE_S) and None if message.stream_id == "slow" else None
    hub.push(slow, JPEG)
    push_in_steps(door, hub, quick, 5)
    assert len(door.frames("quick")) == 5
    assert door.frames("slow") == []
    release.set()
    door.wait(lambda: len(door.frames("slow")) == 1)


def test_the_senders_clock_counts_within_the_tolerance(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    for number in range(5):
        door.clock.at_s += 0.1 + (0.03 if number == 3 else 0)  # one is delayed on its way
        assert hub.push(spec, JPEG, NOW_S - 2 + number / 10).event_time_us == int((NOW_S - 2 + number / 10) * 1e6)
    door.wait(lambda: door.status().clock_offset_ms == -2100, step_s=0.005)


@pytest.mark.parametrize("off_s", [3600.0, -3600.0])
def test_a_sender_whose_clock_is_off_is_not_believed(door: Door, off_s: float) -> None:
    spec, hub = door.add(), door.hub()
    times = []
    for number in range(5):
        times.append(hub.push(spec, JPEG, NOW_S + off_s + number / 10).event_time_us)
        door.clock.at_s += 0.1
    assert times == [int((NOW_S + number / 10) * 1e6) for number in range(5)]


def test_event_time_never_goes_back(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    times = []
    for back_s in (0.0, 0.5, 4.0, 0.2, 100.0, 0.0):
        door.clock.at_s += 0.05
        times.append(hub.push(spec, JPEG, door.clock.now_s() - back_s).event_time_us)
    again = door.hub()
    times.append(again.push(spec, JPEG, door.clock.now_s() - 3).event_time_us)
    assert times[:-1] == sorted(set(times[:-1]))


def test_one_that_has_lost_the_stream_does_not_take_it_back_when_a_clock_is_set(door: Door) -> None:
    spec, first, second = door.add(), door.hub(), door.hub()
    first.push(spec, JPEG, door.clock.now_s())
    door.wait(lambda: len(door.frames()) == 1)
    push_in_steps(door, second, spec, 1)
    # It has not looked yet, and hears of a clock that jumps.
    first.push(spec, JPEG, door.clock.now_s() - 3)
    door.wait(lambda: door.count("pushed_streams") == 1 and first._count() == 0)
    push_in_steps(door, second, spec, 2)
    assert len({frame.epoch for frame in door.frames()}) == 2


def test_a_clock_that_is_set_begins_a_new_session(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    push_in_steps(door, hub, spec, 1)
    for at_s in (0.0, 0.1, -3.0, -2.9):
        sent = len(door.frames())
        hub.push(spec, JPEG, NOW_S + 0.1 + at_s)
        door.clock.at_s += 0.1
        door.wait(lambda sent=sent: len(door.frames()) > sent)  # type: ignore[misc]
    frames = door.frames()
    assert [frame.seq for frame in frames][-2:] == [0, 1]
    assert frames[-1].epoch > frames[0].epoch
    assert door.status().state is StreamState.LIVE


BOMB = JPEG.replace(b"\xff\xc0\x00\x11\x08\x00\x30\x00\x40", b"\xff\xc0\x00\x11\x08\x75\x30\x75\x30")


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b"", FrameError, "not a JPEG"),
        (b"\x89PNG\r\n\x1a\n", FrameError, "not a JPEG"),
        (JPEG[:-20], FrameError, "cut off"),
        (b"\xff\xd8\xff\xd9", FrameError, "no size"),
        (b"\xff\xd8\xff" + bytes(500) + b"\xff\xd9", FrameError, "no size"),
        (BOMB, FrameError, "4000000 px"),
        (JPEG[:-2] + b"\xff\xda" * 40 + b"\xff\xd9", FrameError, "scans"),
        (JPEG + bytes(8 << 20), FrameTooLargeError, "larger"),
    ],
)
def test_what_is_no_usable_picture_is_refused_and_counted(
    door: Door, body: bytes, error: type[MoodlineError], words: str
) -> None:
    spec, hub = door.add(), door.hub()
    with pytest.raises(error, match=words):
        hub.push(spec, body)
    assert door.count("pushed_frames_refused_total", code=error.code) == 1
    assert door.status() == StreamStatus(), "a stream does not begin with rubbish"
    assert hub.push(spec, JPEG).sampled


def test_damage_shows_in_the_metrics_of_a_live_stream(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    push_in_steps(door, hub, spec, 1)
    with pytest.raises(FrameError):
        hub.push(spec, JPEG[:-20])
    door.clock.at_s += 1.1
    door.wait(lambda: door.count("decode_errors_total") == 1)


def test_only_what_is_too_large_is_encoded_anew(door: Door) -> None:
    spec, hub = door.add(max_side_px=64), door.hub()
    sizes = []
    for width, height in ((64, 48), (65, 48), (640, 360), (1999, 1000)):
        sent = len(door.frames())
        hub.push(spec, picture(width, height))
        door.wait(lambda sent=sent: len(door.frames()) > sent)  # type: ignore[misc]
        frame = door.frames()[-1]
        decoded = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape[:2] == (frame.height, frame.width)
        sizes.append((frame.width, frame.height))
    assert sizes == [(64, 48), (64, 47), (64, 36), (64, 32)]
    assert door.frames()[0].jpeg == picture(64, 48)


def test_a_phones_picture_is_turned_upright_and_loses_where_it_was_taken(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    # Orientation 6: turn by 90 degrees.
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    exif = b"Exif\x00\x00" + tiff + b"52.5200 N 13.4050 E"
    jpeg = JPEG[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + JPEG[2:]
    hub.push(spec, jpeg)
    door.wait(lambda: len(door.frames()) == 1)
    frame = door.frames()[0]
    assert (frame.width, frame.height) == (48, 64)
    assert b"Exif" not in frame.jpeg
    assert b"52.5200" not in frame.jpeg


def test_damage_inside_is_a_skip_in_the_timeline(door: Door) -> None:
    spec, hub = door.add(max_side_px=64), door.hub()
    large = picture(640, 360)
    tables = large.index(b"\xff\xc4")
    hub.push(spec, large[:tables] + b"\xff\xc4" + bytes(40) + large[tables + 42 :])
    door.wait(lambda: len(door.frames()) == 1)
    assert (door.frames()[0].skip, door.frames()[0].jpeg) == (DropReason.CORRUPT, b"")


def test_silence_is_said_and_ends_the_claim(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    push_in_steps(door, hub, spec, 2)
    door.wait_for(StreamState.LIVE)
    door.clock.at_s += 5.5
    door.wait_for(StreamState.STALLED)
    hub.push(spec, JPEG)
    door.clock.at_s += 1.5
    door.wait_for(StreamState.LIVE)
    door.clock.at_s += 61
    door.wait_for(StreamState.PENDING)
    assert "60 s" in door.status().detail
    door.wait(lambda: door.count("pushed_streams") == 0)
    hub.push(spec, JPEG)
    door.wait(lambda: len(door.frames()) == 4)
    door.wait_for(StreamState.LIVE)
    epochs = [frame.epoch for frame in door.frames()]
    assert epochs[0] == epochs[2] < epochs[3]
    assert [frame.seq for frame in door.frames()] == [0, 1, 2, 0]


def test_a_paused_stream_takes_nothing_and_goes_on_when_resumed(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    push_in_steps(door, hub, spec, 1)
    paused = door.store.replace(msgspec.structs.replace(spec, paused=True))
    with pytest.raises(StreamPausedError):
        hub.push(paused, JPEG)
    door.clock.at_s += 1.5
    door.wait_for(StreamState.PAUSED)
    resumed = door.store.replace(msgspec.structs.replace(paused, paused=False))
    assert hub.push(resumed, JPEG).sampled
    door.wait_for(StreamState.LIVE)
    assert door.count("pushed_frames_refused_total", code="stream_paused") == 1


def test_a_changed_stream_goes_on_by_its_new_definition(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    push_in_steps(door, hub, spec, 3)
    changed = door.store.replace(msgspec.structs.replace(spec, sample_fps="1"))
    pushed = push_in_steps(door, hub, changed, 4)
    assert [one.sampled for one in pushed].count(True) == 1
    assert hub.push(spec, JPEG).sampled is False, "a sender that has not heard of it changes nothing"
    assert len({frame.epoch for frame in door.frames()}) == 2


def test_a_deleted_stream_is_given_up_and_may_come_again(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    push_in_steps(door, hub, spec, 2)
    door.store.remove("door")
    door.clock.at_s += 1.5
    door.wait(lambda: door.count("pushed_streams") == 0)
    with pytest.raises(StreamNotFoundError):
        hub.push(spec, JPEG)
    again = door.add()
    assert hub.push(again, JPEG).sampled
    door.wait_for(StreamState.LIVE)


def test_two_processes_never_both_send(door: Door) -> None:
    spec, first, second = door.add(), door.hub(), door.hub()
    push_in_steps(door, first, spec, 3)
    push_in_steps(door, second, spec, 3)
    door.clock.at_s += 1.5
    door.wait(lambda: door.count("pushed_streams") <= 1 and first._count() == 0)
    with pytest.raises(StreamTakenError):
        first.push(spec, JPEG)
    push_in_steps(door, second, spec, 2)
    door.clock.at_s += 2.5
    push_in_steps(door, first, spec, 2)
    epochs = [frame.epoch for frame in door.frames()]
    assert epochs == sorted(epochs), "the sessions follow each other"
    assert [epochs.count(epoch) for epoch in sorted(set(epochs))] == [3, 5, 2]
    times = [frame.event_time_us for frame in door.frames()]
    assert times == sorted(set(times))


def test_the_number_of_streams_is_limited_and_silent_ones_make_room(door: Door) -> None:
    hub = door.hub()
    specs = [door.add(f"door-{number}") for number in range(4)]
    for spec in specs[:3]:
        hub.push(spec, JPEG)
    with pytest.raises(TooBusyError):
        hub.push(specs[3], JPEG)
    assert hub.push(specs[0], JPEG).sampled, "those that are there stay"
    door.clock.at_s += 61
    door.wait(lambda: door.count("pushed_streams") == 0)
    assert hub.push(specs[3], JPEG).sampled


def test_what_a_full_bus_does_not_take_is_counted_later(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    door.producer.full_times = 1
    hub.push(spec, JPEG)
    door.wait(lambda: door.producer.full_times == 0)
    door.clock.at_s += 0.1
    hub.push(spec, JPEG)
    door.wait(lambda: len(door.frames()) == 2)
    assert [(frame.seq, frame.skip) for frame in door.frames()] == [(0, DropReason.OVERLOADED), (1, None)]


def test_closing_sends_what_was_taken(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    release, inside = threading.Event(), threading.Event()

    def hold(_message: object) -> None:
        inside.set()
        assert release.wait(DEADLINE_S)

    door.producer.on_send = hold
    hub.push(spec, JPEG)
    assert inside.wait(DEADLINE_S)
    hub.push(spec, picture(shade=7))
    closing = threading.Thread(target=hub.close)
    closing.start()
    release.set()
    closing.join(DEADLINE_S)
    assert [frame.jpeg for frame in door.frames()] == [JPEG, picture(shade=7)]
    assert door.status().state is StreamState.PENDING
    with pytest.raises(TooBusyError, match="stopping"):
        hub.push(spec, JPEG)


def test_without_a_bus_or_store_the_sender_hears_it_and_nothing_is_claimed(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = door.add()

    def no_bus() -> RecordingProducer:
        raise BusUnavailableError("no broker")

    with pytest.raises(BusUnavailableError):
        door.hub(no_bus).push(spec, JPEG)

    hub = door.hub()
    with monkeypatch.context() as patch:

        def acquire(_stream_id: str, _now_s: float) -> None:
            raise StoreUnavailableError("gone")

        patch.setattr(door.store, "acquire", acquire)
        with pytest.raises(StoreUnavailableError):
            hub.push(spec, JPEG)
    assert door.status() == StreamStatus()
    assert hub.push(spec, JPEG).sampled


def test_only_pushed_streams_take_frames(door: Door) -> None:
    spec = door.store.add(StreamSpec(stream_id="cam", url="rtsp://192.0.2.7/1", lane=StreamClass.LIVE))
    with pytest.raises(NotPushedError):
        door.hub().push(spec, JPEG)


def test_many_senders_of_one_stream_are_one_sequence(door: Door) -> None:
    spec, hub = door.add(), door.hub()
    count = 40

    def send() -> None:
        for _ in range(count):
            hub.push(spec, JPEG)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    door.wait(lambda: len(door.frames()) == 4 * count)
    assert [frame.seq for frame in door.frames()] == list(range(4 * count))
    assert len({frame.epoch for frame in door.frames()}) == 1
    times = [frame.event_time_us for frame in door.frames()]
    assert times == sorted(set(times))
