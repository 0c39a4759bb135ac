from pathlib import Path

import cv2
import numpy as np
import pytest

from moodline.services.detector.factory import open_detector
from moodline.services.detector.haar import HaarDetector
from moodline.services.detector.yunet import YuNetDetector
from moodline.shared.errors import ImageError, ModelError
from moodline.shared.settings import DetectorSettings

PORTRAIT_FACE = (165, 70, 283, 190)
"""Where the face is in the portrait, x1, y1, x2, y2 in px, by eye."""


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="the sample portrait comes with scikit-image")
    return cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)


def overlap(box: np.ndarray, other: tuple[float, ...]) -> float:
    wide = min(box[2], other[2]) - max(box[0], other[0])
    high = min(box[3], other[3]) - max(box[1], other[1])
    inside = max(0.0, wide) * max(0.0, high)
    return float(inside / ((box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - inside))


def test_the_cascade_finds_the_face(portrait: np.ndarray) -> None:
    detector = open_detector(DetectorSettings(model="haar"))
    found = detector.detect(portrait)
    assert detector.square_from == "width"
    assert found.dtype == np.float32
    assert overlap(found[0], PORTRAIT_FACE) > 0.6
    assert 0 < found[0, 4] <= 1


def test_boxes_are_in_px_of_the_given_image_whatever_size_is_searched(portrait: np.ndarray) -> None:
    large = cv2.resize(portrait, None, fx=2.5, fy=2.5)
    for side in (200, 320, 512):
        found = HaarDetector(side, 16).detect(large)
        assert overlap(found[0], tuple(2.5 * value for value in PORTRAIT_FACE)) > 0.6


def test_small_faces_are_left_out_on_request(portrait: np.ndarray) -> None:
    assert len(HaarDetector(320, 16).detect(portrait)) > 0
    assert len(HaarDetector(320, 120).detect(portrait)) == 0


def test_the_same_image_gives_the_same_bytes(portrait: np.ndarray) -> None:
    first, second = HaarDetector(320, 16), HaarDetector(320, 16)
    expected = first.detect(portrait).tobytes()
    second.detect(np.ascontiguousarray(portrait[:100, ::-1]))
    assert second.detect(portrait).tobytes() == expected
    assert first.detect(portrait.copy()).tobytes() == expected


@pytest.mark.parametrize("shape", [(1, 1), (1, 8000), (8000, 1), (5, 5), (33, 20), (8000, 60), (8000, 6000)])
def test_images_of_any_size_are_searched(shape: tuple[int, int]) -> None:
    found = HaarDetector(320, 16).detect(np.zeros((*shape, 3), np.uint8))
    assert found.shape == (0, 5)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((20, 20), np.uint8),
        np.zeros((20, 20, 1), np.uint8),
        np.zeros((20, 20, 4), np.uint8),
        np.zeros((20, 20, 3), np.float32),
        np.zeros((20, 0, 3), np.uint8),
        np.zeros((2, 20, 20, 3), np.uint8),
        None,
    ],
)
def test_other_kinds_of_image_are_refused(image: object) -> None:
    with pytest.raises(ImageError, match=r"uint8 \(H, W, 3\)"):
        HaarDetector(320, 16).detect(image)  # type: ignore[arg-type]


def test_a_view_that_is_not_contiguous_is_searched_like_its_copy(portrait: np.ndarray) -> None:
    view = portrait[::2, ::2]
    detector = HaarDetector(320, 16)
    assert np.array_equal(detector.detect(view), detector.detect(view.copy()))


@pytest.mark.parametrize("content", [None, b"", b"not a network", b"\x08\x07" + b"\0" * 64])
def test_a_missing_or_wrong_model_file_is_a_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "faces.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"faces\.onnx"):
        open_detector(DetectorSettings(model=str(path)))


def test_a_folder_is_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no detector model"):
        YuNetDetector(tmp_path, 0.7, 320)
