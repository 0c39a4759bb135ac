"""Attached cameras, by a capture that the test gives."""

import time
from typing import Any

import numpy as np
import pytest

from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.services.ingest.camera.input.frames import LiveLimits, LiveSource
from moodline.services.ingest.camera.sources.device import device_of, open_device
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.net_policy import net_policy_of


class StubCapture:
    """Gives `good` frames, then none; as a device it takes a moment for each."""

    def __init__(self, good: int, opened: bool = True) -> None:
        self.left, self.opened, self.released = good, opened, False

    def isOpened(self) -> bool:  # noqa: N802  # OpenCV's name
        return self.opened

    def read(self) -> tuple[bool, Any]:
        time.sleep(0.001)
        self.left -= 1
        return (True, np.zeros((48, 64, 3), np.uint8)) if self.left >= 0 else (False, None)

    def get(self, property_id: int) -> float:
        return 30.0

    def release(self) -> None:
        self.released = True


def opened(capture: StubCapture, **limits: Any) -> LiveSource:
    egress = PolicyEgress(net_policy_of("device", True, "", ""))
    return open_device(CameraAddress("device", "0", 0), egress, LiveLimits(**limits), lambda _: capture)


def test_frames_come_until_it_falls_silent() -> None:
    source = opened(StubCapture(5), read_timeout_s=0.05)
    frames = []
    with pytest.raises(SourceError) as caught:
        frames.extend(source.frames())
    assert caught.value.reason == "timeout"
    assert (source.info.width, source.info.height, source.info.fps) == (64, 48, 30)
    assert source.counts.decoded == 5


def test_close_releases_the_device() -> None:
    capture = StubCapture(1_000_000)
    opened(capture).close()
    until_s = time.monotonic() + 5
    while not capture.released and time.monotonic() < until_s:
        time.sleep(0.005)
    assert capture.released


@pytest.mark.parametrize(
    ("capture", "limits", "reason"),
    [
        (StubCapture(0, opened=False), {}, "not_found"),
        (StubCapture(0), {"open_timeout_s": 0.1}, "timeout"),
        (StubCapture(9), {"max_pixels": 100}, "too_large"),
    ],
)
def test_failures_are_typed(capture: StubCapture, limits: dict[str, Any], reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        opened(capture, **limits)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("64", "not_found"),
        ("/dev/video99", "not_found"),
        ("/etc/passwd", "forbidden_url"),
        ("/dev/../etc/passwd", "forbidden_url"),
        ("/dev", "forbidden_url"),
        ("video0", "forbidden_url"),
    ],
)
def test_other_paths_are_refused(host: str, reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        device_of(host)
    assert caught.value.reason == reason


def test_numbers_are_devices() -> None:
    assert device_of("63") == 63
