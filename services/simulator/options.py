"""The options of a simulator."""

import re
from enum import StrEnum
from fractions import Fraction
from typing import Final

import msgspec

from moodline.shared.errors import SettingsError
from moodline.shared.streams import parse_sample_fps

SIDE_MAX_PX: Final = 4096
JPEG_SIDE_MAX_PX: Final = 2040
"""RFC 2435 counts a picture's sides in blocks of 8 px, in one byte."""
_SIZE: Final = re.compile(r"([0-9]{2,4})x([0-9]{2,4})", re.ASCII)


class Codec(StrEnum):
    """The codecs of a simulated camera."""

    H264 = "h264"
    H265 = "h265"
    MJPEG = "mjpeg"


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """The encoding of a clip.

    Attributes:
        size: Width and height in px, both even; None keeps the clip's own.
        fps: Frames per second, a fraction in text; "" keeps the clip's own.
        gop_s: Seconds from one keyframe to the next.
        codec: Of the encoded stream.
        seconds: At most so much of the clip's beginning is served.
        copy: Serve what the file holds, without encoding it again.
    """

    size: tuple[int, int] | None = None
    fps: str = "25"
    gop_s: float = 1.0
    codec: Codec = Codec.H264
    seconds: float = 20.0
    copy: bool = False

    @property
    def rate(self) -> Fraction | None:
        return parse_sample_fps(self.fps) if self.fps else None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A whole simulator. Holds a password: goes to the server's process over its standard input, never as an argument.

    Attributes:
        clips: Files; none at all stands for the built-in scene.
        host: Address to listen on.
        port, control_port, http_port: 0 takes any free port; `http_port` of None serves no MJPEG over HTTP.
        user, password: Both or none.
        auth: Which ways to log in are offered: "digest", "basic" or "any".
        paths: How many identical cameras `/cam0`, `/cam1`, … there are beside the clips' own paths.
        picture: How clips are encoded.
        faults: Faults from the start on, by path.
        quirks: As `cam0=markers`; for good.
        session_timeout_s: A session that the client does not keep alive ends after this long.
    """

    clips: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    control_port: int = 0
    http_port: int | None = None
    user: str | None = None
    password: str | None = None
    auth: str = "any"
    paths: int = 1
    picture: Picture = Picture()
    faults: dict[str, str] = {}
    quirks: tuple[str, ...] = ()
    session_timeout_s: float = 60.0

    def __repr__(self) -> str:
        return f"Options({self.host}:{self.port})"


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of a started simulator; its first and only line on standard output."""

    rtsp: int
    control: int
    http: int | None
    paths: tuple[str, ...]


def parse_size(text: str, codec: Codec = Codec.H264) -> tuple[int, int]:
    """Return width and height in px of `640x360`. Raises `SettingsError`."""
    match = _SIZE.fullmatch(text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    check_size(size, codec)
    return size


def check_size(size: tuple[int, int], codec: Codec) -> None:
    """Raise `SettingsError` where a codec cannot have this size in px."""
    step, most = (8, JPEG_SIDE_MAX_PX) if codec is Codec.MJPEG else (2, SIDE_MAX_PX)
    if not all(16 <= side <= most and side % step == 0 for side in size):
        raise SettingsError(f"a picture of {codec} has a size such as 640x360: sides are multiples of {step} from 16 to {most}")
