"""Probing a file or a camera before it is registered: the interface between the API and the decoder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from moodline.shared.camera import CameraAddress


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a file whose first frame could be decoded.

    Attributes:
        codec: FFmpeg's name of the codec.
        width, height: In px, upright.
        source_fps: Nominal frame rate as a fraction in text, or "".
        duration_us: Nominal length, or None.
        created_at_us: When it was recorded by its own metadata, microseconds since the Unix epoch; None where not said.
    """

    codec: str
    width: int
    height: int
    source_fps: str
    duration_us: int | None
    created_at_us: int | None = None


Prober = Callable[[Path], Probed]
"""Opens a file and decodes its first frame; blocks. Raises `SourceError` with the typed reason where that is not possible."""


class CameraStep(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one step of a camera's test.

    Attributes:
        name: Of the step, such as `log in and describe`.
        good: Whether it went well.
        found: What was found; "" where there is nothing to say. Never text with a secret in it.
        cure: What to change; "" when nothing.
    """

    name: str
    good: bool
    found: str = ""
    cure: str = ""


CameraProber = Callable[[CameraAddress], Iterator[CameraStep]]
"""Tries a camera, and yields what comes of each step as it is done; blocks in between, and raises nothing."""
