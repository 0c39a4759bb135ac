"""Every quirk of the simulator, read by the product's own sources over loopback: frames come, in order, and none is lost.

README.md beside this file says where each quirk was reported.
"""

from collections.abc import Iterator
from itertools import islice, pairwise

import pytest

from moodline.services.ingest.camera.http.source import open_http
from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.services.ingest.camera.input.frames import LiveFrame, LiveLimits, LiveSource
from moodline.services.ingest.camera.rtsp.source import open_rtsp
from moodline.services.ingest.live.capture_clock import CaptureClock
from moodline.services.simulator import CameraSimulator
from moodline.services.simulator.quirks import Quirk
from moodline.shared.camera import CameraAddress
from moodline.shared.net_policy import net_policy_of
from moodline.shared.streams import Transport

EGRESS = PolicyEgress(net_policy_of("rtsp,http", True, "", ""))
LIMITS = LiveLimits(open_timeout_s=6.0, read_timeout_s=4.0)
HTTP = {Quirk.BOUNDARY, Quirk.NO_END, Quirk.HEADERS}
RTSP = [quirk for quirk in Quirk if quirk not in HTTP | {Quirk.SAVP}]
CLOCKS = [Quirk.STILL, Quirk.SLOW_STAMPS, Quirk.REPORTS]
NAMES = {quirk: f"cam{number}" for number, quirk in enumerate(Quirk)}


@pytest.fixture(scope="module", params=["h264", "h265"])
def cameras(request: pytest.FixtureRequest) -> Iterator[CameraSimulator]:
    with CameraSimulator(
        None,
        paths=len(NAMES),
        size="320x240",
        codec=request.param,
        seconds=3.0,
        http=True,
        session_timeout_s=3.0,  # longer than an answer to OPTIONS is waited for
        quirks=[f"{name}={quirk}" for quirk, name in NAMES.items()],
    ) as simulator:
        yield simulator


def opened(simulator: CameraSimulator, quirk: Quirk, transport: Transport = Transport.TCP) -> LiveSource:
    port = int(simulator.url(NAMES[quirk]).rpartition(":")[2].partition("/")[0])
    address = CameraAddress("rtsp", "127.0.0.1", port, f"/{NAMES[quirk]}", transport=transport)
    return open_rtsp(address, EGRESS, LIMITS)


def taken(source: LiveSource, count: int) -> list[LiveFrame]:
    try:
        return list(islice(source.frames(), count))
    finally:
        source.close()


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.UDP])
@pytest.mark.parametrize("quirk", RTSP)
def test_a_camera_with_a_quirk_is_read(cameras: CameraSimulator, quirk: Quirk, transport: Transport) -> None:
    source = opened(cameras, quirk, transport)
    frames = taken(source, 40)
    assert len(frames) == 40
    assert source.counts.damaged == 0
    assert (frames[0].width, frames[0].height) == (320, 240)
    assert frames[-1].to_bgr().std() > 10
    if quirk not in CLOCKS:
        steps = [float(after.media_s - before.media_s) for before, after in pairwise(frames)]
        assert all(step == pytest.approx(0.04, abs=0.002) for step in steps)


@pytest.mark.parametrize("quirk", CLOCKS)
def test_a_clock_that_is_wrong_cuts_nothing(cameras: CameraSimulator, quirk: Quirk) -> None:
    clock = CaptureClock(5.0, 0)
    frames = taken(opened(cameras, quirk), 100)
    placed = [(clock.place(frame.media_s, frame.arrived_s, frame.camera_s), frame) for frame in frames]
    assert {at.segment for at, _ in placed} == {0}
    assert abs(placed[-1][0].event_time_us / 1e6 - placed[-1][1].arrived_s) < 2.1


@pytest.mark.parametrize("quirk", sorted(HTTP))
def test_pictures_over_http_are_read(cameras: CameraSimulator, quirk: Quirk) -> None:
    url = cameras.http_url(NAMES[quirk])
    port = int(url.split(":")[2].partition("/")[0])
    source = open_http(CameraAddress("http", "127.0.0.1", port, "/" + url.split("/", 3)[3]), EGRESS, LIMITS)
    frames = taken(source, 5)
    assert len(frames) == 5
    assert frames[-1].to_bgr().std() > 10
    assert source.counts.damaged == 0
