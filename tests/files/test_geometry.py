"""Pictures have the geometry that a good player shows: turned, mirrored, cropped, with square pixels, in full size."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.files.recipes import corner_values, corners, first_picture, jpeg_with_exif, opened, png_with_icc

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
