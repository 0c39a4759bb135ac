"""Files as they come: every container, time stamps and rotation as written, and every kind of bad file with a clear reason."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import count, pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from moodline.services.ingest.file.container import CONTAINERS
from moodline.services.ingest.file.open import SCHEMES, open_source
from moodline.services.ingest.file.video import VideoFile
from moodline.services.ingest.media.frames import DecodedFrame, Ending, Source, never
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.settings import IngestSettings
from moodline.shared.streams import FailureReason
from tests.support.make_media import (
    MIRRORED,
    QUARTER_TURN_CLOCKWISE,
    make_sound,
    make_sound_with_cover,
    make_video,
    number_of,
    picture,
    png_of_nothing,
    set_display_matrix,
)

DAMAGED = -1
"""In the place of a number that cannot be read."""
B_FRAMES = {"bf": "2", "g": "12", "b_strategy": "0", "crf": "12"}


def opened(path: Path, **settings: object) -> Source:
    return open_source(path.as_uri(), IngestSettings.model_validate({"media_root": path.parent, **settings}))


def refused(path: Path, **settings: object) -> tuple[str, str]:
    with pytest.raises(SourceError) as caught:
        opened(path, **settings)
    return caught.value.reason, str(caught.value)


def read(path: Path) -> tuple[list[Fraction], list[int], Source]:
    source = opened(path)
    stamps, numbers = [], []
    for frame in source.frames():
        stamps.append(frame.pts_s)
        try:
            numbers.append(number_of(frame.to_bgr()))
        except ImageError:
            numbers.append(DAMAGED)
    return stamps, numbers, source


# Containers and time


@pytest.mark.parametrize(
    ("name", "codec", "container_format"),
    [
        ("a.mp4", "libx264", None),
        ("a.mov", "libx264", None),
        ("a.mkv", "libx264", None),
        ("a.ts", "libx264", None),
        ("a.flv", "libx264", None),
        ("a.avi", "mpeg4", None),
        ("b.avi", "libx264", None),
        ("a.mpg", "mpeg2video", None),
        ("a.webm", "libvpx", None),
        ("a.nut", "mpeg4", None),
        ("a.h264", "libx264", "h264"),
        ("a.asf", "mpeg4", None),
        ("suffix.txt", "libx264", "mp4"),
        ("no-suffix", "libx264", "matroska"),
        ("wrong.png", "libx264", "mp4"),
        ("frame%03d.mp4", "libx264", "mp4"),
    ],
)
def test_frames_come_in_order_of_presentation(tmp_path: Path, name: str, codec: str, container_format: str | None) -> None:
    options = B_FRAMES if codec == "libx264" else {"b": "4000000", "bf": "2"} if codec != "libvpx" else {"b": "4000000"}
    path = make_video(tmp_path / name, range(30), codec=codec, options=options, container_format=container_format)
    stamps, numbers, source = read(path)
    assert numbers == list(range(30))
    steps = {after - before for before, after in pairwise(stamps)}
    assert all(abs(step - Fraction(1, 25)) <= Fraction(1, 1000) for step in steps)
    assert stamps[0] < Fraction(1, 8)
    assert source.end_s - stamps[0] == pytest.approx(30 / 25, abs=0.002)
    assert source.damaged == 0


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_a_variable_frame_rate_is_kept(tmp_path: Path, name: str) -> None:
    ticks = [0, 40, 80, 500, 510, 1500, 1501, 4000]
    path = make_video(tmp_path / name, ticks, Fraction(1, 1000), options={"bf": "0", "crf": "12"})
    stamps, numbers, _ = read(path)
    assert numbers == list(range(8))
    assert stamps == [Fraction(at, 1000) for at in ticks]


@pytest.mark.parametrize("rate", [Fraction(30_000, 1001), Fraction(24_000, 1001), Fraction(2997, 100), Fraction(15)])
def test_rational_rates_are_exact(tmp_path: Path, rate: Fraction) -> None:
    path = make_video(
        tmp_path / "r.mp4",
        range(40),
        1 / rate,
        options=B_FRAMES,
        container_options={"video_track_timescale": str(rate.numerator)},
    )
    stamps, _, source = read(path)
    assert stamps == [number / rate for number in range(40)]
    assert (source.info.fps, source.end_s) == (rate, 40 / rate)


def test_a_late_first_frame_stays_late(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "late.mkv"), "w") as container:
        sound, video = container.add_stream("pcm_s16le", rate=8000), container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
        samples.rate, samples.pts = 8000, 0
        container.mux(sound.encode(samples))
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(picture(number), format="bgr24")
            frame.pts, frame.time_base = 25 + number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    stamps, _, _ = read(tmp_path / "late.mkv")
    assert stamps[0] == 1


def test_time_stamps_that_go_back_are_held(tmp_path: Path) -> None:
    # Two recordings glued together: the second begins at its own zero, far before the end of the first.
    one = make_video(tmp_path / "one.ts", range(100, 130), options={"bf": "0"}).read_bytes()
    two = make_video(tmp_path / "two.ts", range(10), options={"bf": "0"}).read_bytes()
    (tmp_path / "both.ts").write_bytes(one + two)
    stamps, _, _ = read(tmp_path / "both.ts")
    assert len(stamps) >= 38
    assert stamps == sorted(stamps)
    assert stamps == read(tmp_path / "both.ts")[0]


# Turned and mirrored


@pytest.mark.parametrize(
    ("matrix", "dark", "size"),
    [
        (QUARTER_TURN_CLOCKWISE, (slice(None, 48), slice(32, None)), (64, 96)),
        (MIRRORED, (slice(None, 32), slice(48, None)), (96, 64)),
    ],
)
def test_the_display_matrix_is_applied(
    tmp_path: Path, matrix: tuple[int, ...], dark: tuple[slice, slice], size: tuple[int, int]
) -> None:
    path = make_video(tmp_path / "turned.mp4", range(12), options=B_FRAMES)
    set_display_matrix(path, matrix)
    source = opened(path)
    assert (source.info.width, source.info.height) == size
    for frame in source.frames():
        image = frame.to_bgr()
        assert image.shape == (size[1], size[0], 3)
        assert image[dark].mean() < 10
        assert image.mean() > 30


def test_a_photos_orientation_is_applied(tmp_path: Path) -> None:
    _, jpeg = cv2.imencode(".jpg", picture(10))
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    data = bytes(jpeg[:2]) + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + bytes(jpeg[2:])
    (tmp_path / "photo.jpg").write_bytes(data)
    source = opened(tmp_path / "photo.jpg")
    image = next(source.frames()).to_bgr()
    assert (source.info.width, source.info.height) == (64, 96)
    assert image[:44, 36:].mean() < 20


# Pictures


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".gif", ".tiff"])
def test_a_picture_is_a_video_of_one_frame(tmp_path: Path, suffix: str) -> None:
    cv2.imwrite(str(tmp_path / f"p{suffix}"), picture(20))
    stamps, numbers, source = read(tmp_path / f"p{suffix}")
    assert (stamps, numbers) == ([0], [20])
    assert 0 < source.end_s <= 1


def test_a_moving_gif(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "m.gif"), "w") as container:
        stream = container.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "rgb8"
        for number in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="bgr24").reformat(format="rgb8")))
        container.mux(stream.encode())
    assert read(tmp_path / "m.gif")[0] == [Fraction(number, 10) for number in range(6)]


def test_a_name_that_looks_like_a_pattern_is_one_file(tmp_path: Path) -> None:
    for number, name in enumerate(("p%01d.png", "p1.png", "p2.png")):
        cv2.imwrite(str(tmp_path / name), picture(10 * (number + 1)))
    assert read(tmp_path / "p%01d.png")[1] == [10]


@pytest.mark.parametrize(
    ("name", "make", "weight"),
    [
        # 250 million px in less than 250 kB; 750 MB as 8-bit colour.
        ("bomb.png", lambda: png_of_nothing(16_000, 15_600), 250_000),
        ("side.png", lambda: png_of_nothing(20_000, 20_000), 400_000),
        ("side.jpg", lambda: _with_size(bytes(cv2.imencode(".jpg", picture(1))[1]), 20_000, 20_000), 10_000),
    ],
)
def test_pictures_that_unpack_to_gigabytes_take_no_memory(
    tmp_path: Path, name: str, make: Callable[[], bytes], weight: int
) -> None:
    (tmp_path / name).write_bytes(make())
    assert (tmp_path / name).stat().st_size < weight
    reason, grown_kb = _open_in_a_process(tmp_path / name)
    assert reason == "too_large"
    assert grown_kb < 40_000


def test_a_picture_within_the_limit_may_be_large(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png_of_nothing(7000, 1000))
    assert opened(tmp_path / "large.png").info.width == 7000
    reason, message = refused(tmp_path / "large.png", max_pixels=6_999_999)
    assert reason == "too_large"
    assert "7000 x 1000" in message


def test_a_picture_whose_size_only_its_decoder_knows_is_refused_too(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.tiff"), picture(1))
    reason, message = refused(tmp_path / "p.tiff", max_pixels=100)
    assert reason in ("too_large", "corrupt")
    assert "100 px" in message


def test_a_video_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", range(5))
    assert opened(path, max_pixels=96 * 64).info.width == 96
    assert refused(path, max_pixels=96 * 64 - 1)[0] == "too_large"


# Bad files


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("empty.mp4", lambda path: path.write_bytes(b""), "empty"),
        ("no-frames.mp4", lambda path: make_video(path, [], container_options={"movflags": "empty_moov+frag_keyframe"}), "empty"),
        ("no-tracks.mp4", lambda path: make_video(path, []), "no_video"),
        ("no-clusters.mkv", lambda path: _cut_before(make_video(path, range(5)), b"\x1f\x43\xb6\x75"), "corrupt"),
        ("sound.wav", make_sound, "no_video"),
        ("sound.mp4", make_sound, "no_video"),
        ("cover.mp3", lambda path: make_sound_with_cover(path, bytes(cv2.imencode(".png", picture(1))[1])), "no_video"),
        ("noise.mp4", lambda path: path.write_bytes(np.random.default_rng(1).bytes(200_000)), "corrupt"),
        ("zeros.mp4", lambda path: path.write_bytes(bytes(200_000)), "corrupt"),
        ("text.mp4", lambda path: path.write_text("hello, this is no video\n" * 100), "corrupt"),
        ("one-byte.mp4", lambda path: path.write_bytes(b"\0"), "corrupt"),
        ("half.png", lambda path: path.write_bytes(bytes(cv2.imencode(".png", picture(1))[1])[:60]), "corrupt"),
        ("folder", lambda path: path.mkdir(), "not_found"),
        ("missing.mp4", lambda path: None, "not_found"),
        ("long" * 100, lambda path: None, "unreachable"),
        ("pipe.mp4", os.mkfifo, "forbidden_url"),
    ],
)
def test_every_bad_file_says_what_is_wrong(tmp_path: Path, name: str, make: Callable[[Path], object], reason: str) -> None:
    make(tmp_path / name)
    found, message = refused(tmp_path / name)
    assert found == reason
    assert len(message) > 15
    assert "Errno" not in message
    assert "fd:" not in message


def test_a_file_without_its_index_is_corrupt(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", range(40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refused(path)[0] == "corrupt"


@pytest.mark.parametrize(("name", "options"), [("a.mkv", {}), ("a.mp4", {"movflags": "faststart"}), ("a.ts", {}), ("a.avi", {})])
def test_a_truncated_file_yields_what_is_there(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = make_video(tmp_path / name, range(40), options={"bf": "0", "g": "10", "crf": "4"}, container_options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 8])
    stamps, numbers, source = read(path)
    assert 5 <= len(numbers) < 40
    # The last frame may be cut in its middle.
    assert numbers[:-1] == list(range(len(numbers) - 1))
    assert numbers[-1] in (len(numbers) - 1, DAMAGED)
    assert source.end_s >= stamps[-1]
    assert name == "a.ts" or source.ending.reason == "truncated"


def test_damage_in_the_middle_is_counted_and_said(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mov", range(40), codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(3)
    for at in range(len(data) // 4, len(data) // 2, 40):
        data[at] = int(noise.integers(256))
    path.write_bytes(data)
    stamps, numbers, source = read(path)
    assert 5 < source.damaged < 25
    assert numbers.count(DAMAGED) == source.damaged
    assert numbers[:5] == list(range(5))
    assert numbers[-15:] == list(range(25, 40))
    assert stamps == [Fraction(number, 25) for number in range(40)]
    assert source.ending == Ending(FailureReason.CORRUPT, f"{source.damaged} frames are damaged", source.damaged, source.damaged)


class Flaky:
    """A container that fails to read again and again after its fifth packet, with one packet in between or none."""

    def __init__(self, container: object, failures: int, between: int) -> None:
        self.__dict__.update(container=container, failures=failures, between=between, given=0, flags=container.flags)

    def __getattr__(self, name: str) -> object:
        return getattr(self.container, name)

    def demux(self, stream: object) -> Iterator[object]:
        for number in count():
            if self.given >= 5 and number >= self.between and self.failures:
                self.__dict__["failures"] -= 1
                raise av.error.InvalidDataError(1_094_995_529, "Invalid data found when processing input")
            packet = next(self.container.demux(stream))
            self.__dict__["given"] += 1
            yield packet
            if not packet.size:
                return


@pytest.mark.parametrize(
    ("failures", "between", "frames", "damaged"),
    [
        pytest.param(1, 0, 30, 1, id="once"),
        pytest.param(16, 0, 30, 16, id="long"),
        pytest.param(20, 1, 30, 20, id="again and again"),
        pytest.param(1000, 0, 5, 17, id="for good"),
    ],
)
def test_reading_goes_on_after_damage_between_packets(
    tmp_path: Path, failures: int, between: int, frames: int, damaged: int
) -> None:
    path = make_video(tmp_path / "a.ts", range(30), options=B_FRAMES)
    source = VideoFile(Flaky(av.open(str(path)), failures, between), 1_000_000, never)
    assert [number_of(frame.to_bgr()) for frame in source.frames()] == list(range(frames))
    assert source.damaged == damaged
    source.close()


def test_damage_that_a_decoder_hides_is_the_same_every_time(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.ts", range(40), options={"bf": "2", "g": "10", "crf": "4"})
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 4, len(data) // 2, 333):
        data[at] ^= 0xFF
    path.write_bytes(data)

    def shown(frame: DecodedFrame) -> bytes:
        try:
            return frame.to_bgr().tobytes()
        except ImageError:
            return b"damaged"

    def everything() -> tuple[list[tuple[Fraction, bytes]], int]:
        source = opened(path)
        return [(frame.pts_s, shown(frame)) for frame in source.frames()], source.damaged

    frames, damaged = everything()
    assert 20 < len(frames) <= 40
    assert frames == sorted(frames, key=lambda frame: frame[0])
    assert all(everything() == (frames, damaged) for _ in range(3))


@pytest.fixture
def nobody() -> Iterator[None]:
    """Run as a user without privileges, where the test runs as root: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    yield
    os.seteuid(0)


