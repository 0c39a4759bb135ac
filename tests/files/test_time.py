"""Timelines follow what a player shows, whatever the container's time stamps do."""

import struct
from fractions import Fraction
from pathlib import Path

import cv2
import pytest

from moodline.services.ingest.media.sampling import Sampler
from tests.files.recipes import ffmpeg, frames_of, opened, times_of
from tests.support.make_media import picture

TEST_PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=2")


def made(path: Path, *options: str, source: tuple[str, ...] = TEST_PICTURE) -> Path:
    ffmpeg(*source, *options, path)
    return path


@pytest.mark.parametrize("case", ["restart", "overlap", "repeat", "negative", "late", "one absurd", "one far back"])
def test_odd_time_stamps_play_for_two_seconds(tmp_path: Path, case: str) -> None:
    path = tmp_path / "odd.mkv"
    path.write_bytes(matroska([40 * stamp for stamp in STAMPS[case]]))
    at, end = times_of(path)
    assert end == pytest.approx(2, abs=0.041)
    assert at[0] == 0
    assert at == sorted(set(at))
    assert len(at) == 50


def matroska(stamps_ms: list[int]) -> bytes:
    """Return a file of JPEG pictures with any time stamps: a muxer would refuse most."""
    jpegs = [bytes(cv2.imencode(".jpg", picture(number % 40))[1]) for number in range(len(stamps_ms))]
    video = element(0xE0, element(0xB0, b"\x60") + element(0xBA, b"\x40"))
    track = element(0xD7, b"\1") + element(0x73C5, b"\1") + element(0x83, b"\1") + element(0x86, b"V_MJPEG") + video
    # Default duration, in ns.
    track += element(0x23E383, (40_000_000).to_bytes(4, "big"))
    head = element(0x1A45DFA3, element(0x4282, b"matroska"))
    body = element(0x1549A966, element(0x2AD7B1, (1_000_000).to_bytes(3, "big"))) + element(0x1654AE6B, element(0xAE, track))
    for jpeg, stamp in zip(jpegs, stamps_ms, strict=True):
        cluster = max(0, stamp)
        block = b"\x81" + struct.pack(">h", stamp - cluster) + b"\x80" + jpeg
        body += element(0x1F43B675, element(0xE7, cluster.to_bytes(8, "big")) + element(0xA3, block))
    return head + element(0x18538067, body)


def element(number: int, content: bytes) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big") + (len(content) | 1 << 56).to_bytes(8, "big") + content


STAMPS = {
    "restart": [*range(25), *range(25)],
    "overlap": [*range(25), *range(15, 40)],
    "repeat": [number // 2 * 2 for number in range(50)],
    "negative": list(range(-25, 25)),
    "late": list(range(250, 300)),
    "one absurd": [number + (2_500_000 if number == 20 else 0) for number in range(50)],
    "one far back": [number - (15 if number == 20 else 0) for number in range(50)],
}


def test_two_recordings_glued_together(tmp_path: Path) -> None:
    one = made(tmp_path / "one.ts", "-bf", "0").read_bytes()
    (tmp_path / "both.ts").write_bytes(one + one)
    at, end = times_of(tmp_path / "both.ts")
    assert end == pytest.approx(4, abs=0.041)
    assert len(set(at)) == len(at)


def test_a_jump_of_a_broadcasts_clock_is_no_time(tmp_path: Path) -> None:
    one = made(tmp_path / "one.ts", "-bf", "0").read_bytes()
    two = made(tmp_path / "two.ts", "-bf", "0", "-output_ts_offset", "5000").read_bytes()
    (tmp_path / "both.ts").write_bytes(one + two)
    assert times_of(tmp_path / "both.ts")[1] == pytest.approx(4, abs=0.041)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "mov"])
def test_a_picture_that_stays(tmp_path: Path, suffix: str) -> None:
    path = made(tmp_path / f"slides.{suffix}", "-vf", "setpts='if(lt(N,25),N,N+200)/25/TB'", "-vsync", "vfr", "-bf", "0")
    frames, source = frames_of(path)
    assert float(source.end_s) == pytest.approx(10, abs=0.05)
    still = max(frames, key=lambda frame: frame.until_s - frame.pts_s)
    assert float(still.until_s - still.pts_s) == pytest.approx(8.04, abs=0.01)
    sampler = Sampler("5")
    sampled = [one for frame in frames if (one := sampler.choose(frame.pts_s, frame.until_s))]
    assert sum(1 + one.repeats for one in sampled) == 50
    assert max(one.repeats for one in sampled) in (39, 40)


def test_a_slow_gif(tmp_path: Path) -> None:
    path = made(tmp_path / "slow.gif", source=("-f", "lavfi", "-i", "testsrc2=s=96x64:r=1/4:d=12"))
    at, end = times_of(path)
    assert at == [0, 4, 8]
    assert end == pytest.approx(12, abs=0.1)


def test_the_last_picture_stays_until_the_sound_ends(tmp_path: Path) -> None:
    path = made(tmp_path / "cover.mp4", "-c:a", "aac", source=(*TEST_PICTURE, "-f", "lavfi", "-i", "sine=d=6"))
    assert times_of(path)[1] == pytest.approx(6, abs=0.05)


@pytest.mark.parametrize("rate", ["25", "30000/1001", "24000/1001", "12"])
def test_ends_are_exact(tmp_path: Path, rate: str) -> None:
    path = made(tmp_path / "a.mp4", source=("-f", "lavfi", "-i", f"testsrc2=s=96x64:r={rate}:d=3"))
    frames, source = frames_of(path)
    assert source.end_s == len(frames) / Fraction(rate)


def test_when_it_was_recorded(tmp_path: Path) -> None:
    path = made(tmp_path / "a.mp4", "-metadata", "creation_time=2026-05-01T12:00:00Z")
    assert opened(path).info.created_at_us == 1_777_636_800_000_000
    assert opened(made(tmp_path / "b.mp4")).info.created_at_us is None
