"""The table of damaged files: each container with each kind of damage, and what has to be said of it.

The truth comes from the undamaged file: a frame that is given as good must look like one of its frames.
"""

import random
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from moodline.services.ingest.media.frames import Ending
from moodline.shared.errors import ImageError, SourceError
from tests.files.recipes import ffmpeg, opened, png_chunk

SOURCE = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=2", "-f", "lavfi", "-i", "sine=d=2")
X264 = ("-preset", "ultrafast", "-g", "10")
FAST = ("-deadline", "realtime", "-cpu-used", "8", "-g", "10")
RECIPES: dict[str, tuple[str, ...]] = {
    "h264.mkv": X264,
    "h264.ts": X264,
    "h264.flv": X264,
    "h264.mp4": (*X264, "-movflags", "+faststart"),
    "fragmented.mp4": (*X264, "-movflags", "frag_keyframe+empty_moov"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-g", "10", "-c:a", "mp3"),
    "vp8.webm": ("-c:v", "libvpx", *FAST),
    "vp9.webm": ("-c:v", "libvpx-vp9", *FAST),
    "mjpeg.mov": ("-c:v", "mjpeg", "-movflags", "+faststart"),
    "theora.ogv": ("-c:v", "libtheora", "-g", "10"),
    "moving.gif": ("-an",),
}
Damaging = Callable[[bytes], bytes]


def cut(data: bytes) -> bytes:
    return data[: len(data) * 6 // 10]


def zeros(data: bytes) -> bytes:
    start, end = len(data) * 5 // 10, len(data) * 8 // 10
    return data[:start] + bytes(end - start) + data[end:]


def noise(data: bytes) -> bytes:
    start, end = len(data) * 5 // 10, len(data) * 6 // 10
    return data[:start] + random.Random(3).randbytes(end - start) + data[end:]


def zeros_to_the_end(data: bytes) -> bytes:
    return data[: len(data) * 6 // 10] + bytes(len(data) * 4 // 10)


def appended(data: bytes) -> bytes:
    return data + random.Random(6).randbytes(5000)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, npt.NDArray[np.int16]]]:
    folder, found = tmp_path_factory.mktemp("whole"), {}
    for name, options in RECIPES.items():
        ffmpeg(*SOURCE, *options, folder / name)
        pictures, ending = read(folder / name)
        assert ending == Ending()
        found[name] = (folder / name).read_bytes(), np.stack([one for one in pictures if one is not None])
    return found


def read(path: Path) -> tuple[list[npt.NDArray[np.int16] | None], Ending]:
    """Return small copies of all frames, None for those that are damaged, and how the file ended."""
    source, pictures = opened(path), []
    for frame in source.frames():
        try:
            small = cv2.resize(frame.to_bgr(), (12, 8), interpolation=cv2.INTER_AREA)
            pictures.append(np.asarray(small, np.int16))
        except ImageError:
            pictures.append(None)
    ending = source.ending
    source.close()
    return pictures, ending


@pytest.mark.parametrize("damaging", [cut, zeros, noise, zeros_to_the_end])
@pytest.mark.parametrize("name", RECIPES)
def test_damage_is_said(
    whole: dict[str, tuple[bytes, npt.NDArray[np.int16]]], tmp_path: Path, name: str, damaging: Damaging
) -> None:
    data, frames = whole[name]
    path = tmp_path / name
    path.write_bytes(damaging(data))
    try:
        pictures, ending = read(path)
    except SourceError as error:
        assert error.reason == "corrupt"  # noqa: PT017  # either is right
        return
    assert ending.reason in ("truncated", "corrupt")
    assert ending.detail
    given = [one for one in pictures if one is not None]
    assert ending.corrupt >= len(pictures) - len(given)
    wrong = [one for one in given if np.abs(frames - one).mean(3).max((1, 2)).min() > 40]
    # A packet in which damage begins may be whole for its decoder: MPEG-4 in AVI and VP9 have nothing to tell by.
    assert len(wrong) <= (6 if name in ("mpeg4.avi", "vp9.webm") else 2)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_appended_takes_nothing_away(
    whole: dict[str, tuple[bytes, npt.NDArray[np.int16]]], tmp_path: Path, name: str
) -> None:
    data, frames = whole[name]
    path = tmp_path / name
    path.write_bytes(appended(data))
    pictures, _ = read(path)
    assert len([one for one in pictures if one is not None]) >= len(frames) - 1


def test_an_index_that_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    ffmpeg(*SOURCE, *X264, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SourceError, match=r"cut in its index \(moov\), 1000 bytes are missing"):
        opened(path)


def test_a_jpeg_that_is_cut_behind_its_preview(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)
    preview, main = (bytes(cv2.imencode(".jpg", cv2.resize(picture, size))[1]) for size in ((24, 16), (96, 64)))
    data = main[:2] + b"\xff\xe2" + (len(preview) + 2).to_bytes(2, "big") + preview + main[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert read(path)[1] == Ending()
    path.write_bytes(data[: len(data) * 7 // 10])
    pictures, ending = read(path)
    assert pictures == [None]
    assert (ending.reason, ending.corrupt) == ("truncated", 1)


def test_a_png_without_its_end(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)
    data = bytes(cv2.imencode(".png", picture)[1])
    path = tmp_path / "a.png"
    path.write_bytes(data.replace(png_chunk(b"IEND", b""), b""))
    pictures, ending = read(path)
    assert pictures == [None]
    assert ending.reason == "truncated"
