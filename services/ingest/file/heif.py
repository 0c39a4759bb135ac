"""HEIC and AVIF photos (HEIF, ISO/IEC 23008-12): the primary picture in full size, put together from its tiles.

FFmpeg shows each tile and the thumbnail as a track of its own, and PyAV does not tell which belong together. So the structure is
read here, and FFmpeg decodes the tiles. Turning, mirroring and cropping follow the picture's own properties.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, Final, NamedTuple

import av
import numpy as np

from moodline.services.ingest.file.complaints import Complaints, is_of_picture
from moodline.services.ingest.file.structure import Box, boxes, clean_aperture, read_box
from moodline.services.ingest.media.frames import BgrImage, DecodedFrame, Ending, SourceInfo
from moodline.services.ingest.media.pixels import bgr_pixels
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.streams import FailureReason

_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"avif", b"miaf"})
_CODECS: Final = {b"hvc1": "hevc", b"av01": "libdav1d", b"avc1": "h264"}
_CONFIGURATION: Final = {b"hvc1": b"hvcC", b"av01": b"av1C", b"avc1": b"avcC"}
_TILES_LIMIT: Final = 4096
_ITEM_LIMIT_BYTES: Final = 256 * 1024 * 1024
_SHOWN_S: Final = Fraction(1, 25)
"""How long FFmpeg shows a picture that is alone in its file."""


class Item(NamedTuple):
    """One item of the file: its kind, where its bytes are (place and length), and its properties in order."""

    kind: bytes
    extents: tuple[tuple[int, int], ...]
    properties: tuple[tuple[bytes, bytes], ...]

    def property(self, kind: bytes) -> bytes | None:
        """Return a property's content."""
        return next((body for name, body in self.properties if name == kind), None)


class Photo(NamedTuple):
    """What of the file makes its primary picture."""

    primary: Item
    tiles: tuple[Item, ...]
    columns: int
    width: int
    height: int


def photo_in(descriptor: int) -> Photo | None:
    """Return the primary picture of a HEIC or AVIF photo; None for any other file, moving ones included.

    Raises:
        SourceError: it is one, and cannot be read.
    """
    head = os.pread(descriptor, 64, 0)
    if head[4:8] != b"ftyp" or not _BRANDS & {head[at : at + 4] for at in range(8, 64, 4)}:
        return None
    size = os.fstat(descriptor).st_size
    top = {box.kind: box for box in boxes(descriptor, 0, size)}
    if b"meta" not in top or b"moov" in top:
        return None
    try:
        return _photo(descriptor, top[b"meta"], size)
    except (struct.error, IndexError, KeyError):
        raise SourceError(FailureReason.CORRUPT, "the photo's structure (HEIF) makes no sense: the file is damaged") from None