def test_an_unreadable_file_says_so(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = make_video(tmp_path / "a.mp4", range(3))
    path.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    request.getfixturevalue("nobody")
    reason, message = refused(path)
    assert reason == "auth"
    assert "permission" in message


def test_no_file_stays_open(tmp_path: Path) -> None:
    good, bad = make_video(tmp_path / "a.mp4", range(3)), tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        source = opened(good)
        next(source.frames())
        source.close()
        source.close()
        refused(bad)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_cancelled_source_ends_early(tmp_path: Path) -> None:
    path, stop = make_video(tmp_path / "a.mp4", range(40), options={"bf": "0"}), []
    source = open_source(path.as_uri(), IngestSettings(media_root=tmp_path), lambda: bool(stop))
    given = 0
    for _ in source.frames():
        given += 1
        if given == 5:
            stop.append(True)
    assert 5 <= given < 40


# Addresses


@pytest.mark.parametrize("name", ["with space.mp4", "größe.mp4", "100%.mp4", "a#b?c.mp4", "ein%20name.mp4"])
def test_names_are_percent_encoded(tmp_path: Path, name: str) -> None:
    make_video(tmp_path / name, range(2))
    assert opened(tmp_path / name).info.width == 96


def test_links_may_point_inside_but_not_outside(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    make_video(outside / "secret.mp4", range(2))
    make_video(root / "fine.mp4", range(2))
    (root / "inside.mp4").symlink_to(root / "fine.mp4")
    (root / "out.mp4").symlink_to(outside / "secret.mp4")
    (root / "folder").symlink_to(outside)
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    settings = IngestSettings(media_root=root)
    assert open_source((root / "inside.mp4").as_uri(), settings).info.width == 96
    for path in ("out.mp4", "folder/secret.mp4", "../outside/secret.mp4", "folder/../../outside/secret.mp4"):
        with pytest.raises(SourceError) as caught:
            open_source(f"{root.as_uri()}/{path}", settings)
        assert caught.value.reason == "forbidden_url"
        assert "secret" not in str(caught.value)
    with pytest.raises(SourceError):
        open_source((root / "loop.mp4").as_uri(), settings)


def test_a_root_with_a_longer_neighbour(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media-private").mkdir()
    path = make_video(tmp_path / "media-private" / "a.mp4", range(2))
    with pytest.raises(SourceError) as caught:
        open_source(path.as_uri(), IngestSettings(media_root=tmp_path / "media"))
    assert caught.value.reason == "forbidden_url"


@pytest.mark.parametrize(
    "url",
    [
        "file://a.mp4",
        "file:a.mp4",
        "file://host/tmp/a.mp4",
        "file:///a.mp4?x=1",
        "file:///a.mp4#x",
        "file:///a%00.mp4",
        "file:///etc/passwd",
        "file://[::1/a.mp4",
        "/etc/passwd",
        "http://127.0.0.1/a.mp4",
        "rtsp://user:secret@host/a",
        "concat:/a.mp4|/b.mp4",
        "fd:",
        "",
    ],
)
def test_other_addresses_are_forbidden(tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(url, IngestSettings(media_root=tmp_path))
    assert caught.value.reason == "forbidden_url"
    assert "secret" not in str(caught.value)


def test_the_tables_name_what_exists() -> None:
    assert set(SCHEMES) == {"file", "sequence", "synthetic"}
    known = {name for names in av.formats_available for name in names.split(",")}
    assert set(CONTAINERS.split(",")) <= known


def _with_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[at + 4 :]


def _open_in_a_process(path: Path) -> tuple[str, int]:
    """Return the reason for refusal, and by how much the process grew beyond what its imports took, in kB."""
    script = """
import resource, sys
from pathlib import Path
import moodline.services.ingest.file.video, moodline.services.ingest.file.media_file
from moodline.services.ingest.file.open import open_source
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.settings import IngestSettings
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_source(path.as_uri(), IngestSettings(media_root=path.parent))
except SourceError as error:
    print(error.reason, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    answer = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60, check=True)
    reason, grown_kb = answer.stdout.split()
    return reason, int(grown_kb)


def _cut_before(path: Path, mark: bytes) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: data.index(mark)])
