"""Pictures have the geometry that a good player shows: turned, mirrored, cropped, with square pixels, in full size."""

import struct
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.files.recipes import (
    clip,
    corner_values,
    corners,
    ebml,
    ffmpeg,
    first_picture,
    jpeg_with_exif,
    opened,
    png_with_icc,
    with_elements,
)

UPRIGHT = [240, 180, 120, 60]

EXIF = {
    1: (UPRIGHT, (96, 64)),
    2: ([180, 240, 60, 120], (96, 64)),
    3: ([120, 60, 240, 180], (96, 64)),
    4: ([60, 120, 180, 240], (96, 64)),
    5: ([240, 60, 120, 180], (64, 96)),
    6: ([60, 240, 180, 120], (64, 96)),
    7: ([120, 180, 240, 60], (64, 96)),
    8: ([180, 120, 60, 240], (64, 96)),
}
"""What the EXIF standard says of each orientation: corners clockwise from the top left, and the size."""


@pytest.mark.parametrize("orientation", EXIF)
@pytest.mark.parametrize(("suffix", "make"), [("jpg", jpeg_with_exif), ("png", png_with_icc)])
def test_all_eight_orientations(
    tmp_path: Path, orientation: int, suffix: str, make: Callable[[npt.NDArray[np.uint8], int], bytes]
) -> None:
    path = tmp_path / f"p.{suffix}"
    path.write_bytes(make(corners(), orientation))
    expected, size = EXIF[orientation]
    assert (opened(path).info.width, opened(path).info.height) == size
    image = first_picture(path)
    assert image.shape[:2] == size[::-1]
    assert corner_values(image) == expected


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
def test_a_picture_with_a_colour_profile_is_read(tmp_path: Path, suffix: str) -> None:
    """PyAV 18.1 crashes the process when it is asked for the side data of such a picture."""
    path = tmp_path / f"p{suffix}"
    pillow = pytest.importorskip("PIL.Image", reason="Pillow writes profiles into every kind of picture")
    profile = pytest.importorskip("PIL.ImageCms").ImageCmsProfile(pytest.importorskip("PIL.ImageCms").createProfile("sRGB"))
    pillow.fromarray(cv2.cvtColor(corners(), cv2.COLOR_BGR2RGB)).save(path, icc_profile=profile.tobytes())
    assert corner_values(first_picture(path)) == UPRIGHT


def made(path: Path, *options: str, size: str = "320x240") -> Path:
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d=0.4", *options, path)
    return path


