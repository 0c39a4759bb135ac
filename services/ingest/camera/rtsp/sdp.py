"""Session descriptions (RFC 8866): which track of a camera is read, and how. Pure."""

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from moodline.services.ingest.camera.rtsp.access_unit import Depacketiser
from moodline.services.ingest.camera.rtsp.jpeg import JpegDepacketiser
from moodline.services.ingest.camera.rtsp.mpeg4 import Mpeg4Depacketiser
from moodline.services.ingest.camera.rtsp.nal import START_CODE, H264Depacketiser, H265Depacketiser
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

SDP_LIMIT_BYTES: Final = 64 * 1024
_PARAMETERS_LIMIT_BYTES: Final = 64 * 1024
_CODECS: Final = {"H264": "h264", "H265": "hevc", "JPEG": "mjpeg", "MP4V-ES": "mpeg4"}
_DEPACKETISERS: Final[dict[str, Callable[[], Depacketiser]]] = {
    "h264": H264Depacketiser,
    "hevc": H265Depacketiser,
    "mpeg4": Mpeg4Depacketiser,
}
_SPROPS: Final = {"h264": ("sprop-parameter-sets",), "hevc": ("sprop-vps", "sprop-sps", "sprop-pps")}
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class VideoTrack:
    """One video track that can be read.

    Attributes:
        codec: FFmpeg's name.
        payload_type: Of its RTP packets.
        clock_rate: Ticks per s of its time stamps.
        control: As the camera wrote it; "" when it did not.
        extradata: Parameter sets for the decoder; empty when they come with the media.
        fps: As the camera claims, or None.
        size_px: As the camera claims, or None.
    """

    codec: str
    payload_type: int
    clock_rate: int
    control: str
    extradata: bytes
    fps: Fraction | None
    size_px: tuple[int, int] | None

    def depacketiser(self) -> Depacketiser:
        """Return a new depacketiser for its payloads."""
        if self.codec == "mjpeg":
            return JpegDepacketiser(self.size_px)
        return _DEPACKETISERS[self.codec]()


@dataclass(frozen=True, slots=True)
class Description:
    """The used part of a session description. `control` is that of the session, "" when it has none."""

    control: str
    track: VideoTrack


@dataclass(slots=True)
class _Section:
    line: str = ""
    attributes: list[tuple[str, str]] = field(default_factory=list)

    def value(self, name: str) -> str:
        return next((value for key, value in self.attributes if key == name), "")

    def of_payload(self, name: str, payload_type: str) -> str:
        """Return the value of an attribute that belongs to one payload type."""
        for key, value in self.attributes:
            first, _, rest = value.partition(" ")
            if key == name and first == payload_type:
                return rest.strip()
        return ""


def parse_sdp(body: bytes) -> Description:
    """Return the first video track that can be read.

    Raises:
        SourceError: `corrupt`, `no_video`, or `codec` when there is video, but none that is supported.
    """
    if len(body) > SDP_LIMIT_BYTES:
        raise SourceError(FailureReason.CORRUPT, "the camera's description of its media is too long")
    sections = _sections(body.decode("utf-8", "replace").splitlines())
    if len(sections) == 1 and not sections[0].line:
        raise SourceError(FailureReason.CORRUPT, "the camera's description of its media makes no sense")
    videos = [section for section in sections[1:] if section.line.lower().startswith("video ")]
    if not videos:
        raise SourceError(FailureReason.NO_VIDEO, "the camera offers no video")
    for video in videos:
        track = _track(video, sections[0])
        if track is not None:
            return Description(sections[0].value("control"), track)
    raise SourceError(FailureReason.CODEC, "the camera's video codec is not supported: set it to H.264, H.265, MJPEG or MPEG-4")


def _sections(lines: Iterable[str]) -> list[_Section]:
    sections = [_Section()]
    for line in lines:
        name, equals, value = line.strip().partition("=")
        if not equals:
            continue
        if name == "m":
            sections.append(_Section(value))
        elif name == "a":
            key, _, rest = value.partition(":")
            sections[-1].attributes.append((key.strip().lower(), rest.strip()))
        elif name == "v":
            sections[0].line = line
    return sections


def _track(video: _Section, session: _Section) -> VideoTrack | None:
    words = video.line.split()
    if len(words) < 4 or words[2].upper() not in {"RTP/AVP", "RTP/AVPF", "RTP/AVP/UDP", "RTP/AVP/TCP"}:
        return None
    for payload_type in words[3:]:
        if not (payload_type.isascii() and payload_type.isdigit() and len(payload_type) <= 3 and int(payload_type) < 128):
            continue
        name, _, rest = video.of_payload("rtpmap", payload_type).partition("/")
        name = name.strip().upper() or ("JPEG" if payload_type == "26" else "")
        codec = _CODECS.get(name)
        parameters = _parameters(video.of_payload("fmtp", payload_type))
        if codec is None or parameters.get("packetization-mode") == "2" or parameters.get("sprop-max-don-diff", "0") != "0":
            continue
        rate = rest.partition("/")[0].strip()
        clock_rate = int(rate) if rate.isascii() and rate.isdigit() and 0 < len(rate) <= 9 and int(rate) else 90_000
        fps = _fps(video.value("framerate") or session.value("framerate"))
        control, size_px = video.value("control"), _size(video.value("x-dimensions"))
        return VideoTrack(codec, int(payload_type), clock_rate, control, _extradata(codec, parameters), fps, size_px)
    return None


def _parameters(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip().lower(): value.strip() for name, equals, value in pairs if equals}


def _extradata(codec: str, parameters: dict[str, str]) -> bytes:
    """Return parameter sets; what cannot be read is left out, for most cameras send them with the media too."""
    try:
        if codec == "mpeg4":
            return binascii.unhexlify(parameters.get("config", ""))[:_PARAMETERS_LIMIT_BYTES]
        texts = [part for name in _SPROPS.get(codec, ()) for part in parameters.get(name, "").split(",") if part.strip()]
        sets = [base64.b64decode(text + "=" * (-len(text) % 4)) for text in texts]
    except ValueError:
        return b""
    data = b"".join(START_CODE + one for one in sets if one)
    return data if len(data) <= _PARAMETERS_LIMIT_BYTES else b""


def _fps(text: str) -> Fraction | None:
    if not _NUMBER.fullmatch(text):
        return None
    fps = Fraction(text)
    return fps if 0 < fps <= 1000 else None


def _size(text: str) -> tuple[int, int] | None:
    width, _, height = (part.strip() for part in text.partition(","))
    if not (_NUMBER.fullmatch(width) and _NUMBER.fullmatch(height)) or "." in width + height:
        return None
    return (int(width), int(height)) if 0 < int(width) < 65536 and 0 < int(height) < 65536 else None
