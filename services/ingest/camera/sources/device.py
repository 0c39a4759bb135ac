"""Cameras that are attached to this machine, such as a webcam, by OpenCV."""

import errno
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol, cast

import cv2

from moodline.services.ingest.camera.input.egress import Egress
from moodline.services.ingest.camera.input.frames import LiveCounts, LiveFrame, LiveInfo, LiveLimits, LiveSource
from moodline.services.ingest.media.frames import BgrImage
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

_NUMBER_MAX: Final = 63
_WAITING_FRAMES: Final = 2


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that is used."""

    def isOpened(self) -> bool: ...  # noqa: N802  # OpenCV's name
    def read(self) -> tuple[bool, Any]: ...
    def get(self, property_id: int) -> float: ...
    def release(self) -> None: ...


CaptureFactory = Callable[[int | str], Capture]


def open_device(
    address: CameraAddress,
    egress: Egress,  # noqa: ARG001  # a device has no network address
    limits: LiveLimits,
    open_capture: CaptureFactory | None = None,
) -> LiveSource:
    """Open a device by its number (0 to 63) or path below /dev/ and wait for its first frame.

    Raises:
        SourceError: `not_found`, `auth` (no permission), `timeout` (no frames), `forbidden_url` (another path), `too_large`.
    """
    return DeviceSource(device_of(address.host), open_capture or _open_capture, limits)


def _open_capture(device: int | str) -> Capture:
    return cast(Capture, cv2.VideoCapture(device))


def device_of(host: str) -> int | str:
    """Return a device's number or path; what is checked is what is opened. Raises `SourceError`."""
    if host.isascii() and host.isdecimal() and len(host) <= 4:
        if int(host) > _NUMBER_MAX:
            raise SourceError(FailureReason.NOT_FOUND, "a device's number is 0 to 63")
        return int(host)
    path = PurePosixPath(host)
    if not host.isprintable() or path.parts[:2] != ("/", "dev") or len(path.parts) < 3 or ".." in path.parts:
        raise SourceError(FailureReason.FORBIDDEN_URL, "a device is named by its number or by a path below /dev/")
    # Names such as /dev/v4l/by-id/... are links; they must stay below /dev/.
    real = os.path.realpath(path)
    if not real.startswith("/dev/"):
        raise SourceError(FailureReason.FORBIDDEN_URL, "a device is named by its number or by a path below /dev/")
    _check_access(Path(real))
    return real


def _check_access(path: Path) -> None:
    try:
        if not path.is_char_device():
            raise SourceError(FailureReason.NOT_FOUND, "there is no such video device")
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except PermissionError:
        raise _forbidden() from None
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise SourceError(FailureReason.NOT_FOUND, "there is no such video device") from None


class DeviceSource:
    """One device. Implements `LiveSource`.

    A thread reads it, since OpenCV knows no time-out. Frames wait for nobody: while two have not been taken, new ones are let
    go, so at most two frames' time passes in here.
    """

    def __init__(self, device: int | str, open_capture: CaptureFactory, limits: LiveLimits) -> None:
        self.counts = LiveCounts()
        self._device = device
        self._open_capture = open_capture
        self._limits = limits
        self._closed = threading.Event()
        self._failure: SourceError | None = None
        self._fps: Fraction | None = None
        self._frames: queue.Queue[LiveFrame | None] = queue.Queue(_WAITING_FRAMES)
        threading.Thread(target=self._run, name="device", daemon=True).start()
        try:
            self._first: LiveFrame | None = self._next(limits.open_timeout_s)
        except SourceError:
            self.close()
            raise
        self.info = LiveInfo("rawvideo", self._first.width, self._first.height, self._fps)

    def frames(self) -> Iterator[LiveFrame]:
        first, self._first = self._first, None
        if first is not None:
            yield first
        while True:
            yield self._next(self._limits.read_timeout_s)

    def close(self) -> None:
        self._closed.set()

    def _next(self, timeout_s: float) -> LiveFrame:
        try:
            frame = self._frames.get(timeout=timeout_s)
        except queue.Empty:
            raise SourceError(FailureReason.TIMEOUT, "the device gives no frames") from None
        if frame is None:
            raise self._failure or SourceError(FailureReason.UNREACHABLE, "the device is gone")
        return frame

    def _run(self) -> None:
        """Read until closed. The thread that opened a device is the one that releases it."""
        capture = self._open_capture(self._device)
        try:
            if capture.isOpened():
                self._read(capture)
            else:
                self._failure = _not_opened(self._device)
        except SourceError as error:
            self._failure = error
        finally:
            capture.release()
            if not self._closed.is_set():
                self._hand_over_end()

    def _read(self, capture: Capture) -> None:
        fps = capture.get(cv2.CAP_PROP_FPS)
        self._fps = Fraction(fps).limit_denominator(1001) if 0 < fps <= 1000 else None
        failed_since_s: float | None = None
        while not self._closed.is_set():
            good, image = capture.read()
            now_s = time.monotonic()
            if not good or image is None:
                failed_since_s = now_s if failed_since_s is None else failed_since_s
                if now_s - failed_since_s >= self._limits.read_timeout_s:
                    raise SourceError(FailureReason.TIMEOUT, "the device gives no frames")
                self._closed.wait(0.05)
                continue
            failed_since_s = None
            self._hand_over(image)

    def _hand_over(self, image: BgrImage) -> None:
        height, width = image.shape[:2]
        if width * height > self._limits.max_pixels:
            raise SourceError(FailureReason.TOO_LARGE, "the device's picture is over the limit (MOODLINE_INGEST_MAX_PIXELS)")
        self.counts.packets += 1
        self.counts.decoded += 1
        media_s = Fraction(time.monotonic_ns(), 1_000_000_000)
        frame = LiveFrame(media_s, time.time(), None, width, height, lambda: image)
        if self._frames.full():
            _discard_oldest(self._frames)
        self._frames.put_nowait(frame)

    def _hand_over_end(self) -> None:
        if self._frames.full():
            _discard_oldest(self._frames)
        self._frames.put_nowait(None)


def _discard_oldest(frames: "queue.Queue[LiveFrame | None]") -> None:
    try:
        frames.get_nowait()
    except queue.Empty:
        return


def _not_opened(device: int | str) -> SourceError:
    path = f"/dev/video{device}" if isinstance(device, int) else device
    if Path(path).exists() and not os.access(path, os.R_OK | os.W_OK):
        return _forbidden()
    return SourceError(FailureReason.NOT_FOUND, "there is no such video device, or another program uses it")


def _forbidden() -> SourceError:
    return SourceError(FailureReason.AUTH, "Moodline may not read this device; add its user to the group video")
