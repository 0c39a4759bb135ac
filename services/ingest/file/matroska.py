"""The headers of Matroska and WebM files (RFC 9559), read before FFmpeg opens them: what is missing, encrypted, cropped."""

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

_READ_LIMIT_BYTES: Final = 1 << 20
_ELEMENTS_LIMIT: Final = 4096

_SEGMENT: Final = 0x18538067
_TRACKS: Final = 0x1654AE6B
_CLUSTER: Final = 0x1F43B675
_TRACK_ENTRY: Final = 0xAE
_VIDEO: Final = 0xE0
_WIDTH: Final = 0xB0
_HEIGHT: Final = 0xBA
_CROPS: Final = (0x54CC, 0x54BB, 0x54DD, 0x54AA)
"""Left, top, right and bottom."""
_ENCODINGS: Final = 0x6D80
_ENCODING: Final = 0x6240
_ENCODING_TYPE: Final = 0x5033
_ENCRYPTED: Final = 1


class Crop(NamedTuple):
    """The coded picture's size and what is cut off at each side, in px."""

    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int

    @property
    def is_sensible(self) -> bool:
        """Return whether there is something to cut off, and something left."""
        cut = self.left + self.right, self.top + self.bottom
        return any(cut) and cut[0] < self.width and cut[1] < self.height


class Matroska(NamedTuple):
    """Findings: bytes that are missing at the end, whether a video track is encrypted, and crops by the video track's order."""

    missing_bytes: int = 0
    is_encrypted: bool = False
    crops: dict[int, Crop] = {}  # noqa: RUF012  # never changed


class _Element(NamedTuple):
    number: int
    start: int
    end: int | None
    """None: until its parent's."""


def read_matroska(descriptor: int, size: int) -> Matroska:
    """Return what the headers say. Raises `IndexError` where they make no sense."""
    segment = next((one for one in _elements(descriptor, 0, size) if one.number == _SEGMENT), None)
    if segment is None:
        return Matroska()
    missing = 0 if segment.end is None else max(0, segment.end - size)
    for element in _elements(descriptor, segment.start, size):
        if element.number == _CLUSTER:
            break
        if element.number == _TRACKS:
            return _tracks(_body(descriptor, element, size), missing)
    return Matroska(missing)


def _tracks(data: bytes, missing: int) -> Matroska:
    is_encrypted, crops = False, {}
    entries = [dict(_children(body)) for number, body in _children(data) if number == _TRACK_ENTRY]
    for order, fields in enumerate(entry for entry in entries if _VIDEO in entry):
        is_encrypted |= _is_encrypted(fields.get(_ENCODINGS, b""))
        crop = _crop(dict(_children(fields[_VIDEO])))
        if crop.is_sensible:
            crops[order] = crop
    return Matroska(missing, is_encrypted, crops)


def _crop(video: dict[int, bytes]) -> Crop:
    left, top, right, bottom = (_uint(video.get(number, b"")) for number in _CROPS)
    return Crop(_uint(video.get(_WIDTH, b"")), _uint(video.get(_HEIGHT, b"")), left, top, right, bottom)


def _is_encrypted(encodings: bytes) -> bool:
    kinds = [dict(_children(body)) for number, body in _children(encodings) if number == _ENCODING]
    return any(_uint(kind.get(_ENCODING_TYPE, b"")) == _ENCRYPTED for kind in kinds)


def _elements(descriptor: int, start: int, end: int) -> Iterator[_Element]:
    """Yield the elements between two places of the file; the last may end beyond `end`."""
    at = start
    for _ in range(_ELEMENTS_LIMIT):
        head = os.pread(descriptor, 12, at)
        if at >= end or len(head) < 2:
            return
        number, length, used = _head(head)
        stop = None if length is None else at + used + length
        yield _Element(number, at + used, stop)
        if stop is None:
            return
        at = stop


def _children(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 1 < len(data):
        number, length, used = _head(data[at : at + 12])
        stop = len(data) if length is None else at + used + length
        yield number, data[at + used : stop]
        at = stop


def _body(descriptor: int, element: _Element, size: int) -> bytes:
    end = size if element.end is None else min(element.end, size)
    return os.pread(descriptor, max(0, min(end - element.start, _READ_LIMIT_BYTES)), element.start)


def _head(head: bytes) -> tuple[int, int | None, int]:
    """Return an element's number, the length of its content (None: unknown), and how many bytes say so."""
    wide = 9 - head[0].bit_length()
    first = head[wide]
    long = 9 - first.bit_length()
    if wide > 4 or long > 8:
        raise IndexError("no element")
    mask = (1 << 7 * long) - 1
    length = int.from_bytes(head[wide : wide + long], "big") & mask
    return int.from_bytes(head[:wide], "big"), None if length == mask else length, wide + long


def _uint(data: bytes) -> int:
    return int.from_bytes(data[:8], "big")
