"""Settings to a detector."""

from services.detector.base import FaceDetector
from shared.settings import DetectorSettings


def open_detector(settings: DetectorSettings) -> FaceDetector:
    """Load the detector that the settings name.

    A folder holds a detector of Moodline's own, whose threshold is the model's unless the settings say one; a file is an ONNX
    network for OpenCV's FaceDetectorYN; where nothing is named, it is the Haar cascade.

    Raises:
        ModelError: its file is missing or cannot be used.
    """
    if settings.model is None:
        from services.detector.haar import HaarDetector

        return HaarDetector(settings.side_px, settings.min_face_px)
    path = settings.model.expanduser()
    if path.is_dir():
        from services.detector.own import OwnDetector

        threshold = settings.threshold if "threshold" in settings.model_fields_set else None
        return OwnDetector(path, threshold, settings.side_px, settings.min_face_px)
    from services.detector.yunet import YuNetDetector

    return YuNetDetector(path, settings.threshold, settings.side_px, settings.min_face_px)
