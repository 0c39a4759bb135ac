"""Boxes and leading emotions, drawn into a picture."""

from collections.abc import Sequence
from typing import Final

from moodline.services.report.palette import EMOTION_COLORS
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import NotReadyError
from moodline.shared.previews import Read

_UNKNOWN: Final = (255, 255, 255)
_SCALE: Final = 65_536
_SMALL_PX: Final = 480
_BLACK: Final = (0, 0, 0)


def draw_faces(jpeg: bytes, faces: Sequence[Read]) -> bytes:
    """Return the picture with a box for each face, and what leads in it where that is known.

    Args:
        jpeg: The picture.
        faces: Boxes, and what was read of each face; nothing where that is not known.

    Raises:
        NotReadyError: the package that draws is missing.
    """
    try:
        import cv2
        import numpy as np
    except ModuleNotFoundError:
        raise NotReadyError("boxes need the package OpenCV where the API runs: pip install 'moodline[pictures]'") from None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return jpeg
    height, width = image.shape[:2]
    size = max(0.4, min(width, height) / _SMALL_PX * 0.5)
    thick = max(1, round(size * 2))
    for box, probabilities in faces:
        left, top, right, bottom = (round(edge * side / _SCALE) for edge, side in zip(box, (width, height) * 2, strict=True))
        color, label = _colour_and_label(probabilities)
        cv2.rectangle(image, (left, top), (right, bottom), color, thick)
        if not label:
            continue
        (text_width, text_height), below = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
        base = top - below if top - text_height - below > 0 else min(height - below, bottom + text_height + below)
        start = max(0, min(left, width - text_width))
        cv2.rectangle(image, (start, base - text_height - below // 2), (start + text_width, base + below), color, cv2.FILLED)
        cv2.putText(image, label, (start, base), cv2.FONT_HERSHEY_SIMPLEX, size, _BLACK, thick, cv2.LINE_AA)
    done, drawn = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return drawn.tobytes() if done else jpeg


def _colour_and_label(probabilities: Sequence[int]) -> tuple[tuple[int, int, int], str]:
    """Return the colour of a box, and its label."""
    total = sum(probabilities)
    if not total:
        return _UNKNOWN, ""
    best = max(range(len(EMOTIONS)), key=probabilities.__getitem__)
    red, green, blue = bytes.fromhex(EMOTION_COLORS[EMOTIONS[best]].removeprefix("#"))
    return (blue, green, red), f"{EMOTIONS[best]} {probabilities[best] / total * 100:.0f}%"
