"""Cameras that misbehave on demand, for tests with real camera processes. The job's `target` says how."""

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from moodline.services.ingest.camera.input.frames import LiveCounts, LiveFrame, LiveInfo, LiveSource
from moodline.services.ingest.live.records import Job
from moodline.services.ingest.media.frames import BgrImage
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.streams import FailureReason, Transport

OPENER = "tests.support.camera_doubles:open_double"
FPS = 25


def make_job(target: str, **fields: object) -> Job:
    """A job for a double; `fields` replace its defaults."""
    defaults: dict[str, object] = {
        "scheme": "rtsp",
        "host": "cam.test",
        "port": 554,
        "target": target,
        "username": None,
        "password": None,
        "transport": Transport.TCP,
        "tls_verify": True,
        "sample_fps": "5",
        "max_side_px": 320,
        "jpeg_quality": 80,
        "max_pixels": 50_000_000,
        "open_timeout_s": 5.0,
        "read_timeout_s": 5.0,
        "first_frame_timeout_s": 5.0,
        "clock_tolerance_s": 5.0,
        "schemes": "rtsp",
        "allow_loopback": True,
        "allow_networks": "",
        "deny_networks": "",
        "tls_ca_file": None,
        "memory_bytes": 512 * 1024 * 1024,
    }
    return Job(**(defaults | fields))  # type: ignore[arg-type]


class DoubleCamera:
    """Frames as `play` says; counts what is converted."""

    def __init__(self, play: "Callable[[DoubleCamera], Iterator[LiveFrame]]") -> None:
        self.info = LiveInfo("h264", 640, 360, Fraction(FPS))
        self.counts = LiveCounts()
        self.converted = 0
        self._play = play
        self._number = 0

    def frames(self) -> Iterator[LiveFrame]:
        return self._play(self)

    def close(self) -> None:
        return

    def frame(self, *, is_bad: bool = False) -> LiveFrame:
        """The next frame, 1/25 s after the one before on all clocks."""
        self._number += 1
        number = self._number
        self.counts.decoded = number
        at_s = 1_700_000_000 + number / FPS
        return LiveFrame(Fraction(number, FPS), at_s, at_s, 640, 360, lambda: self._convert(number, is_bad))

    def _convert(self, number: int, is_bad: bool) -> BgrImage:
        # The source's promise: valid until the next frame but one is asked for.
        assert number >= self._number - 1, "converted too late"
        self.converted += 1
        # Shows through the statistics, which are all that leaves the process.
        self.counts.packets = self.converted
        if is_bad:
            raise ImageError("this picture is damaged")
        return np.random.default_rng(number).integers(0, 256, (360, 640, 3), dtype=np.uint8)


def _steady(camera: DoubleCamera) -> Iterator[LiveFrame]:
    while True:
        yield camera.frame()
        time.sleep(1 / FPS)


def _burst(camera: DoubleCamera) -> Iterator[LiveFrame]:
    """500 frames, one every ms, then the end."""
    for _ in range(500):
        yield camera.frame()
        time.sleep(0.001)
    raise SourceError(FailureReason.UNREACHABLE, "the camera went away")


def _bad(camera: DoubleCamera) -> Iterator[LiveFrame]:
    for number in range(50):
        yield camera.frame(is_bad=number == 25)
        time.sleep(0.01)
    raise SourceError(FailureReason.TIMEOUT, "no frame came")


def _silent(camera: DoubleCamera) -> Iterator[LiveFrame]:
    yield camera.frame()
    time.sleep(600)


def _hang(camera: DoubleCamera) -> Iterator[LiveFrame]:
    """Hangs in C and holds the interpreter's lock, indefinitely."""
    yield camera.frame()
    ctypes.PyDLL(None).sleep(600)


def _crash(camera: DoubleCamera) -> Iterator[LiveFrame]:
    yield camera.frame()
    ctypes.string_at(0)


def _hog(camera: DoubleCamera) -> Iterator[LiveFrame]:
    hoard = []
    while True:
        hoard.append(np.ones(4 << 20, dtype=np.uint8))
        yield camera.frame()


def _mistake(camera: DoubleCamera) -> Iterator[LiveFrame]:
    yield camera.frame()
    raise KeyError("c4n4ry-pw")


def _exit(camera: DoubleCamera) -> Iterator[LiveFrame]:
    yield camera.frame()
    os._exit(3)


_PLAYS = {
    "/steady": _steady,
    "/burst": _burst,
    "/bad": _bad,
    "/silent": _silent,
    "/hang": _hang,
    "/crash": _crash,
    "/hog": _hog,
    "/mistake": _mistake,
    "/exit": _exit,
}


def open_double(job: Job) -> LiveSource:
    """Open the double that `job.target` names."""
    if job.target == "/refused":
        raise SourceError(FailureReason.AUTH, "the camera refused user name or password")
    return DoubleCamera(_PLAYS[job.target])
