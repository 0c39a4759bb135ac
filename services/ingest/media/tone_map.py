"""HDR pictures (PQ, SMPTE ST 2084) as a screen of the usual brightness shows them.

Light is compressed by the EETF of ITU-R BT.2390 from a mastering peak of 1,000 cd/m2 to 203 cd/m2, the white of the usual
picture (BT.2408), each primary by itself; then from the primaries of BT.2020 to those of BT.709, and to its gamma. FFmpeg's
`swscale` does the like, and takes seconds to begin (measured: 7 s for its table); FFmpeg's `tonemap` needs a filter that PyAV's
wheels lack. HLG is made to look right without any of this.
"""

from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from moodline.services.ingest.media.frames import BgrImage

PQ: Final = 16
"""FFmpeg's number of the transfer characteristic SMPTE ST 2084."""

_M1, _M2 = 2610 / 16384, 2523 / 32
_C1, _C2, _C3 = 3424 / 4096, 2413 / 128, 2392 / 128
_SOURCE_NITS: Final = 1000.0
_TARGET_NITS: Final = 203.0
_GAMMA: Final = 1 / 2.4
_STEPS: Final = 4096
_ROWS: Final = 128
"""Rows at a time, so that a large picture takes little memory beside itself."""

_BGR2020_TO_BGR709: Final = np.array(
    [[1.1187, -0.1006, -0.0182], [-0.0083, 1.1329, -0.1246], [-0.0728, -0.5876, 1.6605]], np.float32
)
"""ITU-R BT.2087, in the order blue, green, red."""


def tone_map(pixels: npt.NDArray[np.uint16]) -> BgrImage:
    """Return a PQ picture, uint16 (H, W, 3) blue-green-red over the full range, as 8-bit BT.709."""
    light, gamma = _light(), _gamma()
    shown = np.empty(pixels.shape, np.uint8)
    for top in range(0, pixels.shape[0], _ROWS):
        linear = light[pixels[top : top + _ROWS] >> 4]
        narrow: Any = cv2.transform(linear, _BGR2020_TO_BGR709)
        np.clip(narrow, 0, _STEPS - 1, out=narrow)
        shown[top : top + _ROWS] = gamma[narrow.astype(np.uint16)]
    return shown


@lru_cache(maxsize=1)
def _light() -> npt.NDArray[np.float32]:
    """Return, for each 12-bit code, the light on the screen, 0 to `_STEPS` - 1."""
    code = np.arange(4096) / 4095
    peak, most = _encode(_SOURCE_NITS), _encode(_TARGET_NITS) / _encode(_SOURCE_NITS)
    knee = 1.5 * most - 0.5
    e1 = np.minimum(code / peak, 1.0)
    t = np.clip((e1 - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    mapped = np.where(e1 < knee, e1, spline) * peak
    return (np.clip(_decode(mapped) / _TARGET_NITS, 0, 1) * (_STEPS - 1)).astype(np.float32)


@lru_cache(maxsize=1)
def _gamma() -> npt.NDArray[np.uint8]:
    return np.round(255 * (np.arange(_STEPS) / (_STEPS - 1)) ** _GAMMA).astype(np.uint8)


def _encode(nits: float) -> float:
    power = (nits / 10_000) ** _M1
    return float(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)


def _decode(code: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    root = code ** (1 / _M2)
    nits: npt.NDArray[np.float64] = 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return nits
