"""Which library decodes video files for ingest: PyAV or OpenCV. Run it on any clips:

    python bench/decode.py ../shared/clips/webcam-portrait.mp4 ../shared/clips/man-expressions.mp4

It prints, per clip and library, frames per second of CPU time with one decoder thread (best of three): decoding alone, with
every fifth frame converted to BGR (about what sampling does), and with every frame converted. Then what each library says of
time and orientation, on files that it makes itself: a variable frame rate, a rate of 30000/1001, B-frames without time stamps
(AVI), a picture that begins after its sound, a quarter turn, and a mirrored picture.
"""

import argparse
import resource
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from moodline.services.ingest.file.open import open_source
from moodline.shared.settings import IngestSettings

ONE = 1 << 16
Frames = Iterator[tuple[Fraction | float, Callable[[], np.ndarray]]]


def with_pyav(path: Path) -> Frames:
    """Decode as Moodline does."""
    source = open_source(path.resolve().as_uri(), IngestSettings(media_root=Path("/")))
    for frame in source.frames():
        yield frame.pts_s, frame.to_bgr
    source.close()


def with_opencv(path: Path) -> Frames:
    """Decode with OpenCV's own FFmpeg, one thread."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, (cv2.CAP_PROP_N_THREADS, 1))
    while capture.grab():
        yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, lambda: capture.retrieve()[1]
    capture.release()


LIBRARIES = {"PyAV": with_pyav, "OpenCV": with_opencv}


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def speed(path: Path, decode: Callable[[Path], Frames], convert_each: int | None) -> float:
    """Return frames per CPU-second, best of three."""
    best = 0.0
    for _ in range(3):
        started_s, count = cpu_s(), 0
        for _, convert in decode(path):
            if convert_each and count % convert_each == 0:
                convert()
            count += 1
        best = max(best, count / (cpu_s() - started_s))
    return best


def make(path: Path, ticks: list[int], base: Fraction, codec: str = "libx264", late_sound: bool = False) -> Path:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48_000) if late_sound else None
        stream = container.add_stream(codec, rate=25, options={"bf": "2", "g": "12"})
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = 96, 64, "yuv420p", base
        for number in range(60) if sound else ():
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate, silence.pts = 48_000, 1024 * number
            container.mux(sound.encode(silence))
        for at in ticks:
            image = np.full((64, 96, 3), 90, np.uint8)
            image[:32, :48] = 0
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = at, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            container.mux(sound.encode())
    return path


def turned(path: Path, matrix: tuple[int, ...]) -> Path:
    data = bytearray(make(path, list(range(10)), Fraction(1, 25)).read_bytes())
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *matrix)
    path.write_bytes(data)
    return path


def dark_corner(image: np.ndarray) -> str:
    height, width = image.shape[:2]
    corners = {
        "upper left": image[: height // 2, : width // 2],
        "upper right": image[: height // 2, width // 2 :],
        "lower left": image[height // 2 :, : width // 2],
        "lower right": image[height // 2 :, width // 2 :],
    }
    return f"{width}x{height}, dark {min(corners, key=lambda name: corners[name].mean())}"


def show_speed(clips: list[Path]) -> None:
    print(f"{'clip':28} {'library':8} {'decode':>8} {'every 5th':>10} {'every':>8}   frames per CPU-second")
    for clip in clips:
        for name, decode in LIBRARIES.items():
            rates = [speed(clip, decode, each) for each in (None, 5, 1)]
            print(f"{clip.name:28} {name:8} {rates[0]:8.0f} {rates[1]:10.0f} {rates[2]:8.0f}")


def show_time(folder: Path) -> None:
    cases: dict[str, tuple[Path, Callable[[list[Fraction | float]], object], object]] = {
        "variable rate (ms)": (
            make(folder / "vfr.mp4", [0, 40, 500, 510, 4000], Fraction(1, 1000)),
            lambda stamps: [float(round(at * 1000, 3)) for at in stamps],
            [0, 40, 500, 510, 4000],
        ),
        "30000/1001, frame 99": (
            make(folder / "ntsc.mp4", list(range(100)), Fraction(1001, 30_000)),
            lambda stamps: stamps[99],
            Fraction(99 * 1001, 30_000),
        ),
        "AVI with B-frames: steps": (
            make(folder / "b.avi", list(range(20)), Fraction(1, 25)),
            lambda stamps: sorted({float(round(after - before, 6)) for before, after in pairwise(stamps)}),
            [0.04],
        ),
        "picture 0.4 s after sound": (
            make(folder / "late.mp4", list(range(10, 30)), Fraction(1, 25), late_sound=True),
            lambda stamps: float(stamps[0]),
            0.4,
        ),
    }
    for title, (path, read, right) in cases.items():
        print(f"\n{title}: right is {right}")
        for name, decode in LIBRARIES.items():
            print(f"  {name:8} {read([at for at, _ in decode(path)])}")


def show_orientation(folder: Path) -> None:
    cases = {
        "quarter turn clockwise": ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), "64x96, dark upper right"),
        "mirrored": ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), "96x64, dark upper right"),
        "mirrored quarter turn": ((0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), "64x96, dark upper left"),
    }
    for title, (matrix, right) in cases.items():
        path = turned(folder / "turned.mp4", matrix)
        print(f"\n{title}: right is {right}")
        for name, decode in LIBRARIES.items():
            print(f"  {name:8} {dark_corner(next(iter(decode(path)))[1]())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path)
    show_speed(parser.parse_args().clips)
    with tempfile.TemporaryDirectory() as folder:
        show_time(Path(folder))
        show_orientation(Path(folder))


if __name__ == "__main__":
    main()
