import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moodline.services.detector.image import MAX_PIXELS, decode_jpeg, jpeg_size, reduced
from moodline.shared.errors import ImageError


def make_jpeg(width: int = 64, height: int = 40, **options: int) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    parameters = [value for name, number in options.items() for value in (getattr(cv2, name), number)]
    return cv2.imencode(".jpg", image, parameters)[1].tobytes()


def declared(data: bytes, width: int, height: int) -> bytes:
    """Return a JPEG whose header says another size."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 9 :]


@pytest.mark.parametrize("options", [{}, {"IMWRITE_JPEG_PROGRESSIVE": 1}, {"IMWRITE_JPEG_RST_INTERVAL": 4}])
def test_size_from_the_header_is_the_size_of_the_image(options: dict[str, int]) -> None:
    data = make_jpeg(61, 37, **options)
    assert jpeg_size(data) == (61, 37)
    assert decode_jpeg(data).shape == (37, 61, 3)


def test_a_grey_jpeg_becomes_colour() -> None:
    data = cv2.imencode(".jpg", np.full((20, 30), 128, np.uint8))[1].tobytes()
    assert decode_jpeg(data).shape == (20, 30, 3)


def test_a_huge_image_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="limits"):
        decode_jpeg(declared(make_jpeg(), 20_000, 20_000))
    with pytest.raises(ImageError, match="limits"):
        decode_jpeg(declared(make_jpeg(), 0, 100))
    assert MAX_PIXELS < 20_000 * 20_000


def test_a_header_that_lies_is_refused() -> None:
    with pytest.raises(ImageError):
        decode_jpeg(declared(make_jpeg(64, 40), 640, 400).replace(b"\xff\xd9", b""))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9",
        b"not an image",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        b"\xff\xd8" + b"\xff" * 500,
        b"\xff\xd8\xff\xc0\x00\x11",
        make_jpeg()[:-300],
        make_jpeg()[:-1],
        make_jpeg(IMWRITE_JPEG_PROGRESSIVE=1)[:-300],
        make_jpeg()[:100],
        make_jpeg()[10:],
    ],
)
def test_what_is_no_whole_jpeg_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode_jpeg(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_measured(tail: bytes) -> None:
    try:
        width, height = jpeg_size(b"\xff\xd8" + tail)
    except ImageError:
        return
    assert 0 <= width <= 65535
    assert 0 <= height <= 65535


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_images_are_decoded_or_refused(data: st.DataObject) -> None:
    jpeg = bytearray(make_jpeg())
    for _ in range(data.draw(st.integers(1, 8))):
        jpeg[data.draw(st.integers(0, len(jpeg) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode_jpeg(bytes(jpeg))
    except ImageError:
        return
    assert image.dtype == np.uint8


@given(st.integers(1, 700), st.integers(1, 700), st.integers(32, 400))
@settings(max_examples=50, deadline=None)
def test_reducing_keeps_the_way_back_exact(width: int, height: int, side: int) -> None:
    small, back_x, back_y = reduced(np.zeros((height, width, 3), np.uint8), side)
    assert max(small.shape[:2]) == min(side, max(width, height))
    assert small.shape[1] * back_x == pytest.approx(width)
    assert small.shape[0] * back_y == pytest.approx(height)
