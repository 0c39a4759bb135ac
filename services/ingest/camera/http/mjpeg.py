"""Cameras that send JPEG pictures over HTTP: as a multipart stream, or one for each request."""

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any, Final, cast

import cv2
import numpy as np

from moodline.services.ingest.camera.http.client import HttpClient, HttpResponse
from moodline.services.ingest.camera.http.location import Location
from moodline.services.ingest.camera.http.multipart import PART_LIMIT_BYTES, MultipartParser, boundary_of
from moodline.services.ingest.camera.input.frames import FrameGap, LiveCounts, LiveFrame, LiveInfo, LiveLimits
from moodline.services.ingest.media.frames import BgrImage
from moodline.services.ingest.media.image_size import HEAD_BYTES, image_size_px
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.streams import FailureReason

SNAPSHOT_S: Final = 0.2
"""Least time between two requests of a camera that gives single pictures."""

_HICCUPS: Final = frozenset({FailureReason.UNREACHABLE, FailureReason.NOT_FOUND, FailureReason.CORRUPT})
_HICCUP_S: Final = 0.5
_BEGIN: Final = b"\xff\xd8\xff"
_END: Final = b"\xff\xd9"


def whole_jpeg(body: bytes) -> bytes | None:
    """Return the JPEG in a part's body, from its first to its last marker; None when it is cut off or is no JPEG."""
    begin = body.find(_BEGIN, 0, 1024)
    end = body.rfind(_END)
    return body[begin : end + 2] if 0 <= begin < end else None


