"""Pixels of decoded pictures."""

from typing import Any

import numpy as np

from moodline.services.ingest.media.frames import BgrImage


def bgr_pixels(picture: Any) -> BgrImage:
    """Return the pixels of a bgr24 `av.VideoFrame`; without a copy where its rows have no padding, for one of 8K has 100 MB.

    The array keeps the frame's memory, and nothing else may write into the frame. PyAV's `to_ndarray` and `side_data` leave
    reference cycles that hold the frame; a reader makes so few other objects that the garbage collector would let them grow to
    gigabytes.
    """
    plane = picture.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    pixels = rows[: picture.height, : picture.width * 3].reshape(picture.height, picture.width, 3)
    return np.ascontiguousarray(pixels)
