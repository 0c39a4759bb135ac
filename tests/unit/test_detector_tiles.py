"""Search in overlapping tiles, with a detector that sees bright squares and brings pictures down as the real ones do."""

import cv2
import numpy as np
import pytest

from moodline.services.detector.base import BgrImage, Detections, Found
from moodline.services.detector.crop import split_by_width
from moodline.services.detector.factory import open_detector
from moodline.services.detector.image import reduced
from moodline.services.detector.tiles import MAX_TILES, TiledDetector, tiles_of
from moodline.shared.errors import ImageError
from moodline.shared.settings import DetectorSettings

SIDE_PX = 100
LEAST_PX = 10


class BrightSquares:
    """Finds white areas of at least 3 px in the reduced picture; narrower than `LEAST_PX` there, they are too small."""

    square_from = "longer_side"

    def detect(self, image: BgrImage) -> Detections:
        return self.search(image).faces

    def search(self, image: BgrImage) -> Found:
        small, back_x, back_y = reduced(image, SIDE_PX)
        parts = cv2.connectedComponentsWithStats((small[..., 0] > 128).astype(np.uint8))[2][1:]
        rows = [(x, y, x + w, y + h, w * h / (w * h + 100)) for x, y, w, h, _ in parts if w >= 3]
        found = np.array(rows, np.float64).reshape(-1, 5) * np.array([back_x, back_y, back_x, back_y, 1])
        return split_by_width(found, LEAST_PX * back_x, image.shape[1], image.shape[0])


def picture(width: int, height: int, *faces: tuple[int, int, int]) -> BgrImage:
    """A black picture with white squares: left, top, side."""
    image = np.zeros((height, width, 3), np.uint8)
    for left, top, side in faces:
        image[top : top + side, left : left + side] = 255
    return image


def boxes(found: Detections) -> list[tuple[int, ...]]:
    return sorted(tuple(round(float(value)) for value in row[:4]) for row in found)


def near(found: Detections, faces: list[tuple[int, int, int]], tolerance: int) -> bool:
    expected = sorted((left, top, left + side, top + side) for left, top, side in faces)
    got = boxes(found)
    return len(got) == len(expected) and bool((np.abs(np.array(got) - np.array(expected)) <= tolerance).all())


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
def test_a_strip_is_searched_in_tiles_and_each_face_is_found_once(turned: bool) -> None:
    faces = [(at, 5, 24) for at in range(0, 970, 61)]
    image = picture(1000, 80, *faces)
    if turned:
        image, faces = np.ascontiguousarray(image.transpose(1, 0, 2)), [(top, left, side) for left, top, side in faces]
    assert len(BrightSquares().detect(image)) == 0
    assert near(TiledDetector(BrightSquares(), SIDE_PX).detect(image), faces, tolerance=2)


def test_a_face_as_large_as_the_strip_is_found_whole_wherever_it_lies() -> None:
    detector = TiledDetector(BrightSquares(), SIDE_PX)
    for left in range(0, 920, 7):
        found = detector.search(picture(1000, 80, (left, 0, 80)))
        assert near(found.faces, [(left, 0, 80)], tolerance=3), left
        assert len(found.too_small) == 0


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (100, 100), (90, 10)])
def test_ordinary_and_small_pictures_are_searched_as_a_whole(size: tuple[int, int]) -> None:
    assert tiles_of(*size, SIDE_PX) == [(0, 0, *size)]


def test_tiles_can_be_forbidden() -> None:
    assert len(tiles_of(1000, 80, SIDE_PX, wanted=1)) == 1


SIZES = [(1000, 80), (400, 300), (300, 400), (1000, 1000), (65_535, 1), (65_535, 300), (3, 9_000), (101, 100)]


@pytest.mark.parametrize("wanted", [0, 2, 3, 5, 8])
@pytest.mark.parametrize("size", SIZES)
def test_tiles_cover_the_picture_within_the_limit(size: tuple[int, int], wanted: int) -> None:
    seen = np.zeros((size[1], size[0]), bool)
    tiles = tiles_of(*size, SIDE_PX, wanted)
    for tile in tiles:
        assert 0 <= tile.left < tile.right <= size[0]
        assert 0 <= tile.top < tile.bottom <= size[1]
        seen[tile.top : tile.bottom, tile.left : tile.right] = True
    assert seen.all()
    assert len(tiles) <= MAX_TILES + 1


def test_more_tiles_on_request_find_smaller_faces_and_still_the_largest() -> None:
    faces = [(10, 10, 20), (380, 280, 20), (195, 140, 20), (60, 60, 100), (220, 160, 130)]
    image = picture(400, 300, *faces)
    plain, tiled = (TiledDetector(BrightSquares(), SIDE_PX, tiles).search(image) for tiles in (0, 3))
    assert len(plain.faces) == 2
    assert len(plain.too_small) == 3
    assert near(tiled.faces, faces, tolerance=4)
    assert len(tiled.too_small) == 0, "what a tile found large enough is not too small as well"


def test_a_face_that_is_too_small_in_every_tile_is_counted_once() -> None:
    found = TiledDetector(BrightSquares(), SIDE_PX).search(picture(1000, 80, (300, 20, 8), (700, 20, 40)))
    assert len(found.faces) == 1
    assert boxes(found.too_small)[0][0] == pytest.approx(300, abs=4)
    assert len(found.too_small) == 1


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ImageError):
        TiledDetector(BrightSquares(), SIDE_PX).detect(np.zeros((5, 5), np.uint8))


def test_five_faces_of_90_px_in_a_panorama_are_found() -> None:
    data = pytest.importorskip("skimage.data", reason="the sample portrait comes with scikit-image")
    portrait = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)[0:360, 60:420]
    small = cv2.resize(portrait, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    image = np.full((360, 4000, 3), 90, np.uint8)
    for left in (0, 930, 1860, 2790, 3730):
        image[60 : 60 + small.shape[0], left : left + small.shape[1]] = small
    assert len(open_detector(DetectorSettings()).detect(image)) == 5
    assert len(open_detector(DetectorSettings(tiles=1)).detect(image)) == 0
