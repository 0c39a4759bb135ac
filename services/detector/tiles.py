"""Search in overlapping tiles: for pictures much longer than wide, and for small faces in large pictures.

A detector brings a picture's longer side down to a fixed size. In a strip of 4000x360 px a face of 90 px is then 11 px wide, and
is not found. Tiles are searched one by one at their own scale, and what they found is brought together.
"""

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moodline.services.detector.base import BgrImage, Detections, FaceDetector, Found
from moodline.services.detector.crop import tidy
from moodline.services.detector.image import check_image

AUTO_RATIO: Final = 2.0
"""A picture whose sides differ by more than this factor is searched in tiles by default."""
MAX_TILES: Final = 64
"""Most tiles of one picture; longer tiles are used rather than more."""

_GRID_OVERLAP: Final = 0.25
"""Overlap of tiles, as a share of a tile's side; larger faces are found by the search of the whole picture."""
_SAME_IOU: Final = 0.45
_SAME_INSIDE: Final = 0.6
"""Least share of a cut-off face that lies inside the whole face that another tile found."""
_EDGE_SHARE: Final = 0.04
"""A box that comes so near to an inner edge of its tile, as a share of its own side, may be cut off there."""


class Tile(NamedTuple):
    """A part of a picture, in px: left and top edge inclusive, right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int


class TiledDetector:
    """Searches a picture in tiles with another detector, and as a whole where it has no need of tiles.

    Args:
        detector: Searches each tile.
        side_px: What the detector brings the longer side of each tile down to.
        tiles: How many tiles lie along the longer side; then the whole picture is searched as well. 1: never in tiles. 0: only a
            picture whose sides differ by more than 2:1.
    """

    def __init__(self, detector: FaceDetector, side_px: int, tiles: int = 0) -> None:
        self.detector = detector
        self.square_from = detector.square_from
        self._side_px = side_px
        self._tiles = tiles

    def detect(self, image: BgrImage) -> Detections:
        return self.search(image).faces

    def search(self, image: BgrImage) -> Found:
        check_image(image)
        height, width = image.shape[:2]
        tiles = tiles_of(width, height, self._side_px, self._tiles)
        if len(tiles) == 1:
            return self.detector.search(image)
        found = [self.detector.search(image[tile.top : tile.bottom, tile.left : tile.right]) for tile in tiles]
        return merged(found, tiles, width, height)


def tiles_of(width: int, height: int, side_px: int, wanted: int = 0) -> list[Tile]:
    """Return the parts of a picture that are searched; only one, the whole picture, where tiles would gain nothing.

    Args:
        width: Of the picture in px.
        height: Of the picture in px.
        side_px: Longer side to which a part is reduced.
        wanted: As `TiledDetector.tiles`.
    """
    whole = Tile(0, 0, width, height)
    longer, shorter = max(width, height), min(width, height)
    if longer <= side_px or wanted == 1 or (wanted == 0 and longer <= AUTO_RATIO * shorter):
        return [whole]
    strip = _strip(width, height, side_px) if longer > AUTO_RATIO * shorter else []
    return strip if len(strip) >= max(wanted, 1) else [whole, *_grid(width, height, side_px, wanted)]


def _strip(width: int, height: int, side_px: int) -> list[Tile]:
    """Return tiles along the longer side. They overlap by the shorter one, so that every face lies whole in one of them."""
    longer, shorter = max(width, height), min(width, height)
    # A tile up to the searched size is not reduced at all, so a shorter one would find nothing more.
    length = max(2 * shorter, side_px)
    count = min(MAX_TILES, -(-(longer - shorter) // (length - shorter)))
    spans = _spans(longer, count, shorter)
    if width >= height:
        return [Tile(start, 0, stop, height) for start, stop in spans]
    return [Tile(0, start, width, stop) for start, stop in spans]


def _grid(width: int, height: int, side_px: int, wanted: int) -> list[Tile]:
    """Return nearly square tiles, `wanted` of them along the longer side; never smaller than what is searched unreduced."""
    longer = max(width, height)
    side = max(side_px, math.ceil(longer / (wanted - (wanted - 1) * _GRID_OVERLAP)))
    overlap = math.ceil(side * _GRID_OVERLAP)
    across, down = (1 if length <= side else -(-(length - overlap) // (side - overlap)) for length in (width, height))
    if across * down > MAX_TILES:
        return _grid(width, height, side_px, wanted - 1)
    return [
        Tile(left, top, right, bottom)
        for top, bottom in _spans(height, down, overlap)
        for left, right in _spans(width, across, overlap)
    ]


def _spans(length: int, count: int, overlap: int) -> list[tuple[int, int]]:
    """Return `count` equal stretches that cover 0 to `length` and overlap by at least `overlap`."""
    if count == 1:
        return [(0, length)]
    size = min(length, -(-(length + (count - 1) * overlap) // count))
    return [(start, start + size) for start in (round(at * (length - size) / (count - 1)) for at in range(count))]


def merged(found: list[Found], tiles: list[Tile], width: int, height: int) -> Found:
    """Return what the searches of all tiles found, each face once, in px of the whole picture.

    Of boxes that overlap the best stays. A box that an inner edge of its tile may have cut off gives way to one that is whole.
    A face that one tile found too small and another large enough counts as large enough.
    """
    faces = _once(_placed([each.faces for each in found], tiles, width, height))
    small = _once(_placed([each.too_small for each in found], tiles, width, height))
    is_new = ~(_shared(small, faces)[0] > _SAME_IOU).any(1) & ~(_shared(small, faces)[1] > _SAME_INSIDE).any(1)
    return Found(tidy(faces[:, :5], width, height), tidy(small[is_new, :5], width, height))


def _placed(found: list[Detections], tiles: list[Tile], width: int, height: int) -> npt.NDArray[np.float64]:
    """Return all boxes in px of the whole picture: float64 (N, 6), the last column 1 where a box may be cut off."""
    rows = []
    for boxes, tile in zip(found, tiles, strict=True):
        placed = boxes + np.array([tile.left, tile.top, tile.left, tile.top, 0], np.float64)
        near = _EDGE_SHARE * np.maximum(placed[:, 2] - placed[:, 0], placed[:, 3] - placed[:, 1]) + 1
        is_cut = (tile.left > 0) & (placed[:, 0] - tile.left < near)
        is_cut |= (tile.top > 0) & (placed[:, 1] - tile.top < near)
        is_cut |= (tile.right < width) & (tile.right - placed[:, 2] < near)
        is_cut |= (tile.bottom < height) & (tile.bottom - placed[:, 3] < near)
        rows.append(np.column_stack([placed, is_cut]))
    return np.concatenate(rows)


def _once(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the boxes without those that show the same face as a better one: whole ones first, then by score."""
    boxes = boxes[np.lexsort((boxes[:, 3], boxes[:, 2], boxes[:, 1], boxes[:, 0], -boxes[:, 4], boxes[:, 5]))]
    iou, inside = _shared(boxes, boxes)
    same = (iou > _SAME_IOU) | ((boxes[:, 5] > 0)[:, None] & (inside > _SAME_INSIDE))
    kept: list[int] = []
    for at in range(len(boxes)):
        if not same[at, kept].any():
            kept.append(at)
    return boxes[kept]


def _shared(
    boxes: npt.NDArray[np.float64], others: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the intersection of each box (N) with each other (M): over their union, and over the first one's own area."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:4], others[None, :, 2:4])
    common = np.clip(high - low, 0, None).prod(2)
    own, other = ((each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (boxes, others))
    return common / (own[:, None] + other[None] - common), common / own[:, None]
