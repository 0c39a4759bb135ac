"""Media made for tests: videos with chosen time stamps, pictures that unpack to far more than they weigh."""

import struct
import wave
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ONE = 1 << 16
QUARTER_TURN_CLOCKWISE = (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)
MIRRORED = (-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)


def picture(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A grey picture whose brightness tells its number, 0 to 40, with a dark upper left quarter: uint8 (H, W, 3)."""
    image = np.full((height, width, 3), round(_level(number)), np.uint8)
    image[: height // 2, : width // 2] = 0
    return image


def number_of(image: np.ndarray) -> int:
    """Tell a picture's number from its lower right quarter."""
    height, width = image.shape[:2]
    level = float(image[height // 2 + 4 :, width // 2 + 4 :].mean())
    return round((level * 219 / 255 + 16 - 60) / 4)


def _level(number: int) -> float:
    """Brightness of full range for a luma of 60 + 4 * number."""
    return (60 + 4 * number - 16) * 255 / 219


def _frame(number: int) -> av.VideoFrame:
    """The picture as yuv420p, made without a conversion that rounds."""
    planes = np.full((96, 96), 128, np.uint8)
    planes[:64] = 60 + 4 * number
    planes[:32, :48] = 16
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")


def make_video(
    path: Path,
    ticks: Sequence[int],
    time_base: Fraction = Fraction(1, 25),
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> Path:
    """Write numbered pictures with these presentation time stamps."""
    with av.open(str(path), "w", options=container_options or {}, format=container_format) as container:
        stream = container.add_stream(codec, rate=1 / time_base, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        stream.codec_context.time_base = time_base
        if not ticks:
            container.start_encoding()
        for number, at in enumerate(ticks):
            frame = _frame(number) if pix_fmt == "yuv420p" else av.VideoFrame.from_ndarray(picture(number), format="bgr24")
            frame.pts, frame.time_base = at, time_base
            container.mux(stream.encode(frame))
        if ticks:
            container.mux(stream.encode())
    return path


def set_display_matrix(path: Path, matrix: Sequence[int]) -> None:
    """Overwrite the display matrix in the (first) track header of an MP4 file."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    assert data[at] == 0, "version 0 of the track header"
    struct.pack_into(">9i", data, at + 40, *matrix)
    path.write_bytes(data)


def make_sound(path: Path) -> Path:
    """Write a tenth of a second of silence as WAV."""
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return path


def make_sound_with_cover(path: Path, cover: bytes) -> Path:
    """Write an MP3 with a cover picture."""
    with av.open(str(path), "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("mp3", rate=44_100)
        for _ in range(20):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16p", layout="mono")
            silence.rate = 44_100
            container.mux(stream.encode(silence))
        container.mux(stream.encode())
    body = b"\0image/png\0\x03\0" + cover
    frame = b"APIC" + struct.pack(">IH", len(body), 0) + body
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\0\0" + size + frame + path.read_bytes())
    return path


def png_of_nothing(width: int, height: int) -> bytes:
    """An all-black 8-bit grey PNG: about a thousandth of its unpacked size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(9), bytes(1 + width)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
