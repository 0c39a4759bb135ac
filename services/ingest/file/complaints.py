"""What FFmpeg says about damage only in its log: demuxers skip what they cannot read, decoders conceal it."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import av.logging

_PICTURE: Final = re.compile(
    r"error while decoding|error at mb|damaged|concealing|overread|overconsumption|bad vlc|error count|error y=|huffman|"
    r"decod(e|ing) (error|failed)|(in)?valid nal|splitting|unavailable for requested|too large at|screenspace|illegal dc|"
    r"crc mismatch|inflate|reference picture missing|missing reference picture|could not find ref|frame num gap|"
    r"cbp|mb incr|mb type|dct coeff|truncated|corrupt|error decoding|slice mismatch|end mismatch|lzw|incorrect md5|overrun|"
    r"unknown obu|error parsing|no reference|cabac|ac[- ]tex|insufficient|not enough|extract_?bits|zlib|out of bound|overflow",
    re.IGNORECASE,
)
"""Messages after which a picture is not what it should be. Others are about headers, or about how encoders keep the rules."""

_HARMLESS: Final = re.compile(r"app fields|exif|icc|comment|metadata|sei|probably corrupt input", re.IGNORECASE)


class Complaints:
    """The errors that FFmpeg logs in this thread, while asked. Nothing is printed."""

    def __init__(self) -> None:
        # For the whole process: FFmpeg's log has no other place.
        logging.getLogger("libav").setLevel(logging.CRITICAL + 1)
        av.logging.set_skip_repeated(False)
        if av.logging.get_level() is None:
            av.logging.set_level(av.logging.ERROR)

    @contextmanager
    def heard(self) -> Iterator[list[tuple[int, str, str]]]:
        """Yield a list into which messages come: level, name of the part of FFmpeg, text."""
        with av.logging.Capture() as messages:
            yield messages


def is_of_picture(messages: list[tuple[int, str, str]]) -> bool:
    """Return whether one of a decoder's messages says that a picture is damaged."""
    return any(_PICTURE.search(text) and not _HARMLESS.search(text) for _, _, text in messages)
