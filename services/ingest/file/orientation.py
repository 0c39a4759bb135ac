"""Turning pictures upright: the display matrix that phones write instead of turning the picture themselves."""

import struct
from typing import Any, Final, NamedTuple

import av
import cv2
from av.filter import Graph

from moodline.services.ingest.media.frames import BgrImage


class Orientation(NamedTuple):
    """The steps that turn a picture upright: swap rows and columns first, then mirror."""

    transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False


UPRIGHT = Orientation()

_MATRIX: Final = struct.Struct("=9i")

_OTHER_SIDE_DATA: Final = tuple(kind for kind in range(64) if kind != 6)
"""FFmpeg's numbers of all kinds of side data (`AVFrameSideDataType`) but the display matrix; with room for new ones."""


def orientation_from_matrix(matrix: bytes) -> Orientation:
    """Return the nearest of the eight orientations to FFmpeg's display matrix: nine native int32, row by row.

    A picture's point (p, q), to the right and down, is shown at (p*a + q*c, p*b + q*d), where the matrix is
    (a b u / c d v / x y w).
    """
    a, b, _, c, d, *_ = _MATRIX.unpack(matrix)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transposed=True, mirror_x=c < 0, mirror_y=b < 0)
    return Orientation(mirror_x=a < 0, mirror_y=d < 0)


def orientation_of(frame: Any) -> Orientation:
    """Return how a decoded `av.VideoFrame` is to be turned: by its display matrix, which decoders also make from EXIF data.

    All other side data are taken off first, by FFmpeg's own filter, for PyAV 18.1 cannot list side data safely: `frame.side_data`
    reads the metadata of each, and crashes the process where a picture has an ICC profile (every screenshot of macOS); kinds
    that PyAV does not know (EXIF) make it raise. Takes some 5 ms, so once for a file, and where a frame's angle changes.
    """
    graph = Graph()
    source = graph.add("buffer", f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000")
    last = source
    for kind in _OTHER_SIDE_DATA:
        take_off = graph.add("sidedata", f"mode=delete:type={kind}")
        last.link_to(take_off)
        last = take_off
    sink = graph.add("buffersink")
    last.link_to(sink)
    try:
        graph.configure()
        source.push(frame)
        bare: Any = sink.pull()
    except av.FFmpegError:
        return UPRIGHT
    matrices = [bytes(data) for data in bare.side_data]
    return orientation_from_matrix(matrices[0]) if matrices and len(matrices[0]) == _MATRIX.size else UPRIGHT


def turn_upright(image: BgrImage, orientation: Orientation) -> BgrImage:
    """Return the picture turned; itself when there is nothing to do."""
    turned = cv2.transpose(image) if orientation.transposed else image
    if orientation.mirror_x or orientation.mirror_y:
        # OpenCV's code: 1 mirrors left-right, 0 top-bottom, -1 both.
        both = orientation.mirror_x and orientation.mirror_y
        turned = cv2.flip(turned, -1 if both else int(orientation.mirror_x))
    upright: BgrImage = turned
    return upright
