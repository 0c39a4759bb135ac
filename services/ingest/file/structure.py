"""What the structure of a file says about it before FFmpeg opens it: whether it is whole, encrypted, or of a kind not read.

Reads a few headers, by seeking; never the media. Pure but for the file descriptor.
"""

import os
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import takewhile
from mmap import ACCESS_READ, mmap
from typing import Final, NamedTuple

from moodline.services.ingest.file.matroska import read_matroska

_READ_LIMIT_BYTES: Final = 1 << 20
_BOXES_LIMIT: Final = 4096
_LEAST_BOX_BYTES: Final = 16
_CHUNKS_LIMIT: Final = 1 << 16
_GIF_TRAILER, _GIF_EXTENSION, _GIF_IMAGE = 0x3B, 0x21, 0x2C
_JPEG_SCAN: Final = 0xDA
_OGG_PAGE_BYTES, _OGG_LAST = 65_307, 4
_ASF_HEAD_BYTES: Final = 4096
_ASF_FILE: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_FLV_TAGS: Final = (8, 9, 18)
_TS_PACKET_BYTES: Final = 188
_RIFF_SHARE: Final = 0.01
_GIF_LIMIT_BYTES: Final = 256 * 1024 * 1024
"""A larger GIF is not walked through: its blocks have 255 bytes."""
_ISO_KINDS: Final = frozenset(
    {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof", b"mfra", b"meta", b"sidx", b"ssix", b"prft", b"emsg"}
    | {b"uuid", b"pnot", b"pdin", b"udta", b"PICT", b"junk", b"idat", b"jxlp", b"imda"}
)
"""Kinds of boxes that a file consists of; anything else behind them was appended to it."""
_FIRST_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof"})
_EBML: Final = b"\x1a\x45\xdf\xa3"

_CONTAINERS: Final = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_VIDEO_ENTRY_BYTES: Final = 78
"""Of a `VisualSampleEntry` before the boxes in it (ISO/IEC 14496-12)."""


class CleanAperture(NamedTuple):
    """The part of the coded picture that is meant to be seen, in px: size, and how far its centre is from the picture's."""

    width: Fraction
    height: Fraction
    right: Fraction
    down: Fraction


class Structure(NamedTuple):
    """Findings.

    Attributes:
        missing_bytes: How much further the file should go by its own headers; 0 when it is whole or says nothing.
        unreadable_bytes: How much at its end is there, and makes no sense, so that no reader gets past it.
        is_cut: Its end is not there; how much is missing cannot be told.
        is_cut_picture: A picture without an end; FFmpeg fills the rest with grey and says nothing.
        complained: FFmpeg did, when it opened the file, and may have read some of it ahead.
        is_iso: An ISO base media file (MP4, MOV, HEIC).
        has_index: Of an ISO file: it has a `moov` or `meta` box, without which nothing in it can be found.
        is_encrypted: Its video is encrypted (common encryption, FairPlay).
        apertures: Clean apertures: by track id in an ISO file, by the video track's number from 0 in Matroska.
    """

    missing_bytes: int = 0
    unreadable_bytes: int = 0
    is_cut: bool = False
    is_cut_picture: bool = False
    complained: bool = False
    is_iso: bool = False
    has_index: bool = False
    is_encrypted: bool = False
    apertures: dict[int, CleanAperture] = {}  # noqa: RUF012  # never changed


class Box(NamedTuple):
    """One box of an ISO base media file: kind, where its content begins, where it ends by its own header."""

    kind: bytes
    start: int
    end: int


def structure_of(descriptor: int) -> Structure:
    """Return what a regular file's headers say. Whatever they hold, nothing is raised."""
    size = os.fstat(descriptor).st_size
    head = os.pread(descriptor, 64, 0)
    reads = _iso if head[4:8] in _FIRST_BOXES else next((read for magic, read in _BY_MAGIC if head.startswith(magic)), None)
    try:
        return Structure() if reads is None else reads(descriptor, size)
    except (struct.error, IndexError, OverflowError, ZeroDivisionError):
        return Structure()


def boxes(descriptor: int, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two places of a file; the last may end beyond `end`."""
    at = start
    for _ in range(_BOXES_LIMIT):
        head = os.pread(descriptor, 16, at)
        if at + 8 > end or len(head) < 8:
            return
        length, kind = struct.unpack_from(">I4s", head)
        body = at + 8
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack_from(">Q", head, 8)
            body = at + 16
        elif length == 0:
            length = end - at
        if length < body - at:
            return
        yield Box(kind, body, at + length)
        at += length


def read_box(descriptor: int, box: Box) -> bytes:
    """Return a box's content, cut to 1 MiB."""
    return os.pread(descriptor, max(0, min(box.end - box.start, _READ_LIMIT_BYTES)), box.start)


def _iso(descriptor: int, size: int) -> Structure:
    top = list(takewhile(lambda box: box.kind in _ISO_KINDS, boxes(descriptor, 0, size)))
    kinds = {box.kind for box in top}
    reached = max((box.end for box in top), default=0)
    # Fragments say where the next is, and nothing says how many there are, but for the list at the end.
    is_broken_off = b"moof" in kinds and b"mfra" not in kinds and size - reached >= _LEAST_BOX_BYTES
    apertures: dict[int, CleanAperture] = {}
    is_encrypted = False
    for moov in (box for box in top if box.kind == b"moov"):
        for trak in (box for box in boxes(descriptor, moov.start, min(moov.end, size)) if box.kind == b"trak"):
            number, encrypted, aperture = _track(descriptor, trak, size)
            is_encrypted |= encrypted
            if aperture is not None:
                apertures[number] = aperture
    # Of what may be missing, padding is none.
    last = max((box.end for box in top if box.kind not in (b"free", b"skip", b"wide")), default=0)
    return Structure(
        missing_bytes=max(0, last - size),
        unreadable_bytes=size - reached if is_broken_off else 0,
        is_iso=True,
        has_index=bool(kinds & {b"moov", b"meta"}),
        is_encrypted=is_encrypted,
        apertures=apertures,
    )


def _track(descriptor: int, trak: Box, size: int) -> tuple[int, bool, CleanAperture | None]:
    number, is_encrypted, aperture = 0, False, None
    waiting = [trak]
    for _ in range(_BOXES_LIMIT):
        if not waiting:
            break
        parent = waiting.pop()
        for box in boxes(descriptor, parent.start, min(parent.end, size)):
            if box.kind in _CONTAINERS:
                waiting.append(box)
            elif box.kind == b"tkhd":
                head = read_box(descriptor, box)
                (number,) = struct.unpack_from(">I", head, 20 if head[0] == 1 else 12)
            elif box.kind == b"stsd":
                for entry in boxes(descriptor, box.start + 8, min(box.end, size)):
                    # `encv` (common encryption) and `drmi` (FairPlay) stand for video.
                    is_encrypted |= entry.kind in (b"encv", b"drmi")
                    aperture = _aperture(descriptor, entry, size) or aperture
    return number, is_encrypted, aperture


def _aperture(descriptor: int, entry: Box, size: int) -> CleanAperture | None:
    for box in boxes(descriptor, entry.start + _VIDEO_ENTRY_BYTES, min(entry.end, size)):
        if box.kind == b"clap":
            return clean_aperture(read_box(descriptor, box))
    return None


def clean_aperture(body: bytes) -> CleanAperture | None:
    """Return what the content of a `clap` box says; None where it makes no sense."""
    if len(body) < 32:
        return None
    values = struct.unpack_from(">IIIIiIiI", body)
    if not all(values[1::2]):
        return None
    width, height, right, down = (Fraction(values[at], values[at + 1]) for at in (0, 2, 4, 6))
    return CleanAperture(width, height, right, down) if width >= 1 and height >= 1 else None


def _matroska(descriptor: int, size: int) -> Structure:
    found = read_matroska(descriptor, size)
    apertures = {
        number: CleanAperture(
            Fraction(crop.width - crop.left - crop.right),
            Fraction(crop.height - crop.top - crop.bottom),
            Fraction(crop.left - crop.right, 2),
            Fraction(crop.top - crop.bottom, 2),
        )
        for number, crop in found.crops.items()
    }
    return Structure(missing_bytes=found.missing_bytes, is_encrypted=found.is_encrypted, apertures=apertures)


def _riff(descriptor: int, size: int) -> Structure:
    head = os.pread(descriptor, 12, 0)
    (declared,) = struct.unpack_from("<I", head, 4)
    # Streams are written with 0 or the largest number, and many recorders are wrong by a little.
    missing = max(0, 8 + declared - size) if 4 < declared < 0xFFFF_FF00 else 0
    return Structure(missing_bytes=missing if missing > size * _RIFF_SHARE or head[8:12] == b"WEBP" else 0)


def _jpeg(descriptor: int, size: int) -> Structure:
    """Look for the end of a JPEG's picture, which is behind its start of scan: the preview in its header has an end, too."""
    with mmap(descriptor, size, access=ACCESS_READ) as data:
        at = 2
        for _ in range(_CHUNKS_LIMIT):
            if data[at] != 0xFF or data[at + 1] == _JPEG_SCAN:
                break
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big") if data[at + 1] != 0xFF else 1
        is_cut = data.rfind(b"\xff\xd9", min(at, size)) < 0
        return Structure(is_cut=is_cut, is_cut_picture=is_cut)


def _gif(descriptor: int, size: int) -> Structure:
    """Walk through the blocks of a GIF (version 89a): without its trailer it is cut, at an unknown block no reader goes on."""
    if size > _GIF_LIMIT_BYTES:
        return Structure()
    with mmap(descriptor, size, access=ACCESS_READ) as data:
        at = 13 + _colours(data[10])
        try:
            while data[at] != _GIF_TRAILER:
                if data[at] == _GIF_EXTENSION:
                    at += 2
                elif data[at] == _GIF_IMAGE:
                    at += 11 + _colours(data[at + 9])
                else:
                    return Structure(unreadable_bytes=size - at)
                while data[at]:
                    at += 1 + data[at]
                at += 1
        except IndexError:
            return Structure(is_cut=True)
    return Structure()


def _colours(flags: int) -> int:
    """Return how long a colour table is, in bytes."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _png(descriptor: int, _size: int) -> Structure:
    """Look for the last chunk of a PNG."""
    at = 8
    for _ in range(_CHUNKS_LIMIT):
        head = os.pread(descriptor, 8, at)
        if len(head) < 8:
            return Structure(is_cut=True, is_cut_picture=True)
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return Structure()
        if not kind.isalpha():
            return Structure(is_cut_picture=True)
        at += 12 + length
    return Structure()


def _ogg(descriptor: int, size: int) -> Structure:
    """The last page of an Ogg file says that it is the last of its stream."""
    start = max(0, size - 2 * _OGG_PAGE_BYTES)
    tail = os.pread(descriptor, size - start, start)
    at = tail.rfind(b"OggS")
    segments = tail[at + 26]
    end = at + 27 + segments + sum(tail[at + 27 : at + 27 + segments])
    return Structure(is_cut=not tail[at + 5] & _OGG_LAST or end > len(tail))


def _asf(descriptor: int, size: int) -> Structure:
    """The header of an ASF file (WMV) has its size, unless it was sent as it was made."""
    head = os.pread(descriptor, _ASF_HEAD_BYTES, 0)
    at = head.index(_ASF_FILE) if _ASF_FILE in head else len(head)
    (declared,) = struct.unpack_from("<Q", head, at + 40)
    (flags,) = struct.unpack_from("<I", head, at + 88)
    return Structure(missing_bytes=0 if flags & 1 else max(0, declared - size))


def _flv(descriptor: int, size: int) -> Structure:
    """Behind each tag of an FLV file is how long it was."""
    (length,) = struct.unpack(">I", os.pread(descriptor, 4, size - 4))
    head = os.pread(descriptor, 4, max(0, size - 4 - length))
    is_whole = head[0] & 0x1F in _FLV_TAGS and int.from_bytes(head[1:4], "big") + 11 == length
    return Structure(is_cut=not is_whole and any(os.pread(descriptor, 16, size - 16)))


def _transport_stream(descriptor: int, size: int) -> Structure:
    """A transport stream consists of whole packets, each with its sign at the start."""
    last = os.pread(descriptor, 1, (size // _TS_PACKET_BYTES - 1) * _TS_PACKET_BYTES)
    second = os.pread(descriptor, 1, _TS_PACKET_BYTES)
    return Structure(is_cut=second == b"\x47" and (size % _TS_PACKET_BYTES > 0 or last != second))


_BY_MAGIC: Final[tuple[tuple[bytes, Callable[[int, int], Structure]], ...]] = (
    (_EBML, _matroska),
    (b"\xff\xd8\xff", _jpeg),
    (b"RIFF", _riff),
    (b"GIF8", _gif),
    (b"OggS", _ogg),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _asf),
    (b"FLV", _flv),
    (b"\x47", _transport_stream),
    (b"\x89PNG\r\n\x1a\n", _png),
)
