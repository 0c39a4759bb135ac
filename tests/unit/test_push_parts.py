"""What stands around the hub: a bus on demand, abandoned streams, and looking at files in a process of its own."""

import threading
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from moodline.services.ingest.abandoned import settle_abandoned
from moodline.services.ingest.file.probe import probe_file
from moodline.services.ingest.media.sampling import Sampler
from moodline.services.ingest.push.bus_on_demand import BusOnDemand
from moodline.shared.bus import Bus, open_bus
from moodline.shared.errors import BusUnavailableError, SourceError
from moodline.shared.messages import StreamClass
from moodline.shared.settings import IngestSettings
from moodline.shared.streams import FailureReason, StreamSpec, StreamState, StreamStatus
from tests.support.clocks import StubClock
from tests.support.ingest_doubles import NOW_S, open_store


def test_a_bus_is_connected_to_when_it_is_needed_and_once() -> None:
    opened: list[Bus] = []

    def open_it() -> Bus:
        opened.append(open_bus("memory://"))
        return opened[-1]

    bus = BusOnDemand(open_it, StubClock())
    bus.close()
    assert opened == []
    first = bus.producer()
    assert bus.producer() is first
    assert len(opened) == 1
    bus.close()


def test_a_bus_that_is_away_is_not_asked_for_again_at_once() -> None:
    clock, tries = StubClock(), []

    def fail() -> Bus:
        tries.append(clock.now)
        raise BusUnavailableError("no broker")

    bus = BusOnDemand(fail, clock)
    for _ in range(3):
        with pytest.raises(BusUnavailableError):
            bus.producer()
    assert len(tries) == 1
    clock.now += 5.1
    with pytest.raises(BusUnavailableError, match="no broker"):
        bus.producer()
    assert len(tries) == 2


def test_only_one_waits_while_the_bus_is_connected_to() -> None:
    inside, release = threading.Event(), threading.Event()

    def open_slowly() -> Bus:
        inside.set()
        assert release.wait(20)
        return open_bus("memory://")

    bus = BusOnDemand(open_slowly, StubClock())
    first = threading.Thread(target=bus.producer)
    first.start()
    assert inside.wait(20)
    with pytest.raises(BusUnavailableError, match="being connected"):
        bus.producer()
    release.set()
    first.join(20)
    assert bus.producer() is bus.producer()
    bus.close()


def test_a_stream_whose_process_died_becomes_pending(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    specs = []
    before_us = int((NOW_S - 100) * 1e6)
    for name, state, seen_us in (
        ("dead", StreamState.LIVE, before_us),
        ("dead-stalled", StreamState.STALLED, before_us),
        ("just-now", StreamState.LIVE, int((NOW_S - 70) * 1e6)),
        ("paused", StreamState.PAUSED, before_us),
    ):
        specs.append(store.add(StreamSpec(stream_id=name, url="push://", lane=StreamClass.LIVE)))
        epoch = store.acquire(name, NOW_S - 200).epoch
        store.set_status(name, epoch, StreamStatus(state=state, last_frame_us=seen_us, since_us=before_us, frames_sent=7))
    gone = StreamSpec(stream_id="gone", url="push://", lane=StreamClass.LIVE)
    assert settle_abandoned(store, [*specs, gone], NOW_S, 60.0) == ["dead", "dead-stalled"]
    states = [status.state for status in store.statuses([spec.stream_id for spec in specs])]
    assert states == [StreamState.PENDING, StreamState.PENDING, StreamState.LIVE, StreamState.PAUSED]
    assert not store.set_status("dead", epoch, StreamStatus()), "whoever had it is fenced"
    assert settle_abandoned(store, specs, NOW_S, 60.0) == []
    store.close()


@pytest.mark.parametrize(("rate", "expected"), [("all", None), ("2", Fraction(3, 2)), ("30000/1001", Fraction(31 * 1001, 30000))])
def test_the_sampler_knows_what_it_wants_next(rate: str, expected: Fraction | None) -> None:
    sampler = Sampler(rate)
    assert sampler.next_s() is None
    sampler.take(Fraction(1021, 1000))
    assert sampler.next_s() == expected
    if expected is not None:
        assert not sampler.take(expected - Fraction(1, 10**9))
        assert sampler.take(expected)


def film(path: Path, width: int = 64) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, 48))
    for shade in range(0, 200, 20):
        writer.write(np.full((48, width, 3), shade, np.uint8))
    writer.release()
    return path


def test_a_video_is_told_from_what_is_none(tmp_path: Path) -> None:
    settings = IngestSettings(media_root=tmp_path)
    probed = probe_file(film(tmp_path / "film.avi"), settings, 60.0)
    assert (probed.codec, probed.width, probed.height, probed.source_fps, probed.duration_us) == (
        "mjpeg",
        64,
        48,
        "10",
        1_000_000,
    )
    (tmp_path / "text.mp4").write_bytes(b"no film" * 100)
    with pytest.raises(SourceError):
        probe_file(tmp_path / "text.mp4", settings, 60.0)
    with pytest.raises(SourceError) as large:
        probe_file(film(tmp_path / "large.avi", 640), IngestSettings(media_root=tmp_path, max_pixels=10_000), 60.0)
    assert large.value.reason is FailureReason.TOO_LARGE


def test_looking_at_a_file_takes_no_longer_than_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as late:
        probe_file(film(tmp_path / "film.avi"), IngestSettings(media_root=tmp_path), 0.01)
    assert late.value.reason is FailureReason.TIMEOUT
