"""Size of a picture from its first bytes, so that a small file that unpacks to gigabytes is refused before it is unpacked."""

import struct
from typing import Final

HEAD_BYTES: Final = 256 * 1024
"""How much of a file's beginning is worth giving to `image_size_px`."""

_BMP_HEADERS: Final = frozenset({40, 52, 56, 64, 108, 124})
_JPEG_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_NOT_A_FRAME: Final = frozenset({0xC4, 0xC8, 0xCC})


def image_size_px(head: bytes) -> tuple[int, int] | None:
    """Return width and height in px of a PNG, GIF, BMP, WebP, TIFF or JPEG; None for anything else or when not in `head`."""
    try:
        for magic, read in _READERS.items():
            if head.startswith(magic):
                return read(head)
    except (struct.error, IndexError):
        pass
    return None


def _png(head: bytes) -> tuple[int, int] | None:
    width, height = struct.unpack_from(">II", head, 16)
    return width, height


def _gif(head: bytes) -> tuple[int, int] | None:
    width, height = struct.unpack_from("<HH", head, 6)
    return width, height


def _bmp(head: bytes) -> tuple[int, int] | None:
    header_bytes, width, height = struct.unpack_from("<Iii", head, 14)
    # A negative height means rows from the top down.
    return (abs(width), abs(height)) if header_bytes in _BMP_HEADERS else None


def _webp(head: bytes) -> tuple[int, int] | None:
    kind = head[8:16]
    if kind == b"WEBPVP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"WEBPVP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"WEBPVP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(head: bytes) -> tuple[int, int] | None:
    at = 2
    while head[at] == 0xFF:
        marker = head[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _JPEG_NOT_A_FRAME:
            height, width = struct.unpack_from(">HH", head, at + 5)
            return width, height
        else:
            at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None


def _tiff(head: bytes) -> tuple[int, int] | None:
    order = "<" if head.startswith(b"II") else ">"
    (at,) = struct.unpack_from(order + "I", head, 4)
    (count,) = struct.unpack_from(order + "H", head, at)
    found: dict[int, int] = {}
    for number in range(count):
        tag, kind, _, value = struct.unpack_from(order + "HHI4s", head, at + 2 + 12 * number)
        if tag in (256, 257):
            # Kinds 3 and 4 are numbers of 16 and 32 bits.
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), value)
    return (found[256], found[257]) if len(found) == 2 else None


_READERS: Final = {
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"\x89PNG\r\n\x1a\n": _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"RIFF": _webp,
    b"\xff\xd8": _jpeg,
}
