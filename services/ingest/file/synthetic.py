"""`synthetic://astronaut?seconds=20&fps=25&faces=1&seed=0`: a moving scene with a real face, for demos, tests and load.

The face is Eileen Collins' from scikit-image's `astronaut` (NASA, public domain), which ships inside its wheel. Every face
crosses the scene, grows and shrinks, leaves and comes back. The same URL gives the same pixels every time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from random import Random
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import cv2
import numpy as np
import numpy.typing as npt

from moodline.services.ingest.media.frames import BgrImage, DecodedFrame, Ending, SourceInfo
from moodline.shared.errors import InvalidStreamError, SourceError
from moodline.shared.streams import FailureReason, parse_sample_fps

SCENE: Final = "astronaut"
WIDTH_PX: Final = 640
HEIGHT_PX: Final = 480

_OPTIONS: Final = {"seconds": (1, 86_400, 20), "faces": (0, 8, 1), "seed": (0, 2**31, 0)}
"""Least, greatest and usual value of each whole number."""
_TURN: Final = 1 << 16
"""One period of a movement, in its integer units."""


def open_scene(url: str) -> "SyntheticScene":
    """Open the scene that the URL names.

    Raises:
        InvalidStreamError: for field `url`: an option is unknown or out of range.
        SourceError: there is no such scene, or scikit-image is not installed.
    """
    parts = urlsplit(url)
    if parts.netloc != SCENE or parts.path not in ("", "/"):
        raise SourceError(FailureReason.NOT_FOUND, f"there is no such synthetic scene; use synthetic://{SCENE}")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    fps = _rate(given.pop("fps", "25"))
    numbers = {name: _number(name, given.pop(name, str(usual))) for name, (_, _, usual) in _OPTIONS.items()}
    if given:
        raise InvalidStreamError("url", f"a synthetic scene has the options fps, {', '.join(_OPTIONS)}, and no others")
    return SyntheticScene(fps, numbers["seconds"], numbers["faces"], numbers["seed"])


class SyntheticScene:
    """A finite scene of `seconds` at `fps`, with `faces` faces whose paths follow from `seed`. Implements `Source`."""

    def __init__(self, fps: Fraction, seconds: int, faces: int, seed: int) -> None:
        self.info = SourceInfo(SCENE, WIDTH_PX, HEIGHT_PX, fps, seconds * 1_000_000)
        self.damaged = 0
        self.ending = Ending()
        self._fps = fps
        self._frames = int(seconds * fps)
        self._given = 0
        self._face = _portrait()
        random = Random(seed)  # noqa: S311  # a path, not a secret
        self._paths = [_Path.draw(random, number, faces) for number in range(faces)]
        self._backdrop = _backdrop(random.randrange(256))

    @property
    def end_s(self) -> Fraction:
        return self._given / self._fps

    def frames(self) -> Iterator[DecodedFrame]:
        for number in range(self._frames):
            self._given = number + 1
            at_s = number / self._fps
            yield DecodedFrame(at_s, partial(self._draw, at_s), self.end_s)

    def close(self) -> None:
        self._frames = 0

    def _draw(self, at_s: Fraction) -> BgrImage:
        shift = _triangle(at_s, 60, 0) * WIDTH_PX // _TURN
        image: BgrImage = self._backdrop[:, shift : shift + WIDTH_PX].copy()
        for path in self._paths:
            _paste(image, self._face, *path.place(at_s))
        return image


@dataclass(frozen=True, slots=True)
class _Path:
    """The movement of one face. Periods are in s, phases in 1/65536 of a period, the rest in px."""

    cross_s: int
    cross_phase: int
    grow_s: int
    grow_phase: int
    centre_y: int
    least_side: int
    greatest_side: int

    @classmethod
    def draw(cls, random: Random, number: int, faces: int) -> "_Path":
        greatest = min(340, 6 * HEIGHT_PX // (5 * faces))
        return cls(
            cross_s=random.randrange(12, 20),
            # A first face begins inside; further ones are spread over the way.
            cross_phase=random.randrange(_TURN // 8, _TURN // 4) + number * _TURN // faces,
            grow_s=random.randrange(5, 9),
            grow_phase=random.randrange(_TURN),
            centre_y=HEIGHT_PX * (2 * number + 1) // (2 * faces),
            least_side=greatest // 2,
            greatest_side=greatest,
        )

    def place(self, at_s: Fraction) -> tuple[int, int, int]:
        """Return left, top and side of the square that holds the face."""
        side = self.least_side + _triangle(at_s, self.grow_s, self.grow_phase) * (self.greatest_side - self.least_side) // _TURN
        # Both ends of the way lie just outside of the scene.
        left = _triangle(at_s, self.cross_s, self.cross_phase) * (WIDTH_PX + side) // _TURN - side
        return left, self.centre_y - side // 2, side


def _triangle(at_s: Fraction, period_s: int, phase: int) -> int:
    """Return a value that rises from 0 to 65535 and falls again in one period."""
    turn = (at_s.numerator * _TURN // (at_s.denominator * period_s) + phase) % _TURN
    return min(2 * turn, 2 * (_TURN - 1 - turn))


def _paste(image: BgrImage, face: npt.NDArray[np.uint8], left: int, top: int, side: int) -> None:
    """Blend the face, uint8 (S, S, 4) with its mask as the fourth channel, into a square of the image."""
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + side, WIDTH_PX), min(top + side, HEIGHT_PX)
    if x1 >= x2 or y1 >= y2:
        return
    scaled = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA if side < face.shape[0] else cv2.INTER_LINEAR)
    patch = scaled[y1 - top : y2 - top, x1 - left : x2 - left].astype(np.uint16)
    mask = patch[:, :, 3:]
    under = image[y1:y2, x1:x2]
    under[:] = (patch[:, :, :3] * mask + under * (255 - mask) + 127) // 255


@lru_cache(maxsize=1)
def _portrait() -> npt.NDArray[np.uint8]:
    """Return head and shoulders, uint8 (220, 220, 4): blue, green, red, and a soft oval mask."""
    try:
        from skimage import data
    except ModuleNotFoundError:
        raise SourceError(
            FailureReason.NOT_FOUND, "synthetic scenes need the package scikit-image: pip install 'moodline[sample]'"
        ) from None
    head = np.ascontiguousarray(data.astronaut()[0:220, 114:334, ::-1])
    oval = np.zeros((220, 220), np.uint8)
    cv2.ellipse(oval, (110, 110), (88, 106), 0, 0, 360, 255, -1)
    portrait: npt.NDArray[np.uint8] = np.dstack((head, cv2.blur(oval, (9, 9))))
    return portrait


def _backdrop(tint: int) -> BgrImage:
    """Return a smooth gradient, uint8 (H, 2 W, 3)."""
    x = np.arange(2 * WIDTH_PX) * 160 // (2 * WIDTH_PX)
    y = np.arange(HEIGHT_PX)[:, None] * 80 // HEIGHT_PX
    blue, green, red = 60 + x + 0 * y, 40 + y + x // 2, (tint // 4) + y + 0 * x
    return np.dstack((blue, green, red)).astype(np.uint8)


def _number(name: str, text: str) -> int:
    least, greatest, _ = _OPTIONS[name]
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and least <= int(text) <= greatest):
        raise InvalidStreamError("url", f"a synthetic scene's {name} is a whole number from {least} to {greatest}")
    return int(text)


def _rate(text: str) -> Fraction:
    try:
        rate = parse_sample_fps(text)
    except InvalidStreamError:
        rate = None
    if rate is None:
        raise InvalidStreamError("url", "a synthetic scene's fps is a number above 0 and up to 240, such as 25 or 30000/1001")
    return rate
