"""Recipes of odd files: a few bytes, or an FFmpeg command. Where the `ffmpeg` program is needed and missing, the test skips."""

import os
import shutil
import struct
import subprocess
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from moodline.services.ingest.file.open import open_source
from moodline.services.ingest.media.frames import DecodedFrame, Source
from moodline.shared.errors import SourceError
from moodline.shared.settings import IngestSettings

CLIPS = Path(__file__).resolve().parents[2].parent / "shared" / "clips"
"""Real clips beside the checkout, where there are any."""


def ffmpeg(*arguments: str | Path) -> None:
    """Run FFmpeg's program; its output file is the last argument."""
    program = shutil.which("ffmpeg")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("the program ffmpeg is needed here")
        pytest.skip("the program ffmpeg is not installed")
    command = [program, "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def clip(name: str) -> Path:
    """Return a real clip; skips where there is none."""
    path = next((place for place in (CLIPS / name, Path("/work/shared/clips") / name) if place.exists()), None)
    if path is None:
        pytest.skip(f"the clip {name} is not here")
    return path


def opened(path: Path, **settings: object) -> Source:
    """Open a file in this process, as the file's own process does."""
    return open_source(path.as_uri(), IngestSettings.model_validate({"media_root": path.parent, **settings}))


def refusal(path: Path, **settings: object) -> tuple[str, str]:
    """Return the reason and the sentence with which a file is refused."""
    with pytest.raises(SourceError) as caught:
        opened(path, **settings)
    return caught.value.reason, str(caught.value)


def frames_of(path: Path, **settings: object) -> tuple[list[DecodedFrame], Source]:
    """Return all frames, without their pictures."""
    source = opened(path, **settings)
    return list(source.frames()), source


def times_of(path: Path) -> tuple[list[float], float]:
    """Return when each frame is shown, and when the last ends, in s."""
    frames, source = frames_of(path)
    return [float(frame.pts_s) for frame in frames], float(source.end_s)


def first_picture(path: Path, **settings: object) -> npt.NDArray[np.uint8]:
    """Return the first picture, as it is shown."""
    return next(iter(opened(path, **settings).frames())).to_bgr()


def tiff_with_orientation(orientation: int) -> bytes:
    """Return EXIF data: a TIFF header with one entry."""
    return b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + b"\0" * 7


def jpeg_with_exif(image: npt.NDArray[np.uint8], orientation: int) -> bytes:
    """Return a JPEG that says how it is to be turned."""
    data = bytes(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 98))[1])
    exif = b"Exif\0\0" + tiff_with_orientation(orientation)
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


def png_with_icc(image: npt.NDArray[np.uint8], orientation: int | None = None) -> bytes:
    """Return a PNG with a colour profile, as every screenshot of macOS is, and maybe EXIF data."""
    data = bytes(cv2.imencode(".png", image)[1])
    extra = png_chunk(b"iCCP", b"Display P3\0\0" + zlib.compress(b"\0" * 128 + b"profile" * 60))
    if orientation is not None:
        extra += png_chunk(b"eXIf", tiff_with_orientation(orientation))
    return data[:33] + extra + data[33:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def corners(width: int = 96, height: int = 64) -> npt.NDArray[np.uint8]:
    """Return a picture whose four corners have different grey values: 240, 180, 120, 60, clockwise from the top left."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 240
    image[: height // 2, width // 2 :] = 180
    image[height // 2 :, width // 2 :] = 120
    image[height // 2 :, : width // 2] = 60
    return image


def corner_values(image: npt.NDArray[np.uint8]) -> list[int]:
    """Return the grey values of the corners, clockwise from the top left, rounded to tens."""
    height, width = image.shape[:2]
    places = ((1, 1), (1, 3), (3, 3), (3, 1))
    return [int(round(float(image[y * height // 4, x * width // 4].mean()), -1)) for y, x in places]


def as_fractions(seconds: list[Any]) -> list[Fraction]:
    """Return exact times."""
    return [Fraction(value) for value in seconds]


def ebml(number: int, body: bytes) -> bytes:
    """Return one element of Matroska."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big") + (len(body) | 1 << 56).to_bytes(8, "big") + body


def with_elements(path: Path, parents: tuple[int, ...], extra: bytes) -> None:
    """Add elements at the end of the first element that a path of numbers leads to, in a Matroska file's tracks.

    The file is one that was written as a stream (`-live 1`): its segment has no length that would change.
    """
    data = path.read_bytes()
    at = data.index((0x18538067).to_bytes(4, "big")) + 12
    while _element(data, at)[0] != 0x1654AE6B:
        at = _element(data, at)[1]
    _, end, tracks = _element(data, at)
    path.write_bytes(data[:at] + ebml(0x1654AE6B, _longer(tracks, parents, extra)) + data[end:])


def _longer(data: bytes, parents: tuple[int, ...], extra: bytes) -> bytes:
    if not parents:
        return data + extra
    at = 0
    while True:
        number, end, body = _element(data, at)
        if number == parents[0]:
            return data[:at] + ebml(number, _longer(body, parents[1:], extra)) + data[end:]
        at = end


def _element(data: bytes, at: int) -> tuple[int, int, bytes]:
    """Return an element's number, where it ends, and its content."""
    wide = 9 - data[at].bit_length()
    long = 9 - data[at + wide].bit_length()
    start = at + wide + long
    end = start + (int.from_bytes(data[at + wide : start], "big") & ((1 << 7 * long) - 1))
    return int.from_bytes(data[at : at + wide], "big"), end, data[start:end]
