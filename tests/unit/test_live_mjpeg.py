"""Multipart streams as cameras send them, well or badly."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moodline.services.ingest.camera.http.mjpeg import JpegSource, whole_jpeg
from moodline.services.ingest.camera.http.multipart import MultipartParser, boundary_of
from moodline.services.ingest.camera.input.frames import LiveLimits
from moodline.shared.errors import SourceError

JPEG = cv2.imencode(".jpg", np.full((24, 32, 3), 128, np.uint8))[1].tobytes()
BODIES = [JPEG[:-2] + bytes([number]) * 9 + b"\xff\xd9" for number in range(1, 4)]


def stream(bodies: list[bytes], *, length: int | None = 0, before: bytes = b"--xx", end: bytes = b"\r\n") -> bytes:
    """`length` is added to the true one; None: parts do not say theirs."""
    made = b"junk of a camera\r\n"
    for body in bodies:
        says = b"" if length is None else b"Content-Length: %d\r\n" % (len(body) + length)
        made += before + b"\r\nX-Odd header\r\n" + says + b"\r\n" + body + end
    return made + before + b"\r\n"


def parsed(data: bytes, step: int) -> list[bytes]:
    parser = MultipartParser(b"--xx")
    return [body for at in range(0, len(data), step) for body in parser.feed(data[at : at + step])]


@pytest.mark.parametrize("length", [0, None])
@pytest.mark.parametrize("before", [b"--xx", b"----xx"])
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b""])
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_every_picture_comes_out_whole(length: int | None, before: bytes, end: bytes, step: int) -> None:
    data = stream(BODIES, length=length, before=before, end=end)
    assert [whole_jpeg(body) for body in parsed(data, step)] == BODIES


def test_lengths_that_are_wrong_are_believed_once() -> None:
    assert [whole_jpeg(body) for body in parsed(stream(BODIES * 2, length=-20), 50)][1:] == (BODIES * 2)[1:]


@given(st.binary(max_size=400), st.integers(1, 50))
@settings(max_examples=50)
def test_garbage_is_no_picture(junk: bytes, step: int) -> None:
    parsed(b"--xx\r\n\r\n" + junk, step)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"--xx\r\nContent-Length: 999999999\r\n\r\n", "too_large"),
        (b"--xx\r\n\r\n" + b"a" * 5000, "too_large"),
        (b"--xx\r\n" + b"a" * 40_000, "corrupt"),
        (b"a" * 1_100_000, "corrupt"),
    ],
)
def test_memory_is_bounded(data: bytes, reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        MultipartParser(b"--xx", limit_bytes=4000).feed(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize("given_as", ["xx", "--xx", '"xx"', '"--xx"'])
def test_a_boundary_is_read_with_and_without_dashes(given_as: str) -> None:
    assert boundary_of(f"multipart/x-mixed-replace;boundary={given_as}; charset=x") == b"--xx"


def test_no_boundary_is_none() -> None:
    assert boundary_of("multipart/x-mixed-replace") == b""


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize(
    "data",
    [
        b"".join(BODIES) + b"\r\n",
        b"".join(b"--other\r\nContent-Type image/jpeg\r\n\r\n" + body + b"\r\n" for body in BODIES),
        b"".join(b"--xx\r\n--xx\r\nContent-Length : %d\r\n\r\n" % len(body) + body for body in BODIES),
        b"".join(b"--xx\r\nContent-Length: -1\r\n\r\n" + body + b"\r\n" for body in BODIES),
        b"".join(b"--xx\r\nContent-Length: %d\r\n\r\n" % len(body[:-2]) + body[:-2] + b"\r\n" for body in BODIES) + b"--xx",
        b"".join(b"--xx\r\nContent-Type: image/jpeg\r\n\r\n" + body[:-2] + b"\r\n" for body in BODIES) + b"--xx\r\nContent-Type",
        b"".join(b"--xx\r\nContent-Length: %d\r\n\r\n" % (len(body) + 31) + body + b"\r\n" for body in BODIES) + b"--xx" * 20,
    ],
    ids=["no boundary", "another boundary", "doubled", "length of -1", "no end mark", "no end mark, no length", "too long"],
)
def test_pictures_are_found_by_their_markers(data: bytes, step: int) -> None:
    assert [whole_jpeg(body) for body in parsed(data, step)] == BODIES


def source_of(bodies: list[bytes], limits: LiveLimits) -> JpegSource:
    left = [[body] for body in bodies]
    return JpegSource(lambda _: left.pop(0) if left else [], lambda: None, limits, 1e18)


def test_what_is_no_picture_is_counted_and_left_out() -> None:
    source = source_of([b"x", JPEG[:-2], JPEG], LiveLimits())
    frame = next(source.frames())
    assert (frame.width, frame.height, frame.to_bgr().shape) == (32, 24, (24, 32, 3))
    assert (source.counts.damaged, source.counts.decoded) == (2, 1)


def test_a_picture_over_the_limit_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(SourceError) as caught:
        source_of([JPEG], LiveLimits(max_pixels=32 * 24 - 1))
    assert caught.value.reason == "too_large"


def test_without_pictures_the_time_is_up() -> None:
    source = source_of([JPEG], LiveLimits(read_timeout_s=0.05))
    with pytest.raises(SourceError) as caught:
        list(source.frames())
    assert caught.value.reason == "timeout"