class HeifPicture:
    """A photo as a video of one frame. Implements `Source`."""

    def __init__(self, descriptor: int, photo: Photo, max_pixels: int) -> None:
        """Take over the file descriptor, and decode.

        Raises:
            SourceError: `too_large`, `codec`, `corrupt`.
        """
        self.damaged = 0
        if photo.width * photo.height > max_pixels:
            raise SourceError(
                FailureReason.TOO_LARGE,
                f"a picture of {photo.width} x {photo.height} px is over the limit of {max_pixels} px "
                "(MOODLINE_INGEST_MAX_PIXELS)",
            )
        image = self._assembled(descriptor, photo, max_pixels)
        self._image = _shown(image, photo.primary.properties)
        height, width = self._image.shape[:2]
        codec = _CODECS[(photo.tiles or (photo.primary,))[0].kind]
        self.info = SourceInfo(codec, width, height, None, int(_SHOWN_S * 1_000_000))
        self.end_s = _SHOWN_S
        os.close(descriptor)

    @property
    def ending(self) -> Ending:
        """Damaged where a tile is."""
        if not self.damaged:
            return Ending()
        return Ending(FailureReason.CORRUPT, f"{self.damaged} tiles of the photo are damaged", 1, 0)

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield the one frame."""
        yield DecodedFrame(Fraction(0), self._picture, _SHOWN_S)

    def close(self) -> None:
        """Nothing is held."""

    def _picture(self) -> BgrImage:
        if self.damaged:
            raise ImageError("the photo is damaged")
        return self._image

    def _assembled(self, descriptor: int, photo: Photo, max_pixels: int) -> BgrImage:
        if not photo.tiles:
            image = _decoded(descriptor, photo.primary, max_pixels)
            if image is None:
                raise SourceError(FailureReason.CORRUPT, "the photo cannot be decoded: it is damaged")
            return image[: photo.height, : photo.width]
        canvas = np.zeros((photo.height, photo.width, 3), np.uint8)
        for number, tile in enumerate(photo.tiles):
            image = _decoded(descriptor, tile, max_pixels)
            if image is None:
                self.damaged += 1
                continue
            height, width = image.shape[:2]
            top, left = number // photo.columns * height, number % photo.columns * width
            room = canvas[top : top + height, left : left + width]
            room[:] = image[: room.shape[0], : room.shape[1]]
        if self.damaged == len(photo.tiles):
            raise SourceError(FailureReason.CORRUPT, "no tile of the photo can be decoded: it is damaged")
        return canvas


def _decoded(descriptor: int, item: Item, max_pixels: int) -> BgrImage | None:
    codec: Any = av.CodecContext.create(_CODECS[item.kind], "r")
    codec.thread_count = 1
    codec.options = {"max_pixels": str(2 * max_pixels + 65_536)}
    codec.extradata = item.property(_CONFIGURATION[item.kind]) or b""
    frames: list[Any] = []
    data = _bytes_of(descriptor, item)
    if len(data) < sum(length for _, length in item.extents):
        return None
    with Complaints().heard() as messages, suppress(av.FFmpegError):
        frames += codec.decode(av.Packet(data))
        frames += codec.decode(None)
    if not frames or is_of_picture(messages) or frames[0].is_corrupt or frames[0].width * frames[0].height > max_pixels:
        return None
    return bgr_pixels(frames[0].reformat(format="bgr24", threads=1))


def _bytes_of(descriptor: int, item: Item) -> bytes:
    if sum(length for _, length in item.extents) > _ITEM_LIMIT_BYTES:
        raise SourceError(FailureReason.TOO_LARGE, "a part of the photo is larger than any is")
    return b"".join(os.pread(descriptor, length, place) for place, length in item.extents)


def _shown(image: BgrImage, properties: tuple[tuple[bytes, bytes], ...]) -> BgrImage:
    """Apply the transformations in the order in which the file lists them."""
    for kind, body in properties:
        if kind == b"clap" and (aperture := clean_aperture(body)) is not None:
            height, width = image.shape[:2]
            left = max(0, round((width - aperture.width) / 2 + aperture.right))
            top = max(0, round((height - aperture.height) / 2 + aperture.down))
            image = image[top : top + round(aperture.height), left : left + round(aperture.width)]
        elif kind == b"irot" and body:
            image = np.rot90(image, body[0] & 3)
        elif kind == b"imir" and body:
            # 0: top and bottom change places; 1: left and right.
            image = image[:, ::-1] if body[0] & 1 else image[::-1]
    return np.ascontiguousarray(image)


def _photo(descriptor: int, meta: Box, size: int) -> Photo:
    parts = {box.kind: box for box in boxes(descriptor, meta.start + 4, min(meta.end, size))}
    primary_id = _primary(read_box(descriptor, parts[b"pitm"]))
    kinds = _kinds(descriptor, parts[b"iinf"])
    places = _places(read_box(descriptor, parts[b"iloc"]), parts[b"idat"].start if b"idat" in parts else 0)
    properties = _properties(descriptor, parts[b"iprp"], size)

    def item(number: int) -> Item:
        return Item(kinds[number], places.get(number, ()), properties.get(number, ()))

    primary = item(primary_id)
    if primary.kind in _CODECS:
        width, height = _size(primary)
        return Photo(primary, (), 1, width, height)
    if primary.kind != b"grid":
        name = primary.kind.decode("ascii", "replace")
        raise SourceError(FailureReason.CODEC, f"the photo is of a form of HEIF that is not read ({name}); convert it to JPEG")
    tiles = tuple(item(number) for number in _tiles(descriptor, parts[b"iref"], primary_id))
    if not tiles or any(tile.kind not in _CODECS for tile in tiles):
        raise SourceError(FailureReason.CODEC, "the photo's tiles are of a codec that is not read; convert it to JPEG")
    grid = _bytes_of(descriptor, primary)
    rows, columns = grid[2] + 1, grid[3] + 1
    width, height = struct.unpack_from(">II" if grid[1] & 1 else ">HH", grid, 4)
    if rows * columns != len(tiles):
        raise IndexError
    return Photo(primary, tiles, columns, width, height)


def _size(item: Item) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", item.property(b"ispe") or b"", 4)
    return width, height


def _primary(body: bytes) -> int:
    (number,) = struct.unpack_from(">I" if body[0] else ">H", body, 4)
    return int(number)


def _kinds(descriptor: int, iinf: Box) -> dict[int, bytes]:
    version = read_box(descriptor, iinf)[0]
    kinds = {}
    for entry in boxes(descriptor, iinf.start + (8 if version else 6), iinf.end):
        body = read_box(descriptor, entry)
        if entry.kind == b"infe" and body[0] >= 2:
            wide = body[0] >= 3
            (number,) = struct.unpack_from(">I" if wide else ">H", body, 4)
            at = 10 if wide else 8
            kinds[number] = body[at : at + 4]
    return kinds


def _places(body: bytes, idat_start: int) -> dict[int, tuple[tuple[int, int], ...]]:
    version, offset_bytes, length_bytes = body[0], body[4] >> 4, body[4] & 15
    base_bytes, index_bytes = body[5] >> 4, body[5] & 15 if version else 0
    at = 6

    def number(size: int) -> int:
        nonlocal at
        if at + size > len(body):
            raise IndexError
        at += size
        return int.from_bytes(body[at - size : at], "big")

    places = {}
    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_bytes) + (idat_start if method == 1 else 0)
        extents = []
        for _ in range(number(2)):
            number(index_bytes)
            place = number(offset_bytes)
            extents.append((base + place, number(length_bytes)))
        places[item] = tuple(extents)
    return places


def _tiles(descriptor: int, iref: Box, primary: int) -> list[int]:
    wide = read_box(descriptor, iref)[0] > 0
    for box in boxes(descriptor, iref.start + 4, iref.end):
        body = read_box(descriptor, box)
        step, form = (4, ">I") if wide else (2, ">H")
        if box.kind == b"dimg" and struct.unpack_from(form, body)[0] == primary:
            (count,) = struct.unpack_from(">H", body, step)
            return [struct.unpack_from(form, body, step + 2 + step * at)[0] for at in range(min(count, _TILES_LIMIT))]
    return []


def _properties(descriptor: int, iprp: Box, size: int) -> dict[int, tuple[tuple[bytes, bytes], ...]]:
    parts = {box.kind: box for box in boxes(descriptor, iprp.start, min(iprp.end, size))}
    known = [(box.kind, read_box(descriptor, box)) for box in boxes(descriptor, parts[b"ipco"].start, parts[b"ipco"].end)]
    body = read_box(descriptor, parts[b"ipma"])
    wide_item, wide_index = body[0] >= 1, body[3] & 1
    (count,) = struct.unpack_from(">I", body, 4)
    at, found = 8, {}
    for _ in range(min(count, _TILES_LIMIT * 4)):
        (item,) = struct.unpack_from(">I" if wide_item else ">H", body, at)
        at += 4 if wide_item else 2
        amount = body[at]
        at += 1
        listed = []
        for _ in range(amount):
            index = struct.unpack_from(">H", body, at)[0] & 0x7FFF if wide_index else body[at] & 0x7F
            at += 2 if wide_index else 1
            if 0 < index <= len(known):
                listed.append(known[index - 1])
        found[item] = tuple(listed)
    return found
