"""Annotated videos: every kind of file, its sound, the exact times, odd sizes; made with FFmpeg, judged by FFmpeg."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from moodline.services.analysis.annotate import Annotated, write_annotated
from moodline.services.analysis.overlay import Overlay
from moodline.services.ingest.file.media_file import open_media_file
from moodline.services.ingest.file.open import open_source
from moodline.services.ingest.media.frames import DecodedFrame, SourceInfo
from moodline.services.ingest.media.sampling import Sampler
from moodline.shared.errors import OutputError
from moodline.shared.settings import IngestSettings

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="FFmpeg makes the files")

PICTURE = "-f lavfi -i testsrc2=size=320x240:rate=25:duration=2"
SOUND = "-f lavfi -i sine=frequency=440:duration=2"


def make(path: Path, *arguments: str) -> Path:
    words = " ".join(arguments).split()
    subprocess.run(["ffmpeg", "-v", "error", "-y", *words, str(path)], check=True, timeout=60)
    return path


def annotate(source: Path, target: Path, *, stop_s: float = 1e9) -> Annotated:
    settings = IngestSettings(media_root=source.parent)
    url = source.resolve().as_uri()
    face = Overlay((16384, 16384, 49152, 49152), 1, 3, 0.9)
    with closing(open_source(url, settings)) as opened:
        return write_annotated(
            opened,
            Sampler("5"),
            iter([[face]] * 10_000),
            target,
            sound=lambda: open_media_file(url, settings.media_root),
            on_frame=lambda at_s: at_s < stop_s,
        )


def probe(path: Path) -> dict[str, dict[str, Any]]:
    command = ["ffprobe", "-v", "error", "-count_packets", "-show_streams", "-of", "json", str(path)]
    streams = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)["streams"]
    return {stream["codec_type"]: stream for stream in streams}


def times(path: Path, kind: str = "video") -> list[Fraction]:
    with av.open(str(path)) as container:
        stream = container.streams.best(kind)
        assert stream is not None
        return [Fraction(frame.pts * frame.time_base) for frame in container.decode(stream) if frame.pts is not None]


def loudness(path: Path) -> float:
    """Return the largest sample of the sound, 0 to 1."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a", "-f", "f32le", "-ac", "1", "-"]
    return float(np.abs(np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)).max())


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("sound", ["aac", "libopus", "pcm_s16le", "mp3", "libvorbis", "flac", "ac3"])
def test_the_sound_is_kept_in_every_kind_of_file(tmp_path: Path, suffix: str, sound: str) -> None:
    source = make(tmp_path / "v.mkv", PICTURE, SOUND, "-c:v libx264 -preset ultrafast -shortest -c:a", sound)
    done = annotate(source, tmp_path / f"o{suffix}")
    assert done.silent == ""
    assert done.frames == 50
    found = probe(tmp_path / f"o{suffix}")
    assert int(found["video"]["nb_read_packets"]) == 50
    spoken = times(tmp_path / f"o{suffix}", "audio")
    assert abs(float(spoken[0])) < 0.06
    assert 1.9 < float(spoken[-1]) < 2.1
    assert loudness(tmp_path / f"o{suffix}") > 0.05


def test_sound_that_the_container_takes_is_copied(tmp_path: Path) -> None:
    source = make(tmp_path / "v.mp4", PICTURE, SOUND, "-c:v libx264 -preset ultrafast -c:a aac")
    annotate(source, tmp_path / "o.mov")

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert packets(source) == packets(tmp_path / "o.mov")


def test_a_video_without_sound_and_one_of_a_transport_stream(tmp_path: Path) -> None:
    annotate(make(tmp_path / "silent.mp4", PICTURE, "-c:v libx264"), tmp_path / "silent.mkv")
    assert "audio" not in probe(tmp_path / "silent.mkv")
    annotate(make(tmp_path / "v.ts", PICTURE, SOUND, "-c:v libx264 -c:a aac -f mpegts"), tmp_path / "o.mp4")
    assert loudness(tmp_path / "o.mp4") > 0.05
    assert abs(float(times(tmp_path / "o.mp4", "audio")[0] - times(tmp_path / "o.mp4")[0])) < 0.1


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("rate", ["25", "30000/1001", "24000/1001", "60", "12.5", "50"])
def test_every_frame_keeps_its_time(tmp_path: Path, suffix: str, rate: str) -> None:
    source = make(tmp_path / "v.mp4", f"-f lavfi -i testsrc2=size=160x120:rate={rate}:duration=1 -c:v libx264 -preset ultrafast")
    annotate(source, tmp_path / f"o{suffix}")
    before, after = times(source), times(tmp_path / f"o{suffix}")
    assert len(before) == len(after)
    allowed = Fraction(0) if suffix in (".mp4", ".mov") else Fraction(1, 1999)
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= allowed


def test_a_variable_rate_is_kept(tmp_path: Path) -> None:
    vary = "-vf settb=1/90000,setpts='N*3600+N*N*97' -fps_mode passthrough -enc_time_base 1:90000 -video_track_timescale 90000"
    source = make(tmp_path / "v.mp4", PICTURE, vary, "-c:v libx264 -bf 0")
    annotate(source, tmp_path / "o.mp4")
    before, after = times(source), times(tmp_path / "o.mp4")
    assert len({b - a for a, b in pairwise(before)}) > 10
    assert [time - before[0] for time in before] == [time - after[0] for time in after]


