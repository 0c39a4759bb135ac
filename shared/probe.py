"""The result of probing a file before it is registered: the interface between the API and the decoder."""

from collections.abc import Callable
from pathlib import Path

import msgspec


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a file whose first frame could be decoded.

    Attributes:
        codec: FFmpeg's name of the codec.
        width, height: In px, upright.
        source_fps: Nominal frame rate as a fraction in text, or "".
        duration_us: Nominal length, or None.
    """

    codec: str
    width: int
    height: int
    source_fps: str
    duration_us: int | None


Prober = Callable[[Path], Probed]
"""Opens a file and decodes its first frame; blocks. Raises `SourceError` with the typed reason where that is not possible."""
