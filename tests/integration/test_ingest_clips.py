"""Real clips: every frame, at its exact time, the same every time."""

import threading
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from moodline.services.ingest.file.open import open_source
from moodline.services.ingest.file.patience import Patience
from moodline.services.ingest.file.reader import FileReader
from moodline.services.ingest.media.frames import Source
from moodline.services.ingest.media.sampling import Sampler
from moodline.services.ingest.stream.outcome import Outcome
from moodline.shared.messages import End, Frame, Message
from moodline.shared.settings import IngestSettings
from moodline.shared.streams import StreamSpec
from tests.support.ingest_doubles import apply, open_desk

pytestmark = pytest.mark.material

NTSC, FILM = Fraction(2997, 100), Fraction(24_000, 1001)
LATE = Fraction(10_214, 11_988) - Fraction(353, 44_100)

# As ffprobe counts and times them: name, codec, size, frames, rate, first frame (s), end of the last or of the sound (s).
CLIPS = [
    ("classroom.mp4", "h264", (480, 270), 45, Fraction(15), Fraction(0), Fraction(3)),
    ("face-demographics-walking.mp4", "h264", (480, 270), 35, Fraction(12), Fraction(0), Fraction(35, 12)),
    ("face-leaves.mov", "hevc", (960, 540), 169, Fraction(519_168, 19_667), Fraction(0), Fraction(19_667, 3072)),
    ("film-1915.mp4", "h264", (640, 360), 241, Fraction(25), Fraction(0), Fraction(241, 25)),
    ("head-pose-face-detection-male.mp4", "h264", (480, 270), 62, Fraction(12), Fraction(0), Fraction(62, 12)),
    ("man-expressions.mp4", "h264", (640, 360), 472, FILM, Fraction(0), Fraction(7384, 375)),
    # Its picture begins after its sound, which is the file's first instant.
    ("stage-speech.mp4", "h264", (640, 360), 275, NTSC, LATE, LATE + 275 / NTSC),
    ("webcam-portrait.mp4", "h264", (1280, 720), 195, Fraction(25), Fraction(0), Fraction(976, 125)),
    ("webcam-short.mkv", "h264", (640, 480), 65, Fraction(30), Fraction(0), Fraction(2167, 1000)),
    ("woman-speaking.mp4", "h264", (596, 336), 464, NTSC, Fraction(0), 464 / NTSC),
]  # fmt: skip


def opened(clips: Path, name: str) -> Source:
    return open_source((clips / name).as_uri(), IngestSettings(media_root=clips))


@pytest.mark.parametrize("clip", CLIPS, ids=[clip[0] for clip in CLIPS])
def test_every_frame_at_its_time(clips: Path, clip: tuple[str, str, tuple[int, int], int, Fraction, Fraction, Fraction]) -> None:
    name, codec, size, count, rate, first_s, end_s = clip
    source = opened(clips, name)
    assert (source.info.codec, (source.info.width, source.info.height), source.info.fps) == (codec, size, rate)
    stamps = [frame.pts_s for frame in source.frames()]
    assert (len(stamps), stamps[0], source.end_s) == (count, first_s, end_s)
    assert all(before < after for before, after in pairwise(stamps))
    assert source.damaged == 0
    assert abs(source.info.duration_us - end_s * 1_000_000) < 60_000
    source.close()


@pytest.mark.parametrize("name", ["man-expressions.mp4", "woman-speaking.mp4", "stage-speech.mp4", "film-1915.mp4"])
def test_constant_rates_are_exact_to_the_last_frame(clips: Path, name: str) -> None:
    source = opened(clips, name)
    stamps = [frame.pts_s for frame in source.frames()]
    assert stamps == [stamps[0] + number / source.info.fps for number in range(len(stamps))]


def test_a_variable_rate_keeps_its_uneven_gaps(clips: Path) -> None:
    source = opened(clips, "face-leaves.mov")
    gaps = {after - before for before, after in pairwise(frame.pts_s for frame in source.frames())}
    assert gaps == {Fraction(7, 512), Fraction(461, 15_360), Fraction(1, 30), Fraction(1, 24)}


def test_milliseconds_of_matroska_count_from_the_files_start(clips: Path) -> None:
    source = opened(clips, "webcam-short.mkv")
    assert [frame.pts_s for frame in source.frames()][:4] == [Fraction(at, 1000) for at in (0, 34, 67, 100)]


def test_five_frames_a_second_of_a_film(clips: Path) -> None:
    source, sampler = opened(clips, "man-expressions.mp4"), Sampler("5")
    taken = [number for number, frame in enumerate(source.frames()) if sampler.take(frame.pts_s)]
    assert len(taken) == 99
    assert taken == [-(-slot * 24_000 // 5005) for slot in range(99)]


@pytest.mark.parametrize("name", ["webcam-portrait.mp4", "face-leaves.mov"])
def test_pictures_are_what_opencv_decodes(clips: Path, name: str) -> None:
    reference = cv2.VideoCapture(str(clips / name))
    for number, frame in enumerate(opened(clips, name).frames()):
        assert reference.grab()
        if number % 40 == 0:
            image, expected = frame.to_bgr(), reference.retrieve()[1]
            assert image.shape == expected.shape
            assert image.dtype == np.uint8
            assert image.flags.c_contiguous
            assert np.abs(image.astype(int) - expected).mean() < 2.5


@pytest.mark.parametrize(
    ("name", "sample_fps"), [("woman-speaking.mp4", "5"), ("webcam-short.mkv", "all"), ("face-leaves.mov", "12.5")]
)
def test_reading_on_from_any_mark_gives_the_same_bytes(clips: Path, tmp_path: Path, name: str, sample_fps: str) -> None:
    whole = read(clips, tmp_path / "whole", name, sample_fps, [])
    again = read(clips, tmp_path / "again", name, sample_fps, [])
    assert content(again) == content(whole)
    for stands_at in (0, len(whole) // 2, len(whole) - 2):
        rest = read(clips, tmp_path / str(stands_at), name, sample_fps, whole[: stands_at + 1])
        assert content(rest) == content(whole)[stands_at + 1 :]


def read(clips: Path, folder: Path, name: str, sample_fps: str, done: list[Message]) -> list[Message]:
    folder.mkdir()
    desk = open_desk(folder, media_root=clips)
    desk.watch.start()
    spec = StreamSpec(stream_id="clip", url=(clips / name).as_uri(), sample_fps=sample_fps, max_side_px=320)
    desk.store.add(spec)
    for message in done:
        assert apply(desk.store, message)
    parts = replace(desk.parts, open_source=open_source)
    assert FileReader(spec, parts, threading.Event(), Patience(30.0)).run() is Outcome.ENDED
    assert desk.store.load(["clip"])[0].final
    desk.close()
    return desk.producer.messages


def content(messages: list[Message]) -> list[tuple[object, ...]]:
    assert isinstance(messages[-1], End)
    return [(message.seq, message.event_time_us, message.jpeg if isinstance(message, Frame) else "end") for message in messages]
