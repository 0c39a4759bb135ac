"""Damage is said: frames that are damaged are corrupt, and a file that ends early says so."""

from pathlib import Path

import numpy as np
import pytest

from moodline.services.ingest.media.frames import Ending, Source
from moodline.shared.errors import ImageError
from tests.files.recipes import ffmpeg, opened

PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=10")


def made(path: Path, *options: str) -> Path:
    ffmpeg(*PICTURE, "-preset", "ultrafast", "-g", "25", *options, path)
    return path


def read(path: Path) -> tuple[int, int, Source]:
    """Return how many frames there are, and how many of them are damaged."""
    source, damaged, count = opened(path), 0, 0
    for frame in source.frames():
        count += 1
        try:
            frame.to_bgr()
        except ImageError:
            damaged += 1
    return count, damaged, source


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", ("-movflags", "faststart")),
        ("a.mov", ("-movflags", "faststart")),
        ("a.mkv", ()),
        ("a.webm", ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8")),
        ("a.avi", ("-c:v", "mpeg4", "-q:v", "5")),
        ("a.flv", ()),
        ("f.mp4", ("-movflags", "frag_keyframe+empty_moov+delay_moov")),
    ],
)
def test_a_file_that_is_cut(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    path = made(tmp_path / name, *options)
    assert read(path)[2].ending == Ending()
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    count, _, source = read(path)
    assert 100 < count < 200
    assert source.ending.reason == "truncated"
    if name not in ("f.mp4", "a.avi"):
        assert "of 10.0 s" in source.ending.detail


def test_sound_that_is_longer_is_no_damage(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mp4"):
        ffmpeg(*PICTURE, "-f", "lavfi", "-i", "sine=d=14", "-preset", "ultrafast", tmp_path / name)
        _, damaged, source = read(tmp_path / name)
        assert (damaged, source.ending) == (0, Ending())
        assert float(source.end_s) == pytest.approx(14, abs=0.1)


def test_a_part_shown_by_an_edit_list_is_no_damage(tmp_path: Path) -> None:
    made(tmp_path / "a.mp4")
    ffmpeg("-ss", "2.5", "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "b.mp4")
    assert read(tmp_path / "b.mp4")[2].ending == Ending()


def test_a_file_that_grows(tmp_path: Path) -> None:
    path = made(tmp_path / "a.ts")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 188 // 2 * 188])
    source = opened(path)
    frames = source.frames()
    next(frames)
    with path.open("ab") as file:
        file.write(data[len(data) // 188 // 2 * 188 :][: 188 * 100])
    for _ in frames:
        pass
    assert source.ending.reason == "truncated"
    assert "still being written" in source.ending.detail


@pytest.mark.parametrize("name", ["a.ts", "a.mp4"])
def test_overwritten_bytes(tmp_path: Path, name: str) -> None:
    path = made(tmp_path / name)
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(5)
    start = len(data) * 4 // 10
    for at in range(start, start + len(data) // 5, 97):
        data[at] = int(noise.integers(256))
    path.write_bytes(data)
    count, damaged, source = read(path)
    assert count > 200
    assert 10 < damaged < 125
    assert source.ending.reason in ("corrupt", "truncated")
    assert source.ending.corrupt == damaged
    assert "damaged" in source.ending.detail


def test_lost_packets_of_a_transport_stream(tmp_path: Path) -> None:
    data = made(tmp_path / "a.ts").read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    del packets[len(packets) // 2 : len(packets) // 2 + 30]
    (tmp_path / "b.ts").write_bytes(b"".join(packets))
    count, damaged, source = read(tmp_path / "b.ts")
    assert count > 230
    assert 1 <= damaged <= 25
    assert source.ending.reason == "corrupt"


@pytest.mark.parametrize(("suffix", "share"), [(".jpg", 2), (".png", 2)])
def test_a_cut_picture(tmp_path: Path, suffix: str, share: int) -> None:
    path = tmp_path / f"p{suffix}"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x480", "-frames:v", "1", path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // share])
    try:
        count, damaged, source = read(path)
    except Exception as error:
        assert "damaged" in str(error) or "cut" in str(error)  # noqa: PT017  # either is right
    else:
        assert (count, damaged, source.ending.reason is None) == (1, 1, False)