@pytest.mark.parametrize(
    ("coded", "aspect", "shown"),
    [
        ("720x576", "16/15", (768, 576)),
        ("720x576", "64/45", (1024, 576)),
        ("720x480", "8/9", (640, 480)),
        ("1440x1080", "4/3", (1920, 1080)),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pixels_that_are_not_square(tmp_path: Path, coded: str, aspect: str, shown: tuple[int, int], suffix: str) -> None:
    path = made(tmp_path / f"a.{suffix}", "-vf", f"setsar={aspect}", "-preset", "ultrafast", size=coded)
    info = opened(path).info
    assert (info.width, info.height) == shown
    assert first_picture(path).shape == (shown[1], shown[0], 3)


def test_pixels_that_are_not_square_and_turned(tmp_path: Path) -> None:
    path = made(tmp_path / "a.mp4", "-vf", "setsar=2/1", "-preset", "ultrafast")
    turned = tmp_path / "b.mp4"
    ffmpeg("-i", path, "-c", "copy", "-metadata:s:v:0", "rotate=90", turned)
    assert (opened(turned).info.width, opened(turned).info.height) == (240, 640)
    assert first_picture(turned).shape == (640, 240, 3)


def test_a_clean_aperture(tmp_path: Path) -> None:
    path = made(tmp_path / "a.mov", "-preset", "ultrafast", "-qp", "0")
    whole = first_picture(path)
    put_clean_aperture(path, 200, 100, 20, -30)
    assert (opened(path).info.width, opened(path).info.height) == (200, 100)
    # Centre 160 + 20, 120 - 30.
    assert np.array_equal(first_picture(path), whole[40:140, 80:280])


def put_clean_aperture(path: Path, width: int, height: int, right: int, down: int) -> None:
    """Write a `clap` box into a file with one track whose index comes last."""
    data = path.read_bytes()
    box = struct.pack(">I4sIIIIiIiI", 40, b"clap", width, 1, height, 1, right, 1, down, 1)
    at = data.index(b"avc1") - 4
    at += struct.unpack_from(">I", data, at)[0]
    grown = bytearray(data[:at] + box + data[at:])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        place = grown.rindex(kind, 0, at) - 4
        struct.pack_into(">I", grown, place, struct.unpack_from(">I", grown, place)[0] + len(box))
    path.write_bytes(grown)


def test_interlaced_pictures_are_made_whole(tmp_path: Path) -> None:
    moving = "testsrc2=s=320x240:r=50:d=1,scroll=h=0.03"
    ffmpeg("-f", "lavfi", "-i", moving, "-c:v", "ffv1", tmp_path / "moving.mkv")
    ffmpeg(
        *("-i", tmp_path / "moving.mkv", "-vf", "interlace=scan=tff:lowpass=0", "-flags", "+ildct+ilme"),
        *("-c:v", "mpeg2video", "-q:v", "2", tmp_path / "woven.mpg"),
    )
    true = [frame.to_bgr().astype(int) for frame in opened(tmp_path / "moving.mkv").frames()][::2]
    found = [frame.to_bgr().astype(int) for frame in opened(tmp_path / "woven.mpg").frames()]
    errors = [float(np.abs(one - other).mean()) for one, other in zip(found, true, strict=False)]
    with av.open(str(tmp_path / "woven.mpg")) as container:
        woven = [frame.to_ndarray(format="bgr24").astype(int) for frame in container.decode(video=0)]
    combed = [float(np.abs(one - other).mean()) for one, other in zip(woven, true, strict=False)]
    assert len(found) == len(woven)
    assert max(errors[1:-1]) < min(combed[1:-1]) / 2


def test_progressive_pictures_are_left_alone(tmp_path: Path) -> None:
    path = made(tmp_path / "a.mp4", "-preset", "ultrafast")
    with av.open(str(path)) as container:
        plain = next(container.decode(video=0)).to_ndarray(format="bgr24")
    assert np.array_equal(first_picture(path), plain)


@pytest.mark.parametrize(("transfer", "most"), [("smpte2084", 4.0), ("arib-std-b67", 9.0)])
def test_hdr_looks_like_sdr(tmp_path: Path, transfer: str, most: float) -> None:
    """The same scene in SDR, and in HDR by FFmpeg's zscale with white at 203 cd/m2; the mean difference is in grey levels."""
    scene = clip("man-expressions.mp4")
    light = "zscale=tin=bt709:pin=bt709:min=bt709:rin=tv:t=linear:npl=203,format=gbrpf32le"
    hdr = f"{light},zscale=p=bt2020:t={transfer}:m=bt2020nc:r=tv:npl=203,format=yuv420p10le"
    tags = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc")
    ffmpeg("-t", "0.5", "-i", scene, "-an", "-vf", hdr, "-c:v", "libx265", "-preset", "ultrafast", *tags, tmp_path / "hdr.mp4")
    sdr, found = first_picture(scene).astype(int), first_picture(tmp_path / "hdr.mp4").astype(int)
    assert np.abs(found - sdr).mean() < most
    assert abs(found.mean() - sdr.mean()) < most


def test_what_a_matroska_file_crops(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:d=0.2", "-f", "matroska", "-live", "1", path)
    whole = first_picture(path)
    # PixelCropLeft, PixelCropTop, PixelCropRight, PixelCropBottom (RFC 9559).
    crops = b"".join(ebml(number, bytes([px])) for number, px in ((0x54CC, 20), (0x54BB, 10), (0x54DD, 40), (0x54AA, 30)))
    with_elements(path, (0xAE, 0xE0), crops)
    source = opened(path)
    assert (source.info.width, source.info.height) == (260, 200)
    assert np.array_equal(first_picture(path), whole[10:210, 20:280])
