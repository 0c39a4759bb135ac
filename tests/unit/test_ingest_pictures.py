"""Pictures are turned upright, reduced, encoded the same way every time, and measured before they are unpacked."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.file.orientation import Orientation, orientation_from_matrix, turn_upright
from moodline.services.ingest.media.encode import encode_jpeg, reduce_image
from moodline.services.ingest.media.image_size import image_size_px
from moodline.shared.errors import ImageError

ONE = 1 << 16


def shown(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Draw every point where the display matrix says: (p, q) goes to (p*a + q*c, p*b + q*d), moved back into view."""
    height, width = image.shape[:2]
    points = {(p * a + q * c, p * b + q * d): image[q, p] for p in range(width) for q in range(height)}
    left, top = min(x for x, _ in points), min(y for _, y in points)
    size = (max(y for _, y in points) - top + 1, max(x for x, _ in points) - left + 1, 3)
    drawn = np.zeros(size, np.uint8)
    for (x, y), value in points.items():
        drawn[y - top, x - left] = value
    return drawn


@pytest.mark.parametrize(
    ("a", "b", "c", "d"),
    [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)],
)
def test_every_display_matrix_is_applied_as_written(a: int, b: int, c: int, d: int) -> None:
    image = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    matrix = struct.pack("=9i", a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 1234, 5678, 1 << 30)
    assert np.array_equal(turn_upright(image, orientation_from_matrix(matrix)), shown(image, a, b, c, d))


def test_an_oblique_matrix_is_taken_for_the_nearest_quarter_turn() -> None:
    matrix = struct.pack("=9i", ONE // 4, ONE, 0, -ONE, ONE // 4, 0, 0, 0, 1 << 30)
    assert orientation_from_matrix(matrix) == Orientation(transposed=True, mirror_x=True)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 2000))
def test_reducing_keeps_proportions_and_the_limit(width: int, height: int, limit: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    reduced = reduce_image(image, limit)
    new_height, new_width = reduced.shape[:2]
    if max(width, height) <= limit:
        assert reduced is image
        return
    assert max(new_width, new_height) == limit
    assert abs(new_width - max(1, width * limit / max(width, height))) <= 0.5
    assert abs(new_height - max(1, height * limit / max(width, height))) <= 0.5


def test_jpegs_are_close_to_the_picture_and_always_the_same() -> None:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    image = np.dstack((np.tile(ramp, (48, 1)), np.tile(ramp[:48, None], (1, 64)), np.full((48, 64), 99, np.uint8)))
    jpeg = encode_jpeg(image, 90)
    assert jpeg == encode_jpeg(image.copy(), 90)
    assert len(encode_jpeg(image, 40)) < len(jpeg)
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image).mean() < 4


@pytest.mark.parametrize("shape", [(0, 0, 3), (1, 70_000, 3)])
def test_what_cannot_be_a_jpeg_is_an_image_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError):
        encode_jpeg(np.zeros(shape, np.uint8), 90)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".gif"])
@pytest.mark.parametrize("size", [(7, 5), (300, 1000)])
def test_size_of_real_pictures(suffix: str, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), np.uint8)
    encoded, data = cv2.imencode(suffix, noise)
    assert encoded
    assert image_size_px(bytes(data)) == size


def test_size_of_a_jpeg_behind_a_large_preview() -> None:
    _, data = cv2.imencode(".jpg", np.zeros((9, 11, 3), np.uint8))
    preview = b"\xff\xe1" + (40_000).to_bytes(2, "big") + bytes(39_998)
    assert image_size_px(bytes(data[:2]) + preview + b"\xff" + bytes(data[2:])) == (11, 9)


def test_size_of_a_lossless_webp() -> None:
    _, data = cv2.imencode(".webp", np.zeros((9, 11, 3), np.uint8), (cv2.IMWRITE_WEBP_QUALITY, 101))
    assert bytes(data[12:16]) == b"VP8L"
    assert image_size_px(bytes(data)) == (11, 9)


@given(
    st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF", b"RIFF0000WEBPVP8X", b"\xff\xd8", b"\xff\xd8\xff\xe0"]
    ),
    st.binary(max_size=80),
)
def test_anything_may_follow_a_magic_number(magic: bytes, rest: bytes) -> None:
    size = image_size_px(magic + rest)
    assert size is None or min(size) >= 0
