"""Kinds of files that are not read, told by their first bytes, with a sentence that says so."""

from typing import Final

_CONVERT: Final = "convert it to JPEG or PNG, or to a video"

_BY_MAGIC: Final = (
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"8BPS", "a Photoshop picture (PSD)"),
    (b"v/1\x01", "an OpenEXR picture"),
    (b"DDS ", "a DirectDraw picture (DDS)"),
    (b"qoif", "a QOI picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"#EXTM3U", "a playlist (M3U, HLS)"),
    (b"<?xml", "a text in XML, such as an SVG picture or a DASH playlist"),
    (b"<svg", "an SVG picture"),
)

_TGA_FOOTER: Final = b"TRUEVISION-XFILE.\0"
_RAW_MAKERS: Final = {b"IIRO": "an Olympus raw photo (ORF)", b"IIU\0": "a Panasonic raw photo (RW2)"}


def refused_kind(head: bytes, tail: bytes = b"") -> str | None:
    """Return what is to be said of a file that is known not to be read, by its first and last bytes; None for all others.

    Args:
        head: The file's first bytes, 64 or more where it has them.
        tail: Its last bytes.
    """
    what = next((name for magic, name in _BY_MAGIC if head.startswith(magic)), None) or _RAW_MAKERS.get(head[:4])
    if what is None and is_animated_webp(head):
        what = "an animated WebP picture"
    if what is None and (tail.endswith(_TGA_FOOTER) or _looks_like_tga(head)):
        what = "a TGA picture"
    return None if what is None else f"the file is {what}, a kind that is not read; {_advice(what)}"


def is_animated_webp(head: bytes) -> bool:
    """Return whether a WebP file says that it moves."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 0x02)


def _advice(what: str) -> str:
    if "archive" in what:
        return "unpack it, and give the video in it"
    if "playlist" in what:
        return "give the video itself"
    if what.startswith("an animated"):
        return "convert it to a video (ffmpeg cannot; ImageMagick and libwebp's tools can)"
    return _CONVERT


def _looks_like_tga(head: bytes) -> bool:
    """TGA has no magic number: every field of its header must make sense."""
    if len(head) < 18:
        return False
    id_length, colour_map, kind = head[0], head[1], head[2]
    width, height, depth = int.from_bytes(head[12:14], "little"), int.from_bytes(head[14:16], "little"), head[16]
    if kind not in (1, 2, 3, 9, 10, 11) or colour_map != (1 if kind in (1, 9) else 0) or id_length > 64:
        return False
    if colour_map == 0 and any(head[3:8]):
        return False
    return 0 < width <= 16_384 and 0 < height <= 16_384 and depth in (8, 15, 16, 24, 32) and head[17] & 0xC0 == 0
