"""Settings to a detector."""

from pathlib import Path
from typing import Final

from moodline.models import models_dir
from moodline.services.detector.base import FaceDetector
from moodline.services.detector.tiles import TiledDetector
from moodline.shared.errors import ModelError
from moodline.shared.settings import DetectorSettings

HAAR: Final = "haar"
YUNET_THRESHOLD: Final = 0.7


def open_detector(settings: DetectorSettings) -> FaceDetector:
    """Load the detector that the settings name.

    `haar` is OpenCV's cascade; the name of a folder in `models/`, or a path to a folder, is a detector of Moodline's own; a path
    to a file is an ONNX network for OpenCV's FaceDetectorYN. Each searches in tiles where the settings or the picture ask for it.

    Raises:
        ModelError: there is none, or its files cannot be used.
    """
    return TiledDetector(_open_untiled(settings), settings.side_px, settings.tiles)


def _open_untiled(settings: DetectorSettings) -> FaceDetector:
    if settings.model == HAAR:
        from moodline.services.detector.haar import HaarDetector

        return HaarDetector(settings.side_px, settings.min_face_px)
    path = _path(settings.model)
    if path.is_dir():
        from moodline.services.detector.own import OwnDetector

        return OwnDetector(path, settings.threshold, settings.side_px, settings.min_face_px, settings.precision)
    from moodline.services.detector.yunet import YuNetDetector

    threshold = YUNET_THRESHOLD if settings.threshold is None else settings.threshold
    return YuNetDetector(path, threshold, settings.side_px, settings.min_face_px)


def _path(name: str) -> Path:
    from moodline.services.detector.own import MANIFEST

    shipped = models_dir() / name
    if name and Path(name).name == name and (shipped / MANIFEST).is_file():
        return shipped
    path = Path(name).expanduser()
    if not name or not path.exists():
        known = [HAAR, *sorted(found.parent.name for found in models_dir().glob(f"*/{MANIFEST}"))]
        raise ModelError(f"there is no detector model {name!r}; installed: {', '.join(known)}; or name a folder or an ONNX file")
    return path
