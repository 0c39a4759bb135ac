"""Draws over a picture: a box around each face, and its track number, leading emotion and share beside it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import cv2

from moodline.services.ingest.media.frames import BgrImage
from moodline.services.report.palette import EMOTION_COLORS
from moodline.shared.emotions import EMOTIONS

_BLACK, _WHITE = (20, 20, 20), (255, 255, 255)
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_REFERENCE_PX: Final = 720
_SMALLEST_SCALE: Final = 0.45
"""Below this, letters cannot be read."""


def _bgr(color: str) -> tuple[int, int, int]:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return blue, green, red


COLOURS_BGR: Final = tuple(_bgr(EMOTION_COLORS[emotion]) for emotion in EMOTIONS)
"""The palette of all pictures, in the order of `EMOTIONS`."""

_UNREADABLE_BGR: Final = (110, 110, 110)


@dataclass(frozen=True, slots=True)
class Overlay:
    """One face as drawn. `box` is x1, y1, x2, y2 in 1/65536 of width and height; `share` is 0 to 1.

    `emotion` is None where no expression could be read from the face.
    """

    box: tuple[int, int, int, int]
    track_id: int
    emotion: int | None
    share: float


def draw(image: BgrImage, overlays: Iterable[Overlay]) -> None:
    """Draw faces on a picture, in place."""
    scale = max(_SMALLEST_SCALE, min(image.shape[:2]) / _REFERENCE_PX)
    for overlay in overlays:
        _draw_one(image, overlay, scale)


def _draw_one(image: BgrImage, overlay: Overlay, scale: float) -> None:
    height, width = image.shape[:2]
    thickness = max(1, round(2 * scale))
    x1, x2 = (round(value * width / 65536) for value in overlay.box[::2])
    y1, y2 = (round(value * height / 65536) for value in overlay.box[1::2])
    colour = _UNREADABLE_BGR if overlay.emotion is None else COLOURS_BGR[overlay.emotion]
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, thickness)
    shown = "unreadable" if overlay.emotion is None else f"{EMOTIONS[overlay.emotion]} {overlay.share:.0%}"
    text, size = f"#{overlay.track_id} {shown}", 0.7 * scale
    (text_width, text_height), baseline = cv2.getTextSize(text, _FONT, size, thickness)
    pad = max(2, round(4 * scale))
    label_width, label_height = text_width + 2 * pad, text_height + baseline + 2 * pad
    if label_width > width or label_height > height:
        return
    # Above the box; below it, or inside it, where there is no room.
    top = next((y for y in (y1 - label_height, y2) if 0 <= y <= height - label_height), max(0, min(y1, height - label_height)))
    left = max(0, min(x1, width - label_width))
    cv2.rectangle(image, (left, top), (left + label_width, top + label_height), colour, cv2.FILLED)
    origin = (left + pad, top + pad + text_height)
    cv2.putText(image, text, origin, _FONT, size, _ink(colour), thickness, cv2.LINE_AA)


def _ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return black or white, whichever is easier to read on a colour (contrast as in WCAG 2.1)."""
    linear = [value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour]
    luminance = 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]
    return _BLACK if (luminance + 0.05) / 0.057 > 1.05 / (luminance + 0.05) else _WHITE
