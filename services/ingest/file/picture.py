"""From a decoded frame to the picture that a good player shows: deinterlaced, cropped, in SDR, with square pixels, upright."""

from fractions import Fraction
from typing import Any, Final

import av
import cv2
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorRange, VideoReformatter

from moodline.services.ingest.file.orientation import UPRIGHT, Orientation, orientation_of, turn_upright
from moodline.services.ingest.file.structure import CleanAperture
from moodline.services.ingest.media.frames import BgrImage
from moodline.services.ingest.media.pixels import bgr_pixels
from moodline.services.ingest.media.tone_map import PQ, tone_map
from moodline.shared.errors import ImageError

_ASPECT_MOST: Final = 8
"""A pixel that is said to be longer than this many times its other side is damage."""


class Pictures:
    """Converts the frames of one file. Used by one thread."""

    def __init__(self, first: Any, aspect: Fraction | None, aperture: CleanAperture | None) -> None:
        """Prepare.

        Args:
            first: The first decoded `av.VideoFrame`.
            aspect: A pixel's width by its height; None: square.
            aperture: The part of the coded picture that is meant to be seen; None: all of it.
        """
        self._aspect = aspect if aspect and Fraction(1, _ASPECT_MOST) <= aspect <= _ASPECT_MOST else Fraction(1)
        self._aperture = aperture
        self._reformatter = VideoReformatter()
        self._deinterlacer = Deinterlacer()
        self._turned = first.rotation, orientation_of(first)

    def size_px(self, frame: Any) -> tuple[int, int]:
        """Return width and height of the shown picture."""
        left, top, right, bottom = self._part(frame)
        width, height = self._squared(right - left, bottom - top)
        return (height, width) if self._orientation(frame).transposed else (width, height)

    def convert(self, before: Any, frame: Any, after: Any) -> BgrImage:
        """Return the shown picture; the frames around it are asked for where it is interlaced, None where there is none.

        Raises:
            ImageError: it cannot be converted.
            MemoryError: there is not enough memory; FFmpeg's own error for it is one, too.
        """
        try:
            whole = self._deinterlacer.whole(before, frame, after) if frame.interlaced_frame else frame
            image = self._bgr(whole)
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError) as error:
            raise ImageError(f"the frame cannot be converted: {getattr(error, 'strerror', None) or error}") from None
        left, top, right, bottom = self._part(frame)
        if (right - left, bottom - top) != (image.shape[1], image.shape[0]):
            image = image[top:bottom, left:right]
        size = self._squared(right - left, bottom - top)
        if size != (image.shape[1], image.shape[0]):
            smaller = size[0] < image.shape[1]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        return turn_upright(image, self._orientation(frame))

    def _bgr(self, frame: Any) -> BgrImage:
        if frame.color_trc != PQ:
            return bgr_pixels(self._reformatter.reformat(frame, format="bgr24", threads=1))
        deep = self._reformatter.reformat(frame, format="bgr48le", dst_color_range=ColorRange.JPEG, threads=1)
        plane: Any = deep.planes[0]
        rows = np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)
        return tone_map(rows[: deep.height, : deep.width * 3].reshape(deep.height, deep.width, 3))

    def _part(self, frame: Any) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of the part of the coded picture that is shown."""
        width, height, aperture = frame.width, frame.height, self._aperture
        if aperture is None or aperture.width > width or aperture.height > height:
            return 0, 0, width, height
        # ISO/IEC 14496-12: the offsets are those of the centres.
        left = round((width - aperture.width) / 2 + aperture.right)
        top = round((height - aperture.height) / 2 + aperture.down)
        right, bottom = left + round(aperture.width), top + round(aperture.height)
        return (
            (left, top, right, bottom)
            if left >= 0 and top >= 0 and right <= width and bottom <= height
            else (0, 0, width, height)
        )

    def _squared(self, width: int, height: int) -> tuple[int, int]:
        return max(1, round(width * self._aspect)), height

    def _orientation(self, frame: Any) -> Orientation:
        """Return how to turn a frame. Its angle tells whether that has changed."""
        if frame.rotation != self._turned[0]:
            self._turned = frame.rotation, orientation_of(frame) if frame.rotation else UPRIGHT
        return self._turned[1]


class Deinterlacer:
    """FFmpeg's `bwdif` on single frames: it needs the frame before and the one after, so sampled frames alone are paid for."""

    def __init__(self) -> None:
        self._form: tuple[object, ...] | None = None
        self._source: Any = None
        self._sink: Any = None
        self._last: Any = None

    def whole(self, before: Any, frame: Any, after: Any) -> Any:
        """Return the frame with all lines of one moment: that of its first field. Raises `av.FFmpegError`."""
        form = frame.width, frame.height, frame.format.name
        if form != self._form or self._last is not frame:
            self._open(form)
            if _form_of(before) == form:
                self._pushed(before)
            self._pushed(frame)
        self._last = after if _form_of(after) == form else None
        found = self._pushed(frame if self._last is None else after)
        if found is None:
            return frame
        return found

    def _open(self, form: tuple[object, ...]) -> None:
        graph = Graph()
        source = graph.add("buffer", f"video_size={form[0]}x{form[1]}:pix_fmt={form[2]}:time_base=1/1000")
        whole, sink = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"), graph.add("buffersink")
        source.link_to(whole)
        whole.link_to(sink)
        graph.configure()
        self._form, self._source, self._sink, self._graph = form, source, sink, graph

    def _pushed(self, frame: Any) -> Any:
        """Push a frame; return the newest that comes out, which is the one pushed before it."""
        self._source.push(frame)
        found = None
        while True:
            try:
                found = self._sink.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return found


def _form_of(frame: Any) -> tuple[object, ...] | None:
    return None if frame is None else (frame.width, frame.height, frame.format.name)
