"""What the structure of a file says about it before FFmpeg opens it: whether it is whole, encrypted, or of a kind not read.

Reads a few headers, by seeking; never the media. Pure but for the file descriptor.
"""

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, NamedTuple

from moodline.services.ingest.file.matroska import read_matroska

_READ_LIMIT_BYTES: Final = 1 << 20
_BOXES_LIMIT: Final = 4096
_TAIL_BYTES: Final = 64 * 1024
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
        is_cut_picture: A JPEG without an end; FFmpeg fills the rest with grey and says nothing.
        is_iso: An ISO base media file (MP4, MOV, HEIC).
        has_index: Of an ISO file: it has a `moov` or `meta` box, without which nothing in it can be found.
        is_encrypted: Its video is encrypted (common encryption, FairPlay).
        apertures: Clean apertures: by track id in an ISO file, by the video track's number from 0 in Matroska.
    """

    missing_bytes: int = 0
    is_cut_picture: bool = False
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
    try:
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof"):
            return _iso(descriptor, size)
        if head.startswith(_EBML):
            return _matroska(descriptor, size)
        if head.startswith(b"\xff\xd8\xff"):
            tail = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
            return Structure(is_cut_picture=b"\xff\xd9" not in tail)
        if head.startswith(b"RIFF") and len(head) >= 12:
            (declared,) = struct.unpack_from("<I", head, 4)
            # Streams are written with 0 or the largest number.
            return Structure(missing_bytes=max(0, 8 + declared - size) if 4 < declared < 0xFFFF_FF00 else 0)
    except (struct.error, IndexError, OverflowError, ZeroDivisionError):
        pass
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
    top = list(boxes(descriptor, 0, size))
    apertures: dict[int, CleanAperture] = {}
    is_encrypted = False
    for moov in (box for box in top if box.kind == b"moov"):
        for trak in (box for box in boxes(descriptor, moov.start, min(moov.end, size)) if box.kind == b"trak"):
            number, encrypted, aperture = _track(descriptor, trak, size)
            is_encrypted |= encrypted
            if aperture is not None:
                apertures[number] = aperture
    last = max((box.end for box in top), default=0)
    return Structure(
        missing_bytes=max(0, last - size),
        is_iso=True,
        has_index=any(box.kind in (b"moov", b"meta") for box in top),
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
