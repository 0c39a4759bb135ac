"""A file that is not read says truly why, in one sentence."""

import os
import struct
from pathlib import Path

import cv2
import pytest

from moodline.services.ingest.file.open import open_source
from moodline.shared.errors import SourceError
from moodline.shared.settings import IngestSettings
from tests.files.recipes import corners, ebml, ffmpeg, first_picture, opened, refusal, with_elements
from tests.support.make_media import make_video

TGA = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 8, 8, 24, 32) + b"\x7f" * 192
ANIMATED_WEBP = (
    b"RIFF"
    + struct.pack("<I", 200)
    + b"WEBPVP8X"
    + struct.pack("<I", 10)
    + b"\x02\0\0\0"
    + b"\x3f\0\0\x3f\0\0"
    + b"ANIM"
    + b"\0" * 180
)


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("a.jxl", b"\xff\x0a" + b"\x12" * 60, "JPEG XL"),
        ("b.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 60, "JPEG XL"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 60, "JPEG 2000"),
        ("a.j2k", b"\xff\x4f\xff\x51" + b"\0" * 60, "JPEG 2000"),
        ("a.tga", TGA, "TGA"),
        ("b.tga", b"\x05\0\x0a" + b"\0" * 100 + b"\0" * 8 + b"TRUEVISION-XFILE.\0", "TGA"),
        ("a.ico", b"\0\0\1\0\1\0" + b"\0" * 60, "ICO"),
        ("a.webp", ANIMATED_WEBP, "animated WebP"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        ("a.zip", b"PK\x03\x04" + b"\0" * 60, "ZIP"),
        ("a.pdf", b"%PDF-1.7\n" + b"\0" * 60, "PDF"),
        ("a.m3u8", b"#EXTM3U\n#EXT-X-VERSION:3\n", "playlist"),
    ],
)
def test_kinds_that_are_not_read_are_named(tmp_path: Path, name: str, data: bytes, word: str) -> None:
    (tmp_path / name).write_bytes(data)
    reason, sentence = refusal(tmp_path / name)
    assert reason == "codec"
    assert word in sentence
    assert ";" in sentence  # and what to do


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".gif", ".ppm"])
def test_kinds_that_are_read_are_not_taken_for_others(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    cv2.imwrite(str(path), corners())
    assert first_picture(path).shape == (64, 96, 3)


def test_an_encrypted_video(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", range(5))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"encv"))
    reason, sentence = refusal(path)
    assert reason == "codec"
    assert "encrypted" in sentence


def test_common_encryption_by_ffmpeg(tmp_path: Path) -> None:
    plain, path = make_video(tmp_path / "p.mp4", range(5)), tmp_path / "c.mp4"
    key = "00112233445566778899aabbccddeeff"
    ffmpeg("-i", plain, "-c", "copy", "-encryption_scheme", "cenc-aes-ctr", "-encryption_key", key, "-encryption_kid", key, path)
    assert "encrypted" in refusal(path)[1]


def test_a_recording_without_its_index(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", range(40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reason, sentence = refusal(path)
    assert reason == "corrupt"
    assert "index (moov)" in sentence
    assert "still being written" in sentence


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".bmp", ".webp"])
def test_more_pixels_than_allowed_only_when_it_is_that(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    cv2.imwrite(str(path), corners(400, 300))
    reason, sentence = refusal(path, max_pixels=1000)
    assert (reason, "400 x 300 px" in sentence) == ("too_large", True)
    path.write_bytes(path.read_bytes()[:60])
    reason, sentence = refusal(path)
    assert reason in ("corrupt", "codec")
    assert "limit" not in sentence


def test_a_pipe_says_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SourceError, match="pipe"):
        opened(tmp_path / "pipe.mp4")


def test_a_socket_and_a_device_say_so() -> None:
    with pytest.raises(SourceError, match="device"):
        open_source("file:///dev/null", IngestSettings(media_root=Path("/")))


def test_an_encrypted_webm_is_told_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:d=0.2", "-c:v", "libvpx", "-f", "webm", "-live", "1", path)
    assert opened(path).info.codec == "vp8"
    # ContentEncodings, ContentEncoding, ContentEncodingType 1: encryption (RFC 9559).
    with_elements(path, (0xAE,), ebml(0x6D80, ebml(0x6240, ebml(0x5033, b"\x01") + ebml(0x5035, b""))))
    reason, sentence = refusal(path)
    assert (reason, "encrypted" in sentence) == ("codec", True)
