"""YuNet, or a network with the same outputs, as an ONNX file in OpenCV's own runtime."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np

from moodline.services.detector.base import BgrImage, Detections, Found
from moodline.services.detector.crop import split_by_width
from moodline.services.detector.image import check_image, reduced
from moodline.shared.errors import ModelError

_NMS_IOU: Final = 0.3
_MAX_CANDIDATES: Final = 5000


class YuNetDetector:
    """Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023, by `cv2.FaceDetectorYN`.

    Args:
        path: The ONNX file.
        threshold: Least score of a face, 0 to 1.
        side_px: Longer side of the searched image.
        min_face_px: Least width of a face in the searched image.

    Raises:
        ModelError: the file is missing or is not such a network.
    """

    square_from = "longer_side"

    def __init__(self, path: Path, threshold: float, side_px: int, min_face_px: int = 1) -> None:
        cv2.setNumThreads(1)  # frames are searched side by side; threads within one would only fight over cores
        if not path.is_file():
            raise ModelError(f"there is no detector model at {path}")
        self._size = (side_px, side_px)
        try:
            self._network = cv2.FaceDetectorYN.create(str(path), "", self._size, threshold, _NMS_IOU, _MAX_CANDIDATES)
            self._network.detect(np.zeros((side_px, side_px, 3), np.uint8))
        except (cv2.error, SystemError) as error:
            reason = getattr(error, "err", "") or type(error).__name__
            raise ModelError(f"{path.name} is not an ONNX face detector like YuNet: {reason}") from None
        self._side_px = side_px
        self._min_face_px = min_face_px

    def detect(self, image: BgrImage) -> Detections:
        return self.search(image).faces

    def search(self, image: BgrImage) -> Found:
        check_image(image)
        height, width = image.shape[:2]
        small, back_x, back_y = reduced(image, self._side_px)
        small = _padded(small)
        size = (small.shape[1], small.shape[0])
        if size != self._size:
            self._network.setInputSize(size)
            self._size = size
        _, faces = self._network.detect(small)
        if faces is None:
            faces = np.empty((0, 15), np.float32)
        faces = faces[np.isfinite(faces).all(1)].astype(np.float64)
        left, top, wide, high, score = faces[:, [0, 1, 2, 3, 14]].T
        found = np.stack([left * back_x, top * back_y, (left + wide) * back_x, (top + high) * back_y, score], 1)
        return split_by_width(found, self._min_face_px * back_x, width, height)


def _padded(image: BgrImage) -> BgrImage:
    """Return the image with black at right and bottom, to sides that are multiples of 32 and at least 64 px.

    OpenCV would do the former by itself; below 64 px a side it was seen to answer from memory that it had not written.
    """
    right, bottom = (max(64, -(-side // 32) * 32) - side for side in (image.shape[1], image.shape[0]))
    padded: BgrImage = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
    return padded
