"""HEIC photos as phones write them: tiles in a grid, a thumbnail beside it, turned by a property."""

import struct
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.files.recipes import corner_values, corners, ffmpeg, first_picture, opened, refusal

TILE = 64


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return box(kind, bytes([version]) + flags.to_bytes(3, "big"), *parts)


def hevc(path: Path, image: npt.NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """Return the decoder's configuration and the coded picture."""
    cv2.imwrite(str(path.with_suffix(".png")), image)
    ffmpeg(
        *("-i", path.with_suffix(".png"), "-vf", "format=yuv420p", "-c:v", "libx265", "-preset", "ultrafast"),
        *("-x265-params", "crf=4:log-level=none", "-tag:v", "hvc1", path),
    )
    with av.open(str(path)) as container:
        configuration = bytes(container.streams.video[0].codec_context.extradata)
        packet = next(packet for packet in container.demux(video=0) if packet.size)
        return configuration, bytes(packet)


def heic(
    tmp_path: Path, image: npt.NDArray[np.uint8], turns: int = 0, mirror: int | None = None, broken: int | None = None
) -> bytes:
    """Return a photo in tiles of `TILE` px, whose last row and column stick out."""
    height, width = image.shape[:2]
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.pad(image, ((0, rows * TILE - height), (0, columns * TILE - width), (0, 0)), mode="edge")
    tiles = [padded[y : y + TILE, x : x + TILE] for y in range(0, rows * TILE, TILE) for x in range(0, columns * TILE, TILE)]
    coded = [hevc(tmp_path / "tile.mp4", np.ascontiguousarray(tile)) for tile in tiles]
    coded.append(hevc(tmp_path / "thumb.mp4", np.full((TILE, TILE, 3), 10, np.uint8)))
    data = [one if number != broken else b"\0" * len(one) for number, (_, one) in enumerate(coded)]
    grid, thumbnail, count = len(tiles) + 1, len(tiles) + 2, len(tiles)
    numbers = [*range(1, count + 1), thumbnail]
    infe = b"".join(full(b"infe", 2, 0, struct.pack(">HH4s", number, 0, b"hvc1"), b"\0") for number in numbers)
    infe += full(b"infe", 2, 0, struct.pack(">HH4s", grid, 0, b"grid"), b"\0")
    dimg = box(b"dimg", struct.pack(">HH", grid, count), struct.pack(f">{count}H", *range(1, count + 1)))
    thmb = box(b"thmb", struct.pack(">HHH", thumbnail, 1, grid))
    ispe = [full(b"ispe", 0, 0, struct.pack(">II", *size)) for size in ((TILE, TILE), (width, height))]
    shown = [box(b"irot", bytes([turns]))] + ([] if mirror is None else [box(b"imir", bytes([mirror]))])
    ipco = box(b"ipco", box(b"hvcC", coded[0][0]), *ispe, *shown)
    of_tile, of_grid = bytes([2, 0x81, 2]), bytes([1 + len(shown), 3, *(0x84 + at for at in range(len(shown)))])
    ipma = full(
        *(b"ipma", 0, 0, struct.pack(">I", count + 2)),
        *(struct.pack(">H", number) + of_tile for number in numbers),
        struct.pack(">H", grid) + of_grid,
    )
    idat = box(b"idat", struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height))

    def meta(start: int) -> bytes:
        iloc = struct.pack(">H", count + 2)
        for number, one in zip(numbers, data, strict=True):
            iloc += struct.pack(">HHHHII", number, 0, 0, 1, start, len(one))
            start += len(one)
        iloc += struct.pack(">HHHHII", grid, 1, 0, 1, 0, 8)
        return full(
            *(b"meta", 0, 0, full(b"hdlr", 0, 0, b"\0\0\0\0pict", b"\0" * 13), full(b"pitm", 0, 0, struct.pack(">H", grid))),
            full(b"iloc", 1, 0, b"\x44\0", iloc),
            full(b"iinf", 0, 0, struct.pack(">H", count + 2), infe),
            *(full(b"iref", 0, 0, thmb, dimg), box(b"iprp", ipco, ipma), idat),
        )

    ftyp = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    return ftyp + meta(len(ftyp) + len(meta(0)) + 8) + box(b"mdat", *data)


@pytest.mark.parametrize(
    ("turns", "mirror", "expected", "size"),
    [
        (0, None, [240, 180, 120, 60], (150, 100)),
        # A property counts turns against the clock.
        (3, None, [60, 240, 180, 120], (100, 150)),
        (1, None, [180, 120, 60, 240], (100, 150)),
        (0, 1, [180, 240, 60, 120], (150, 100)),
        (0, 0, [60, 120, 180, 240], (150, 100)),
    ],
)
def test_a_photo_in_tiles_is_read_in_full_size(
    tmp_path: Path, turns: int, mirror: int | None, expected: list[int], size: tuple[int, int]
) -> None:
    path = tmp_path / "p.heic"
    path.write_bytes(heic(tmp_path, corners(150, 100), turns, mirror))
    assert (opened(path).info.width, opened(path).info.height) == size
    image = first_picture(path)
    assert image.shape == (size[1], size[0], 3)
    assert corner_values(image) == expected


def test_a_damaged_tile_damages_the_photo(tmp_path: Path) -> None:
    path = tmp_path / "p.heic"
    path.write_bytes(heic(tmp_path, corners(150, 100), broken=2))
    source = opened(path)
    assert source.ending.reason == "corrupt"
    assert (source.ending.corrupt, source.damaged) == (1, 1)


def test_a_photo_over_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "p.heic"
    path.write_bytes(heic(tmp_path, corners(150, 100)))
    reason, sentence = refusal(path, max_pixels=10_000)
    assert reason == "too_large"
    assert "150 x 100" in sentence


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_cut_photo(tmp_path: Path, share: float) -> None:
    path = tmp_path / "p.heic"
    data = heic(tmp_path, corners(150, 100))
    path.write_bytes(data[: int(len(data) * share)])
    try:
        source = opened(path)
    except Exception as error:
        assert "damaged" in str(error) or "cut" in str(error)  # noqa: PT017  # either is right
    else:
        assert source.ending.reason == "corrupt"


def test_an_avif_photo(tmp_path: Path) -> None:
    path = tmp_path / "p.avif"
    pillow = pytest.importorskip("PIL.Image")
    try:
        pillow.fromarray(corners()[:, :, ::-1]).save(path, quality=95)
    except (KeyError, OSError, ValueError):
        pytest.skip("this Pillow writes no AVIF")
    assert corner_values(first_picture(path)) == [240, 180, 120, 60]
