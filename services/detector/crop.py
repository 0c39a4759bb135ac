"""Makes a face of a detection: the crop that the classifier sees, and the box in the frame's own coordinates.

A crop is the centred square around the box, without margin; its side is the width of a Haar box, or the longer side of
other detectors' boxes. That is how FER-2013 was framed. What lies outside the frame repeats the frame's edge. It is cut
from the full frame, however small the searched image was.
"""

import math
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from moodline.services.detector.base import BgrImage, Detections, Found
from moodline.services.detector.image import check_image
from moodline.services.detector.quality import FaceQuality
from moodline.shared.emotions import CROP_SIDE_PX
from moodline.shared.messages import Face

BOX_SCALE: Final = 65536
SCORE_SCALE: Final = 65535

_MAX_SQUARE_PX: Final = 4096
"""Larger squares are made of a reduced cut-out: a strip of 60,000 x 1 px must not need 3.6 GB of repeated edge."""


def tidy(detections: npt.NDArray[np.floating], width: int, height: int) -> Detections:
    """Return the usable detections, best score first.

    Args:
        detections: float (N, 5): x1, y1, x2, y2 in px, score; may hold anything.
        width: Width of the image in px; boxes are clipped to the image, scores to 0..1.
        height: Height of the image in px.

    Returns:
        float32 (M, 5), M <= N. Not finite, inverted or outside ones are gone. Equal scores are ordered by their boxes, so
        the order does not depend on that of the input.
    """
    exact = np.asarray(detections, np.float64).reshape(-1, 5)
    exact = exact[np.isfinite(exact).all(1)]
    found = np.clip(exact, 0.0, np.array([width, height, width, height, 1], np.float64)).astype(np.float32)
    found = found[(found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])]
    return found[np.lexsort((found[:, 3], found[:, 2], found[:, 1], found[:, 0], -found[:, 4]))]


def split_by_width(detections: npt.NDArray[np.floating], least_px: float, width: int, height: int) -> Found:
    """Return the usable detections, apart from each other those of at least `least_px` and those that are narrower.

    Args:
        detections: As `tidy` takes them.
        least_px: Least width of a face, in px of the image. A box is measured before it is cut off at the image's edge.
        width: Width of the image in px.
        height: Height of the image in px.
    """
    found = np.asarray(detections, np.float64).reshape(-1, 5)
    is_wide = found[:, 2] - found[:, 0] >= least_px
    return Found(tidy(found[is_wide], width, height), tidy(found[~is_wide], width, height))


def cut_faces(
    image: BgrImage, detections: Detections, square_from: str, max_faces: int, quality: FaceQuality | None = None
) -> tuple[Face, ...]:
    """Return at most `max_faces` faces, best first, with crops cut from `image`.

    Args:
        image: The full frame, uint8 (H, W, 3).
        detections: In px of `image`; what cannot be used is dropped.
        square_from: `width` or `longer_side`, see `FaceDetector.square_from`.
        max_faces: Most faces kept.
        quality: Judges how well an expression can be read from each crop; None: nothing does.

    Raises:
        ImageError: `image` is of another kind.
    """
    check_image(image)
    height, width = image.shape[:2]
    faces = []
    for x1, y1, x2, y2, score in tidy(detections, width, height)[:max_faces].tolist():
        box = (x1, y1, x2, y2)
        square = square_around(box, square_from)
        crop = cut_square(image, *square)
        readable = SCORE_SCALE if quality is None else math.floor(quality.of(crop, square[2]) * SCORE_SCALE + 0.5)
        faces.append(Face(quantised_box(box, width, height), math.floor(score * SCORE_SCALE + 0.5), crop.tobytes(), readable))
    return tuple(faces)


def square_around(box: tuple[float, float, float, float], square_from: str) -> tuple[int, int, int]:
    """Return left, top and side in px (side >= 1) of the centred square of a box; it may reach out of the frame."""
    x1, y1, x2, y2 = box
    longest = x2 - x1 if square_from == "width" else max(x2 - x1, y2 - y1)
    side = max(1, math.floor(longest + 0.5))
    return math.floor((x1 + x2 - side) / 2 + 0.5), math.floor((y1 + y2 - side) / 2 + 0.5), side


def cut_square(image: BgrImage, left: int, top: int, side: int) -> npt.NDArray[np.uint8]:
    """Return the square as a crop: uint8 (48, 48), grey.

    Shrinking averages areas; enlarging interpolates linearly, because averaging would only repeat pixels.
    """
    height, width = image.shape[:2]
    # A box on the very last fraction of a pixel still shares a pixel with the frame.
    left, top = min(max(left, 1 - side), width - 1), min(max(top, 1 - side), height - 1)
    inside = image[max(0, top) : min(height, top + side), max(0, left) : min(width, left + side)]
    grey = cv2.cvtColor(inside, cv2.COLOR_BGR2GRAY)
    above, below, before, after = max(0, -top), max(0, top + side - height), max(0, -left), max(0, left + side - width)
    factor = -(-side // _MAX_SQUARE_PX)
    if factor > 1:
        size = (max(1, grey.shape[1] // factor), max(1, grey.shape[0] // factor))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        above, below, before, after = above // factor, below // factor, before // factor, after // factor
    if above or below or before or after:
        grey = cv2.copyMakeBorder(grey, above, below, before, after, cv2.BORDER_REPLICATE)
    method = cv2.INTER_AREA if side > CROP_SIDE_PX else cv2.INTER_LINEAR
    crop: npt.NDArray[np.uint8] = cv2.resize(grey, (CROP_SIDE_PX, CROP_SIDE_PX), interpolation=method)
    return crop


def quantised_box(box: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    """Return a box that is inside the frame as integers, in 1/65536 of its width and height; never empty."""
    x1, x2 = _quantised_range(box[0] / width, box[2] / width)
    y1, y2 = _quantised_range(box[1] / height, box[3] / height)
    return x1, y1, x2, y2


def _quantised_range(low: float, high: float) -> tuple[int, int]:
    first = min(max(0, math.floor(low * BOX_SCALE + 0.5)), BOX_SCALE - 1)
    last = min(max(first + 1, math.floor(high * BOX_SCALE + 0.5)), BOX_SCALE)
    return first, last
