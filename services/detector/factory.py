"""Settings to a detector."""

from services.detector.base import FaceDetector
from shared.settings import DetectorSettings


def open_detector(settings: DetectorSettings) -> FaceDetector:
    """Load the detector that the settings name: an ONNX file, or the Haar cascade where none is named.

    Raises:
        ModelError: its file is missing or cannot be used.
    """
    if settings.model is None:
        from services.detector.haar import HaarDetector

        return HaarDetector(settings.side_px, settings.min_face_px)
    from services.detector.yunet import YuNetDetector

    return YuNetDetector(settings.model.expanduser(), settings.threshold, settings.side_px, settings.min_face_px)