def test_the_last_frame_lasts_as_long_as_it_did(tmp_path: Path) -> None:
    source = make(tmp_path / "v.mp4", "-f lavfi -i testsrc2=size=160x120:rate=2:duration=4 -c:v libx264")
    annotate(source, tmp_path / "o.mp4")
    assert float(probe(tmp_path / "o.mp4")["video"]["duration"]) == pytest.approx(4, abs=1e-3)


class Stamped:
    """A source with given times, in s."""

    def __init__(self, *times_s: Fraction, size: tuple[int, int] = (120, 160)) -> None:
        self.info = SourceInfo("none", size[1], size[0], None, None)
        self.damaged = 0
        self.end_s = times_s[-1] + Fraction(1, 25)
        self._times_s = times_s
        self._image = np.full((*size, 3), 90, np.uint8)

    def frames(self) -> Iterator[DecodedFrame]:
        for pts_s in self._times_s:
            yield DecodedFrame(pts_s, self._image.copy)

    def close(self) -> None:
        """Nothing to close."""


STRANGE = {
    "a jump of five hours": [*range(5), *range(450_000, 450_005)],
    "a jump of a day": [0, 1, 25 * 86_400],
    "repeated": [0, 1, 1, 1, 2, 3, 3, 4, 5, 5],
    "all at once": [0] * 10,
    "begins late": range(250, 260),
}


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_times_that_are_strange(tmp_path: Path, name: str, suffix: str) -> None:
    stamps = [Fraction(stamp, 25) for stamp in STRANGE[name]]
    done = write_annotated(Stamped(*stamps), Sampler("5"), iter([]), tmp_path / f"o{suffix}")
    assert done.frames == len(stamps)
    written = times(tmp_path / f"o{suffix}")
    assert len(written) >= len(stamps)
    assert written == sorted(written)
    assert abs(written[-1] - stamps[-1]) <= 600


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (16, 16), (17, 33), (321, 243), (4096, 8), (9000, 20)])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_any_size(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    width, height = size
    stamps = [Fraction(number, 5) for number in range(5)]
    face = Overlay((0, 0, 65536, 65536), 1, 3, 0.9)
    source = Stamped(*stamps, size=(height, width))
    write_annotated(source, Sampler("5"), iter([[face]] * 5), tmp_path / f"o{suffix}")
    found = probe(tmp_path / f"o{suffix}")["video"]
    assert found["width"] == min(8192, max(16, width + width % 2))
    assert found["height"] in (max(16, height + height % 2), 18)
    assert int(found["nb_read_packets"]) == 5


def test_rotation_is_resolved(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain.mp4", PICTURE, "-c:v libx264 -preset ultrafast")
    source = make(tmp_path / "v.mp4", f"-i {plain} -c copy -metadata:s:v rotate=90")
    annotate(source, tmp_path / "o.mp4")
    found = probe(tmp_path / "o.mp4")["video"]
    assert (found["width"], found["height"]) == (240, 320)
    assert not found.get("side_data_list")


def test_a_change_of_size_keeps_the_video_whole(tmp_path: Path) -> None:
    for number, size in enumerate(("320x240", "640x240", "100x200")):
        make(tmp_path / f"{number}.ts", f"-f lavfi -i testsrc2=size={size}:rate=25:duration=1 -c:v mpeg2video -f mpegts")
    source = tmp_path / "v.ts"
    source.write_bytes(b"".join((tmp_path / f"{number}.ts").read_bytes() for number in range(3)))
    done = annotate(source, tmp_path / "o.mp4")
    assert done.frames >= 73
    found = probe(tmp_path / "o.mp4")["video"]
    assert (found["width"], found["height"]) == (320, 240)
    assert int(found["nb_read_packets"]) >= done.frames


def test_a_video_that_is_ended_early_can_be_played(tmp_path: Path) -> None:
    source = make(tmp_path / "v.mp4", PICTURE, SOUND, "-c:v libx264 -c:a aac")
    done = annotate(source, tmp_path / "o.mp4", stop_s=1.0)
    assert (done.frames, done.end_s) == (25, 1)
    assert float(probe(tmp_path / "o.mp4")["video"]["duration"]) == pytest.approx(1, abs=1e-3)
    assert float(probe(tmp_path / "o.mp4")["audio"]["duration"]) == pytest.approx(1, abs=0.1)


def test_kinds_that_are_not_written(tmp_path: Path) -> None:
    source = make(tmp_path / "v.mp4", PICTURE, "-c:v libx264")
    for name in ("o.gif", "o.ogv", "o", "o.avi"):
        with pytest.raises(OutputError, match=r"ends with \.mp4, \.mov, \.mkv, \.webm"):
            annotate(source, tmp_path / name)


def test_a_full_disk_is_an_error_of_the_operating_system(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is Linux's")
    source = make(tmp_path / "v.mp4", PICTURE, "-c:v libx264")
    (tmp_path / "o.mkv").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        annotate(source, tmp_path / "o.mkv")
