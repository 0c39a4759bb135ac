"""Checks a pushed picture by its bytes before anything is decoded, and prepares it for the bus."""

import threading
from dataclasses import dataclass
from typing import Final

from moodline.services.ingest.media.image_size import HEAD_BYTES, image_size_px
from moodline.shared.errors import FrameError, FrameTooLargeError, ImageError
from moodline.shared.settings import Settings

_BEGIN: Final = b"\xff\xd8\xff"
_END: Final = b"\xff\xd9"
_PADDING: Final = b"\x00\r\n"
"""Some encoders round a picture's bytes up."""
_SCAN: Final = b"\xff\xda"
_EXIF: Final = b"Exif\x00\x00"
_SCANS_MAX: Final = 32
"""Progressive pictures have about ten; each scan costs as much as a whole picture, so thousands would be an attack."""
_SCANS_PX_MAX: Final = 12_000_000
"""A picture in several scans is held whole, with all its coefficients, while it is decoded, however small it shall become."""
_DECODES_AT_ONCE: Final = 2
_READY_BYTES: Final = 2 * 1024 * 1024
"""A larger one, of whatever size in px, is made smaller: the bus has a limit, and frames wait there."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG whose outside is right. Its inside may still be damaged: whoever decodes it first finds out.

    Attributes:
        jpeg: From its first marker to its last.
        width, height: In px, as its header says.
        is_ready: It may go on the bus as it is; else it is too large, or carries EXIF data: which way is up, and perhaps where
            it was taken.
    """

    jpeg: bytes
    width: int
    height: int
    is_ready: bool


def checked_picture(body: bytes, max_side_px: int, settings: Settings) -> Picture:
    """Judge a pushed body by its markers and header; decodes nothing.

    Raises:
        FrameTooLargeError: more than `push.max_bytes`.
        FrameError: no JPEG, cut off, no size in its header, more than `ingest.max_pixels`, or too many scans or px in several.
    """
    if len(body) > settings.push.max_bytes:
        raise FrameTooLargeError(f"the frame is larger than {settings.push.max_bytes} bytes (MOODLINE_PUSH_MAX_BYTES)")
    if not body.startswith(_BEGIN):
        raise FrameError("the frame is not a JPEG; send one whole JPEG, with Content-Type: image/jpeg")
    jpeg = body.rstrip(_PADDING)
    if not jpeg.endswith(_END):
        raise FrameError("the frame is cut off: its JPEG has no end")
    size = image_size_px(jpeg[:HEAD_BYTES])
    if size is None or not all(size):
        raise FrameError("the frame is damaged: its JPEG header tells no size")
    width, height = size
    limit = settings.ingest.max_pixels
    if width * height > limit:
        raise FrameError(f"the frame has more than {limit} px (MOODLINE_INGEST_MAX_PIXELS)")
    # In coded data 0xFF is always followed by 0 or a restart marker, so this finds scans only.
    scans = jpeg.count(_SCAN)
    if not 1 <= scans <= _SCANS_MAX:
        raise FrameError(f"the frame's JPEG has {scans} scans; 1 to {_SCANS_MAX} are taken")
    if scans > 1 and width * height > _SCANS_PX_MAX:
        raise FrameError(f"a progressive JPEG may have {_SCANS_PX_MAX} px at most; send a baseline one, or a smaller one")
    is_ready = max(size) <= max_side_px and len(jpeg) <= _READY_BYTES and _EXIF not in jpeg[:HEAD_BYTES]
    return Picture(jpeg, width, height, is_ready)


class Encoder:
    """Makes pictures ready for the bus. Thread-safe; few are decoded at the same time, for each may take much memory."""

    def __init__(self, jpeg_quality: int) -> None:
        self._quality = jpeg_quality
        self._pending_updates = threading.BoundedSemaphore(_DECODES_AT_ONCE)

    def ready(self, picture: Picture, max_side_px: int) -> Picture:
        """Return a picture that may go on the bus: upright, within `max_side_px`, without EXIF data; itself when it is so.

        Raises:
            ImageError: its inside is damaged.
        """
        if picture.is_ready:
            return picture
        with self._pending_updates:
            return _encoded(picture, max_side_px, self._quality)


def _encoded(picture: Picture, max_side_px: int, quality: int) -> Picture:
    import cv2
    import numpy as np

    from moodline.services.ingest.media.encode import encode_jpeg, reduce_image

    # The decoder itself can leave out what is reduced away afterwards: less memory and less work.
    flag = cv2.IMREAD_COLOR
    for divisor, reduced in ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2)):
        if max(picture.width, picture.height) >= divisor * max_side_px:
            flag = reduced
            break
    try:
        image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), flag)
    except cv2.error:
        image = None
    if image is None:
        raise ImageError("the picture is damaged")
    small = reduce_image(image, max_side_px)
    height, width = small.shape[:2]
    return Picture(encode_jpeg(small, quality), width, height, is_ready=True)
