"""Classifies single pictures in the API's process, by the same detector and network as frames of streams."""

import threading
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from moodline.services.aggregator.tracker import least_quality
from moodline.services.classifier.factory import open_model
from moodline.services.classifier.model import Model
from moodline.services.classifier.quantise import quantised
from moodline.services.detector.base import BgrImage, FaceDetector
from moodline.services.detector.crop import BOX_SCALE, SCORE_SCALE, cut_faces
from moodline.services.detector.factory import open_detector
from moodline.services.detector.quality import load_quality
from moodline.shared.classify import ClassifiedPicture, PictureFace
from moodline.shared.emotions import CROP_SIDE_PX
from moodline.shared.errors import InvalidImageError
from moodline.shared.messages import Face
from moodline.shared.settings import Settings
from moodline.shared.store import ConfigEntries
from moodline.shared.store.model_choice import read_choice

_DIGITS: Final = 6


class LocalPictureClassifier:
    """Implements `PictureClassifier`. Models are loaded at the first picture; one picture is looked at at a time."""

    def __init__(self, settings: Settings, store: ConfigEntries) -> None:
        self._settings = settings
        self._store = store
        self._lock = threading.Lock()
        self._detector: FaceDetector | None = None
        self._model: Model | None = None
        self._chosen: str | None = None

    def classify(self, pictures: Sequence[bytes]) -> list[ClassifiedPicture]:
        images = [self._decoded(at, picture) for at, picture in enumerate(pictures)]
        with self._lock:
            detector, model = self._models()
            limit = self._settings.detector.max_faces
            quality = load_quality()
            searched = [detector.search(image) for image in images]
            found = [
                cut_faces(image, one.faces, detector.square_from, limit, quality)
                for image, one in zip(images, searched, strict=True)
            ]
            least = least_quality(self._settings.aggregator)
            probabilities = iter(_classified(model, [face.crop for faces in found for face in faces]))
            return [
                ClassifiedPicture(
                    width=image.shape[1],
                    height=image.shape[0],
                    faces=tuple(_face(face, image, next(probabilities), least) for face in faces),
                    model=model.name,
                    too_small=len(one.too_small),
                )
                for image, faces, one in zip(images, found, searched, strict=True)
            ]

    def close(self) -> None:
        """Release the network."""
        with self._lock:
            if self._model is not None:
                self._model.close()
                self._model = None

    def _models(self) -> tuple[FaceDetector, Model]:
        """Return the models; another network where another one was chosen since."""
        choice = read_choice(self._store)
        chosen = None if choice is None else choice.name
        if self._detector is None:
            self._detector = open_detector(self._settings.detector)
        if self._model is None or chosen != self._chosen:
            former, self._model = self._model, open_model(self._settings.classifier, chosen)
            self._chosen = chosen
            if former is not None:
                former.close()
        return self._detector, self._model

    def _decoded(self, at: int, picture: bytes) -> BgrImage:
        width, height = _size_px(picture) or (0, 0)
        if not width or not height:
            raise InvalidImageError(at, "it is no JPEG, PNG or WebP, or its header is damaged")
        if width * height > self._settings.ingest.max_pixels:
            raise InvalidImageError(at, f"it has {width}x{height} px; at most {self._settings.ingest.max_pixels} are taken")
        try:
            # Colour, 8 bits, without transparency, upright by its EXIF data.
            image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
        if image is None or not _is_whole(picture):
            raise InvalidImageError(at, "it is cut off or damaged")
        checked: BgrImage = image
        return checked


def _size_px(picture: bytes) -> tuple[int, int] | None:
    """Return width and height of a JPEG, PNG or WebP as its header says; None for anything else."""
    from moodline.services.ingest.media.image_size import HEAD_BYTES, image_size_px

    is_known = picture.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (picture[:4], picture[8:12]) == (b"RIFF", b"WEBP")
    return image_size_px(picture[:HEAD_BYTES]) if is_known else None


def _is_whole(picture: bytes) -> bool:
    """Return whether the file has its end: decoders fill up with grey what is missing, and a face may be there."""
    if picture.startswith(b"\xff\xd8"):
        # Phones write more after the end; the preview in the head of a file has an end of its own.
        return picture.rfind(b"\xff\xd9") > len(picture) // 2
    return b"IEND" in picture[-64:] if picture.startswith(b"\x89PNG") else True


def _classified(model: Model, crops: Sequence[bytes]) -> list[tuple[int, ...]]:
    if not crops:
        return []
    stacked = np.frombuffer(b"".join(crops), np.uint8).reshape(-1, CROP_SIDE_PX, CROP_SIDE_PX)
    return [tuple(row) for row in quantised(model.predict(stacked)).tolist()]


def _face(face: Face, image: BgrImage, probabilities: tuple[int, ...], least: int) -> PictureFace:
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (round(edge * side / BOX_SCALE, 2) for edge, side in zip(face.box, (width, height) * 2, strict=True))
    total = sum(probabilities)
    return PictureFace(
        box=(x1, y1, x2, y2),
        score=round(face.score / SCORE_SCALE, _DIGITS),
        quality=round(face.quality / SCORE_SCALE, _DIGITS),
        probabilities=tuple(round(each / total, _DIGITS) for each in probabilities),
        is_readable=face.quality >= least,
    )
