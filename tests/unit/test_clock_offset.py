"""The common clock: what is measured, what is corrected, what is said."""

import pytest

from moodline.services.detector.stage import DetectorStage
from moodline.services.ingest.camera.reader import offset_of
from moodline.shared.bus import Position
from moodline.shared.clock_offset import ClockWatch, ReferenceClock, measure_offset
from moodline.shared.errors import StoreUnavailableError
from moodline.shared.messages import DropReason, Faces, Frame, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Received, Send
from moodline.shared.settings import DetectorSettings

STORE_S = 1_750_000_000.0


class World:
    """A machine whose clock is ahead of the store's; each question takes as long as the test says."""

    def __init__(self, ahead_s: float, *round_trips_s: float) -> None:
        self.ahead_s = ahead_s
        self.round_trips_s = list(round_trips_s)
        self.passed_s = 0.0
        self.is_away = False
        self.metrics = Metrics()
        self.watch = ClockWatch(self.store_time, self, self.metrics, "host-2")

    def now_s(self) -> float:
        return STORE_S + self.passed_s + self.ahead_s

    def monotonic_s(self) -> float:
        return self.passed_s

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here may sleep")

    def store_time(self) -> float:
        if self.is_away:
            raise StoreUnavailableError("away")
        took_s = self.round_trips_s.pop(0) if len(self.round_trips_s) > 1 else self.round_trips_s[0]
        self.passed_s += took_s / 2
        told_s = STORE_S + self.passed_s
        self.passed_s += took_s / 2
        return told_s

    def shown(self) -> float | None:
        return self.metrics.registry.get_sample_value("moodline_clock_offset_seconds")


@pytest.mark.parametrize("ahead_s", [600.0, -600.0, 0.0])
def test_the_offset_is_measured_half_way_and_the_quickest_answer_counts(ahead_s: float) -> None:
    world = World(ahead_s, 0.3, 0.004, 0.2, 0.1, 0.1)
    found = measure_offset(world.store_time, world)
    assert found is not None
    assert found.ahead_s == pytest.approx(ahead_s, abs=1e-6)
    assert found.uncertain_s == pytest.approx(0.002)


def test_a_store_on_this_machine_has_no_other_clock() -> None:
    world = World(600.0, 0.001)
    assert measure_offset(lambda: None, world) is None
    watch = ClockWatch(lambda: None, world, world.metrics)
    watch.poll()
    assert watch.clock.now_s() == world.now_s()


def test_the_common_clock_is_the_stores_and_small_offsets_are_left_alone() -> None:
    world = World(600.0, 0.002)
    world.watch.poll()
    assert world.watch.clock.now_s() == pytest.approx(world.now_s() - 600.0)
    assert offset_of(world.watch.clock) == pytest.approx(600.0)
    assert offset_of(world) == 0.0
    world.ahead_s = 0.05
    world.watch.poll()
    assert world.watch.clock.now_s() == world.now_s()
    assert world.shown() == pytest.approx(0.05)


def test_what_cannot_be_measured_well_changes_nothing() -> None:
    world = World(2.0, 0.002)
    world.watch.poll()
    world.ahead_s = 5.0
    world.round_trips_s = [0.6]
    world.watch.poll()
    assert offset_of(world.watch.clock) == pytest.approx(2.0), "the store took too long to answer"
    world.is_away = True
    world.watch.poll()
    assert offset_of(world.watch.clock) == pytest.approx(2.0)


def test_a_skew_is_said_once_with_the_host_and_the_way_out_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world = World(3.2, 0.002)
    world.watch.poll()
    world.watch.poll()
    (record,) = caplog.records
    assert (record.message, record.host, record.ahead_s) == ("clock.skewed", "host-2", 3.2)  # type: ignore[attr-defined]
    assert "NTP" in record.detail  # type: ignore[attr-defined]
    world.ahead_s = 0.0
    world.watch.poll()
    assert caplog.records[-1].message == "clock.right"


def skip_at(stage: DetectorStage, captured_s: float, now_s: float) -> DropReason | None:
    frame = Frame(
        stream_id="cam",
        epoch=1,
        seq=0,
        event_time_us=0,
        captured_at_us=int(captured_s * 1e6),
        lane=StreamClass.LIVE,
        width=1,
        height=1,
        jpeg=b"no picture",
    )
    (sent,) = stage.process([Received(frame, Position("moodline.frames.live.v1", 0, 0))], now_s)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, Faces)
    return sent.message.skip


@pytest.mark.parametrize(("ingest_s", "detector_s"), [(0.0, 600.0), (-600.0, 0.0), (300.0, -300.0), (0.0, -600.0)])
def test_a_frame_is_as_old_as_it_is_whatever_the_clocks_of_the_hosts_say(ingest_s: float, detector_s: float) -> None:
    ingest, detector = World(ingest_s, 0.002), World(detector_s, 0.002)
    ingest.watch.poll()
    detector.watch.poll()
    stage = DetectorStage(lambda: None, DetectorSettings(threads=1))  # type: ignore[arg-type, return-value]
    captured_s = ingest.watch.clock.now_s()
    detector.passed_s += 1.0
    # CORRUPT: it was admitted, and there is no picture in it.
    assert skip_at(stage, captured_s, detector.watch.clock.now_s()) is DropReason.CORRUPT
    detector.passed_s += 2.0
    assert skip_at(stage, captured_s, detector.watch.clock.now_s()) is DropReason.EXPIRED
    stage.close()


def test_time_that_passes_and_waiting_are_the_machines() -> None:
    world = World(600.0, 0.002)
    clock = ReferenceClock(world)
    assert clock.monotonic_s() == world.monotonic_s()
    with pytest.raises(AssertionError):
        clock.sleep(1.0)
