"""Turning pictures upright: the display matrix that phones write instead of turning the picture themselves."""

import struct
from typing import Any, NamedTuple

import cv2

from moodline.services.ingest.media.frames import BgrImage


class Orientation(NamedTuple):
    """The steps that turn a picture upright: swap rows and columns first, then mirror."""

    transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False


UPRIGHT = Orientation()

_BY_CLOCKWISE_TURNS = (
    UPRIGHT,
    Orientation(transposed=True, mirror_x=True),
    Orientation(mirror_x=True, mirror_y=True),
    Orientation(transposed=True, mirror_y=True),
)


def orientation_from_matrix(matrix: bytes) -> Orientation:
    """Return the nearest of the eight orientations to FFmpeg's display matrix: nine native int32, row by row.

    A picture's point (p, q), to the right and down, is shown at (p*a + q*c, p*b + q*d), where the matrix is
    (a b u / c d v / x y w).
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transposed=True, mirror_x=c < 0, mirror_y=b < 0)
    return Orientation(mirror_x=a < 0, mirror_y=d < 0)


def orientation_of(frame: Any) -> Orientation:
    """Return how a decoded `av.VideoFrame` is to be turned."""
    try:
        side_data = frame.side_data
    except ValueError:
        # PyAV cannot list side data of a kind that it does not know (EXIF in photos), but still reads the angle.
        return _BY_CLOCKWISE_TURNS[round(-frame.rotation / 90) % 4]
    if not len(side_data):
        return UPRIGHT
    try:
        return orientation_from_matrix(bytes(side_data["DISPLAYMATRIX"]))
    except KeyError:
        return UPRIGHT


def turn_upright(image: BgrImage, orientation: Orientation) -> BgrImage:
    """Return the picture turned; itself when there is nothing to do."""
    turned = cv2.transpose(image) if orientation.transposed else image
    if orientation.mirror_x or orientation.mirror_y:
        # OpenCV's code: 1 mirrors left-right, 0 top-bottom, -1 both.
        both = orientation.mirror_x and orientation.mirror_y
        turned = cv2.flip(turned, -1 if both else int(orientation.mirror_x))
    upright: BgrImage = turned
    return upright
