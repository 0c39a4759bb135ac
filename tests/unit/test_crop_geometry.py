import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moodline.services.detector.crop import cut_faces, cut_square, quantised_box, square_around, tidy
from moodline.shared.errors import ImageError

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, width=32)
SIDES = st.integers(1, 300)


def make_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def detection(x1: float, y1: float, x2: float, y2: float, score: float = 0.9) -> np.ndarray:
    return np.array([[x1, y1, x2, y2, score]], np.float32)


def crop_of(face: object) -> np.ndarray:
    return np.frombuffer(face.crop, np.uint8).reshape(48, 48)


def test_side_is_the_width_of_a_haar_box_and_the_longer_side_of_others() -> None:
    assert square_around((10, 20, 50, 100), "width") == (10, 40, 40)
    assert square_around((10, 20, 50, 100), "longer_side") == (-10, 20, 80)


def test_a_square_of_crop_size_is_copied_pixel_by_pixel() -> None:
    image = make_image(100, 120)
    expected = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[30:78, 40:88]
    assert np.array_equal(cut_square(image, 40, 30, 48), expected)


def test_shrinking_averages_areas() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (192, 192), dtype=np.uint8)
    crop = cut_square(np.repeat(grey[:, :, None], 3, 2), 0, 0, 192)
    means = grey.reshape(48, 4, 48, 4).astype(float).mean((1, 3))
    assert np.abs(crop - means).max() <= 0.5


def test_what_lies_outside_the_frame_repeats_its_edge() -> None:
    image = make_image(48, 48)
    crop = cut_square(image, -24, 0, 48)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    assert np.array_equal(crop[:, 24:], grey[:, :24])
    assert np.array_equal(crop[:, :24], np.repeat(grey[:, :1], 24, 1))


def test_crops_come_from_the_full_frame() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[100:148:2, 200:248] = 255  # a pattern that would not survive a reduction
    (face,) = cut_faces(image, detection(200, 100, 248, 148), "width", 8)
    assert set(np.unique(crop_of(face))) == {0, 255}


def test_best_faces_first_and_no_more_than_asked_for() -> None:
    rows = np.concatenate([detection(i, 0, i + 20, 20, score) for i, score in enumerate([0.25, 1.0, 0.5])])
    faces = cut_faces(make_image(40, 60), rows, "width", 2)
    assert [face.score for face in faces] == [65535, 32768]


def test_order_does_not_depend_on_the_order_of_equal_scores() -> None:
    rows = np.concatenate([detection(i, i % 3, 40, 50, 0.5) for i in range(10)])
    assert np.array_equal(tidy(rows, 60, 60), tidy(rows[::-1], 60, 60))


@pytest.mark.parametrize(
    "row",
    [
        (math.nan, 0, 10, 10, 0.9),
        (0, 0, math.inf, 10, 0.9),
        (0, -math.inf, 10, 10, 0.9),
        (0, 0, 10, 10, math.nan),
        (10, 0, 5, 10, 0.9),
        (0, 10, 10, 10, 0.9),
        (100, 100, 200, 200, 0.9),
        (-50, -50, -10, -10, 0.9),
    ],
)
def test_unusable_boxes_are_dropped(row: tuple[float, ...]) -> None:
    assert cut_faces(make_image(50, 60), np.array([row], np.float32), "width", 8) == ()


def test_boxes_that_reach_out_of_the_frame_are_clipped() -> None:
    (face,) = cut_faces(make_image(50, 60), detection(-1e30, -5, 30, 1e30), "width", 8)
    assert face.box == (0, 0, 32768, 65536)


def test_an_extreme_strip_needs_no_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def bordered(image: np.ndarray, above: int, below: int, before: int, after: int, kind: int) -> np.ndarray:
        assert (image.shape[0] + above + below) * (image.shape[1] + before + after) <= 4096**2
        return pad(image, above, below, before, after, kind)

    pad = cv2.copyMakeBorder
    monkeypatch.setattr(cv2, "copyMakeBorder", bordered)
    strip = make_image(1, 60_000)
    (face,) = cut_faces(strip, detection(0, 0, 60_000, 1), "longer_side", 8)
    assert len(face.crop) == 48 * 48
    assert abs(crop_of(face).mean() - cv2.cvtColor(strip, cv2.COLOR_BGR2GRAY).mean()) < 3


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        "no image",
    ],
)
def test_other_kinds_of_image_are_refused(image: object) -> None:
    with pytest.raises(ImageError, match="uint8"):
        cut_faces(image, detection(0, 0, 5, 5), "width", 8)  # type: ignore[arg-type]


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 6), st.just(5)), elements=ANY_FLOAT), SIDES, SIDES)
@settings(deadline=None)
def test_any_detections_give_valid_faces(rows: np.ndarray, width: int, height: int) -> None:
    for square_from in ("width", "longer_side"):
        for face in cut_faces(make_image(height, width), rows, square_from, 64):
            x1, y1, x2, y2 = face.box
            assert 0 <= x1 < x2 <= 65536
            assert 0 <= y1 < y2 <= 65536
            assert 0 <= face.score <= 65535
            assert len(face.crop) == 48 * 48


@given(
    st.tuples(*[st.floats(0, 300, width=32)] * 4).filter(lambda box: box[0] < box[2] and box[1] < box[3]),
    st.sampled_from(["width", "longer_side"]),
)
def test_a_square_is_centred_on_its_box_and_as_large(box: tuple[float, float, float, float], square_from: str) -> None:
    left, top, side = square_around(box, square_from)
    x1, y1, x2, y2 = box
    wanted = x2 - x1 if square_from == "width" else max(x2 - x1, y2 - y1)
    assert abs(side - max(1.0, wanted)) <= 0.5
    assert abs(left + side / 2 - (x1 + x2) / 2) <= 0.5
    assert abs(top + side / 2 - (y1 + y2) / 2) <= 0.5


@given(st.integers(-400, 400), st.integers(-400, 400), st.integers(1, 300), SIDES, SIDES)
@settings(deadline=None)
def test_a_square_shows_only_what_the_frame_holds(left: int, top: int, side: int, width: int, height: int) -> None:
    image = np.random.default_rng(2).integers(90, 140, (height, width, 3), dtype=np.uint8)
    crop = cut_square(image, left, top, side)
    assert crop.shape == (48, 48)
    assert crop.dtype == np.uint8
    assert crop.min() >= 89
    assert crop.max() <= 140


@given(st.integers(1, 9000), st.integers(1, 9000), st.data())
def test_quantised_boxes_are_off_by_at_most_one_step(width: int, height: int, data: st.DataObject) -> None:
    x1, x2 = sorted(data.draw(st.tuples(st.floats(0, width), st.floats(0, width))))
    y1, y2 = sorted(data.draw(st.tuples(st.floats(0, height), st.floats(0, height))))
    box = quantised_box((x1, y1, x2, y2), width, height)
    exact = (x1 / width, y1 / height, x2 / width, y2 / height)
    assert box[0] < box[2]
    assert box[1] < box[3]
    assert all(abs(got - want * 65536) <= 1.5 for got, want in zip(box, exact, strict=True))


def test_quantised_boxes_round_to_the_nearest_step() -> None:
    assert quantised_box((0, 0, 640, 480), 640, 480) == (0, 0, 65536, 65536)
    assert quantised_box((160, 120, 320, 240), 640, 480) == (16384, 16384, 32768, 32768)