def decode_jpeg(jpeg: bytes, width: int, height: int) -> BgrImage:
    """Decode a JPEG whose size is known to be allowed: uint8 (height, width, 3), BGR. Raises `ImageError`."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.shape[:2] != (height, width):
        raise ImageError("the camera's picture is damaged")
    return cast(BgrImage, image)


class JpegSource:
    """Pictures from bodies, however these come. Implements `LiveSource`.

    Media time is the time of arrival: such cameras tell none. Only pictures that are asked for are decoded, so damage inside
    of one shows then, by `ImageError`; the first one is decoded at once. TCP alters nothing on the way.

    Args:
        bodies: Given the time by which a body must have come, returns those that have; ends the connection by `SourceError`.
        close: Releases the connection.
        limits: Of time and size.
        deadline_s: For the first picture, by the monotonic clock.
        arrived_s: Tells the wall clock in s of the arrival of the last body.
    """

    def __init__(
        self,
        bodies: Callable[[float], list[bytes]],
        close: Callable[[], None],
        limits: LiveLimits,
        deadline_s: float,
        arrived_s: Callable[[], float] = time.time,
    ) -> None:
        self.counts = LiveCounts()
        self._bodies = bodies
        self._close = close
        self._limits = limits
        self._arrived_s = arrived_s
        self._gap = FrameGap(limits)
        self._deadline_s = deadline_s
        self._media_ns = 0
        self._rest = self._read()
        self._first: LiveFrame | None = self._first_good()
        self.info = LiveInfo("mjpeg", self._first.width, self._first.height, None)

    def frames(self) -> Iterator[LiveFrame]:
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._rest

    def close(self) -> None:
        self._close()

    def _first_good(self) -> LiveFrame:
        deadline_s = self._deadline_s
        while True:
            frame = next(self._rest)
            try:
                frame.to_bgr()
            except ImageError:
                self.counts.damaged += 1
                self.counts.decoded -= 1
                self._deadline_s = deadline_s
                continue
            return frame

    def _read(self) -> Iterator[LiveFrame]:
        while True:
            for body in self._bodies(self._deadline_s):
                self.counts.packets += 1
                frame = self._frame(body)
                if frame is None:
                    self.counts.damaged += 1
                    continue
                self.counts.decoded += 1
                self._gap.frame(time.monotonic())
                yield frame
                self._deadline_s = time.monotonic() + self._gap.limit_s
            if time.monotonic() >= self._deadline_s:
                raise SourceError(FailureReason.TIMEOUT, "the camera sends no frame that can be shown")

    def _frame(self, body: bytes) -> LiveFrame | None:
        jpeg = whole_jpeg(body)
        size = None if jpeg is None else image_size_px(jpeg[:HEAD_BYTES])
        if jpeg is None or size is None or not all(size):
            return None
        width, height = size
        if width * height > self._limits.max_pixels:
            raise SourceError(FailureReason.TOO_LARGE, "the camera's picture is over the limit (MOODLINE_INGEST_MAX_PIXELS)")
        self._media_ns = max(self._media_ns + 1, time.monotonic_ns())
        media_s = Fraction(self._media_ns, 1_000_000_000)
        to_bgr = partial(decode_jpeg, jpeg, width, height)
        return LiveFrame(media_s, self._arrived_s(), None, width, height, to_bgr, outlives_next=True)


def open_mjpeg(client: HttpClient, response: HttpResponse, begun: bytes, limits: LiveLimits, deadline_s: float) -> JpegSource:
    """Read a stream of pictures whose beginning has come; what separates them matters little.

    A stream that ends after one picture was a single one: then the next is asked for, as of any camera that gives single ones.
    """
    stream = _Stream(client, response, begun)
    return JpegSource(stream.bodies, client.close, limits, deadline_s, lambda: response.arrived_s)


class _Stream:
    """Takes pictures out of one long answer."""

    def __init__(self, client: HttpClient, response: HttpResponse, begun: bytes) -> None:
        self._parser = MultipartParser(boundary_of(response.content_type))
        self._client = client
        self._response = response
        self._begun = begun
        self._count = 0
        self._singles: _Snapshots | None = None

    def bodies(self, until_s: float) -> list[bytes]:
        """Return the pictures that come next."""
        if self._singles is not None:
            return self._singles.bodies(until_s)
        data, self._begun = self._begun or self._response.read(until_s), b""
        if data:
            found = self._parser.feed(data)
            self._count += len(found)
            return found
        if self._count != 1:
            raise SourceError(FailureReason.UNREACHABLE, "the camera ends its stream")
        self._singles = _Snapshots(self._client, self._response.location, None, time.sleep)
        return self._singles.bodies(until_s)


class _Snapshots:
    """Fetches single pictures, one after the other. One that cannot be had is asked for again, until the time is up."""

    def __init__(self, client: HttpClient, location: Location, begun: bytes | None, sleep: Callable[[float], Any]) -> None:
        self._client = client
        self._location = location
        self._begun: bytes | None = begun
        self._sleep = sleep
        self._asked_s = time.monotonic()
        self._arrived_s = time.time()

    def arrived_s(self) -> float:
        """Return the wall clock in s of the arrival of the last picture."""
        return self._arrived_s

    def bodies(self, until_s: float) -> list[bytes]:
        """Return the next picture; asks at most once in `SNAPSHOT_S`."""
        if self._begun is not None:
            body, self._begun = self._begun, None
            return [body]
        self._sleep(max(0.0, self._asked_s + SNAPSHOT_S - time.monotonic()))
        self._asked_s = time.monotonic()
        try:
            response = self._client.get(self._location, until_s, self._location.host)
            body = response.read_all(PART_LIMIT_BYTES, until_s)
        except SourceError as error:
            if error.reason not in _HICCUPS or time.monotonic() + _HICCUP_S >= until_s:
                raise
            self._sleep(_HICCUP_S)
            return []
        self._arrived_s = response.arrived_s
        return [_with_end(body) if response.has_length else body]


def _with_end(body: bytes) -> bytes:
    """Return a picture that came whole, by its length, with the end mark that some cameras leave out."""
    return body + _END if _BEGIN in body[:1024] and _END not in body[-1024:] else body


def open_snapshots(client: HttpClient, response: HttpResponse, begun: bytes, limits: LiveLimits, deadline_s: float) -> JpegSource:
    """Poll a camera that gives one picture for each request. `begun` is the part of the first one that was read already."""
    body = response.read_all(PART_LIMIT_BYTES, deadline_s, begun)
    snapshots = _Snapshots(client, response.location, _with_end(body) if response.has_length else body, time.sleep)
    return JpegSource(snapshots.bodies, client.close, limits, deadline_s, snapshots.arrived_s)
