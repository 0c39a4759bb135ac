"""What a camera's process says: every sampled frame once and in order, the end with its reason, and no secret."""

import sys
import time
from collections.abc import Iterator
from fractions import Fraction

import pytest

from moodline.services.ingest.camera.input.egress import Egress
from moodline.services.ingest.camera.input.frames import LiveLimits, LiveSource
from moodline.services.ingest.camera.process.host import CameraHost
from moodline.services.ingest.camera.process.job import open_job
from moodline.services.ingest.live.records import Failed, Job, Opened, Record, Sample, Stats
from moodline.services.ingest.media.sampling import Sampler
from moodline.shared.camera import CameraAddress
from moodline.shared.messages import DropReason
from moodline.shared.streams import FailureReason
from tests.support.camera_doubles import FPS, OPENER, DoubleCamera, make_job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="camera processes are tried on Linux")

CANARY = "c4n4ry-pw"


@pytest.fixture(scope="module")
def host() -> Iterator[CameraHost]:
    host = CameraHost(OPENER)
    yield host
    host.close()


def all_records(host: CameraHost, job: Job, pause_s: float = 0.0) -> list[Record]:
    """All that a camera says until its last record, taken with a pause after the first."""
    link = host.open(job)
    try:
        got: list[Record] = []
        while not got or not isinstance(got[-1], Failed):
            record = link.next(20.0)
            assert record is not None
            got.append(record)
            if len(got) == 1:
                time.sleep(pause_s)
        return got
    finally:
        link.close()


def sampled(frames: int, sample_fps: str) -> list[int]:
    """Event times of the frames that are to be sampled, in us."""
    sampler = Sampler(sample_fps)
    times_us = [1_700_000_000_000_000 + number * 1_000_000 // FPS for number in range(1, frames + 1)]
    return [time_us for time_us in times_us if sampler.take(Fraction(time_us, 1_000_000))]


def test_frames_are_chosen_by_event_time_and_only_those_are_converted(host: CameraHost) -> None:
    records = all_records(host, make_job("/burst"))
    samples = [record for record in records if isinstance(record, Sample)]
    assert [sample.event_time_us for sample in samples] == sampled(500, "5")
    stats = [record for record in records if isinstance(record, Stats)][-1]
    assert stats.decoded == 500
    # The double counts conversions as packets.
    assert stats.packets <= len(samples)
    assert stats.last_frame_us == 1_700_000_000_000_000 + 500 * 1_000_000 // FPS
    assert stats.clock_offset_ms == 0
    assert (stats.width, stats.height) == (640, 360)


@pytest.mark.parametrize(("sample_fps", "least_skipped"), [("all", 300), ("5", 40)])
def test_a_slow_taker_gets_the_newest_and_a_note_of_every_other(host: CameraHost, sample_fps: str, least_skipped: int) -> None:
    records = all_records(host, make_job("/burst", sample_fps=sample_fps), pause_s=1.5)
    samples = [record for record in records if isinstance(record, Sample)]
    assert [sample.event_time_us for sample in samples] == sampled(500, sample_fps)
    skipped = [sample for sample in samples if sample.skip is not None]
    assert {sample.skip for sample in skipped} == {DropReason.OVERLOADED}
    assert least_skipped < len(skipped) < len(samples)
    assert records[-1] == Failed(reason=FailureReason.UNREACHABLE, detail="the camera went away")
    assert all(not sample.jpeg and not sample.width for sample in skipped)
    # The newest was kept for when it can be taken.
    assert samples[-1].skip is None
    assert samples[-1].jpeg


def test_a_picture_that_cannot_be_converted_is_a_skip_and_the_rest_goes_on(host: CameraHost) -> None:
    records = all_records(host, make_job("/bad", sample_fps="all"))
    skips = [record.skip for record in records if isinstance(record, Sample) and record.skip is not DropReason.OVERLOADED]
    assert skips.count(DropReason.CORRUPT) == 1
    assert skips.count(None) >= 40
    assert records[-1] == Failed(reason=FailureReason.TIMEOUT, detail="no frame came")


def test_a_camera_that_cannot_be_opened_says_why_and_nothing_else(host: CameraHost) -> None:
    detail = "the camera refused user name or password"
    assert all_records(host, make_job("/refused")) == [Failed(reason=FailureReason.AUTH, detail=detail)]


def test_a_mistake_of_ours_is_told_by_type_and_place_without_its_message(host: CameraHost) -> None:
    records = all_records(host, make_job("/mistake", password=CANARY))
    assert isinstance(records[0], Opened)
    failed = records[-1]
    assert isinstance(failed, Failed)
    assert failed.reason is FailureReason.INTERNAL
    assert failed.detail.startswith("KeyError at camera_doubles.py:")
    assert CANARY not in repr(records)


def test_nothing_comes_before_what_is_in_the_timeline(host: CameraHost) -> None:
    not_before_us = 1_700_000_000_000_000 + 10 * 1_000_000
    records = all_records(host, make_job("/burst", not_before_us=not_before_us))
    samples = [record for record in records if isinstance(record, Sample)]
    assert samples
    assert all(sample.event_time_us > not_before_us for sample in samples)


def test_a_job_becomes_an_address_a_policy_and_limits() -> None:
    seen: list[tuple[CameraAddress, Egress, LiveLimits]] = []

    def opener(address: CameraAddress, egress: Egress, limits: LiveLimits) -> LiveSource:
        seen.append((address, egress, limits))
        return DoubleCamera(lambda _: iter(()))

    job = make_job("/a?b", username="u", password=CANARY, schemes="rtsp,http", allow_loopback=False, deny_networks="10.0.0.0/8")
    open_job(job, opener)
    address, egress, limits = seen[0]
    assert (address.scheme, address.host, address.port, address.target) == ("rtsp", "cam.test", 554, "/a?b")
    assert (address.username, address.password) == ("u", CANARY)
    assert egress.policy.schemes == {"rtsp", "http"}
    assert not egress.policy.allow_loopback
    assert [str(network) for network in egress.policy.deny] == ["10.0.0.0/8"]
    assert limits == LiveLimits(job.open_timeout_s, job.read_timeout_s, job.max_pixels, job.first_frame_timeout_s)
