"""A decoder slower than its camera: what is shown is fresh by the time at which the camera took it, and the rest is counted."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from moodline.services.ingest.camera.input.backlog import BACKLOG_S
from moodline.services.ingest.camera.input.decoder import KeyframeDecoder
from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.services.ingest.camera.input.frames import LiveFrame, LiveLimits
from moodline.services.ingest.camera.rtsp.source import open_rtsp
from moodline.services.simulator import CameraSimulator
from moodline.shared.camera import CameraAddress
from moodline.shared.net_policy import net_policy_of
from moodline.shared.streams import Transport
from tests.support.clock_camera import ClockCamera, age_of

EGRESS = PolicyEgress(net_policy_of("rtsp", True, "", ""))
FPS = 25
WATCHED_S = 8.0


@pytest.fixture(scope="module")
def camera() -> Iterator[CameraSimulator]:
    with CameraSimulator(None, size="320x240", fps=FPS, gop_s=1.0, seconds=3.0) as simulator:
        yield simulator


def slowed(monkeypatch: pytest.MonkeyPatch, load: float) -> None:
    """Let the decoder take `load` times the time between two frames for each, but for a fifth."""
    decode = KeyframeDecoder.decode

    def slow(decoder: KeyframeDecoder, *arguments: Any) -> list[LiveFrame]:
        frames = decode(decoder, *arguments)
        time.sleep(0.8 * load / FPS)
        return frames

    monkeypatch.setattr(KeyframeDecoder, "decode", slow)


@pytest.mark.parametrize("load", [1, 2, 6])
def test_the_clock_in_the_picture_is_never_old(monkeypatch: pytest.MonkeyPatch, load: int) -> None:
    slowed(monkeypatch, load)
    with ClockCamera(FPS) as clock:
        source = open_rtsp(CameraAddress("rtsp", "127.0.0.1", clock.port, "/"), EGRESS, LiveLimits())
        began_s, ages, lies = time.monotonic(), [], []
        for frame in source.frames():
            if frame.is_overloaded:
                continue
            now_s = time.time()
            ages.append(age_of(frame.to_bgr(), now_s))
            lies.append(abs(ages[-1] - (now_s - frame.arrived_s)))
            if time.monotonic() - began_s > WATCHED_S:
                break
        source.close()
    assert max(ages) < BACKLOG_S + 0.5 + load / FPS
    assert max(lies) < 0.5, "arrival is when it arrived, not when it was read"
    assert (source.counts.overloaded > 0) == (load > 1)
    assert len(ages) > WATCHED_S * FPS / load / 4


@pytest.mark.parametrize("load", [1, 2, 6])
def test_no_frame_is_older_than_it_says(camera: CameraSimulator, monkeypatch: pytest.MonkeyPatch, load: int) -> None:
    slowed(monkeypatch, load)
    port = int(camera.url("cam0").rpartition(":")[2].partition("/")[0])
    address = CameraAddress("rtsp", "127.0.0.1", port, "/cam0", transport=Transport.UDP)
    source = open_rtsp(address, EGRESS, LiveLimits())
    began_s, shown, left_out, ages, lies = time.monotonic(), 0, 0, [], []
    for frame in source.frames():
        if frame.is_overloaded:
            left_out += 1
            continue
        shown += 1
        if frame.camera_s is not None:
            # The simulator is on this machine: its sender reports tell the true time at which a frame was taken.
            ages.append(time.time() - frame.camera_s)
            lies.append(abs(frame.arrived_s - frame.camera_s))
        if time.monotonic() - began_s > WATCHED_S:
            break
    source.close()
    assert max(lies) < 0.5, "arrival is when it arrived, not when it was read"
    assert max(ages) < BACKLOG_S + 0.5 + load / FPS
    assert source.counts.overloaded >= left_out
    assert (left_out > 0) == (load > 1)
    assert shown > WATCHED_S * FPS / load / 4
