"""Session descriptions (RFC 8866): which track of a camera is read, and how. Pure."""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from moodline.services.ingest.camera.input.access_unit import Depacketiser
from moodline.services.ingest.camera.input.nal import START_CODE, H264Depacketiser, H265Depacketiser
from moodline.services.ingest.camera.input.transport_stream import TransportStreamDepacketiser
from moodline.services.ingest.camera.rtsp.jpeg import JpegDepacketiser
from moodline.services.ingest.camera.rtsp.mpeg4 import Mpeg4Depacketiser
from moodline.services.ingest.camera.rtsp.payloads import (
    Av1Depacketiser,
    H263Depacketiser,
    H263OldDepacketiser,
    MpegVideoDepacketiser,
    Vp8Depacketiser,
    Vp9Depacketiser,
)
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

SDP_LIMIT_BYTES: Final = 64 * 1024
_PARAMETERS_LIMIT_BYTES: Final = 64 * 1024
TRANSPORT_STREAM: Final = "mpegts"
_CODECS: Final = {
    "H264": "h264",
    "H265": "hevc",
    "HEVC": "hevc",
    "JPEG": "mjpeg",
    "MP4V-ES": "mpeg4",
    "MPV": "mpeg2video",
    "H263-1998": "h263",
    "H263-2000": "h263",
    "H263": "h263",
    "VP8": "vp8",
    "VP9": "vp9",
    "AV1": "libdav1d",
    "MP2T": TRANSPORT_STREAM,
}
_USUAL: Final = frozenset({"h264", "hevc", "mjpeg", "mpeg4"})
_STATIC: Final = {"26": "JPEG", "31": "H261", "32": "MPV", "33": "MP2T", "34": "H263"}
_SPELT: Final = {
    "AVC": "H264",
    "AVC1": "H264",
    "X-H264": "H264",
    "HVC1": "H265",
    "HEV1": "H265",
    "X-H265": "H265",
    "MJPEG": "JPEG",
    "MJPG": "JPEG",
    "JPG": "JPEG",
    "MPEG4-ES": "MP4V-ES",
    "MPEG2": "MPV",
}
"""Names that some cameras have for formats, without dots."""
_DEPACKETISERS: Final[dict[str, Callable[[], Depacketiser]]] = {
    "h264": H264Depacketiser,
    "hevc": H265Depacketiser,
    "mpeg4": Mpeg4Depacketiser,
    "mpeg2video": MpegVideoDepacketiser,
    "h263": H263Depacketiser,
    "vp8": Vp8Depacketiser,
    "vp9": Vp9Depacketiser,
    "libdav1d": Av1Depacketiser,
    TRANSPORT_STREAM: TransportStreamDepacketiser,
}
_SPROPS: Final = {"h264": ("sprop-parameter-sets",), "hevc": ("sprop-vps", "sprop-sps", "sprop-pps")}
_NAMES: Final = {
    "H264": "H.264",
    "H265": "H.265",
    "HEVC": "H.265",
    "H264-SVC": "H.264 SVC",
    "H266": "H.266",
    "H261": "H.261",
    "MP1S": "MPEG system stream",
    "MP2P": "MPEG program stream",
    "JPEG2000": "JPEG 2000",
    "JXSV": "JPEG XS",
    "RAW": "uncompressed video",
    "SMPTE336M": "metadata",
    "VND.ONVIF.METADATA": "metadata",
    "THEORA": "Theora",
    "DV": "DV",
    "X-PN-TOKENS": "RealVideo",
}
_OF_PAYLOAD = re.compile(r"([0-9]{1,3})[\s:,]*(.*)", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class VideoTrack:
    """One video track that can be read.

    Attributes:
        codec: FFmpeg's name; `mpegts` where the media itself says which it is.
        payload_type: Of its RTP packets.
        clock_rate: Ticks per s of its time stamps.
        control: As the camera wrote it; "" when it did not.
        extradata: Parameter sets for the decoder; empty when they come with the media.
        fps: As the camera claims, or None.
        size_px: As the camera claims, or None.
        is_secure: Whether the camera announces encrypted media (RTP/SAVP).
        encoding: Name of the payloads' format, in upper case.
    """

    codec: str
    payload_type: int
    clock_rate: int
    control: str
    extradata: bytes
    fps: Fraction | None
    size_px: tuple[int, int] | None
    is_secure: bool = False
    encoding: str = ""

    def depacketiser(self) -> Depacketiser:
        """Return a new depacketiser for its payloads."""
        if self.codec == "mjpeg":
            return JpegDepacketiser(self.size_px)
        if self.encoding == "H263":
            return H263OldDepacketiser()
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

    @property
    def is_video(self) -> bool:
        return self.line.split(None, 1)[0].lower() == "video"

    @property
    def words(self) -> list[str]:
        """The media line: kind, port, profile, payload types. Some cameras leave out the port, or put commas between types."""
        words = re.split(r"[\s,]+", self.line)
        return words if len(words) < 2 or words[1][:1].isdecimal() else [words[0], "0", *words[1:]]

    @property
    def profile(self) -> str:
        words = self.words
        return words[2].upper() if len(words) > 2 else ""

    def encoding(self, payload_type: str, session: "_Section") -> tuple[str, str]:
        """Return name of a payload type's format, in upper case, and the rest of its `rtpmap`; "" where nothing says it."""
        found = self.of_payload("rtpmap", payload_type) or session.of_payload("rtpmap", payload_type)
        if not found and payload_type not in _STATIC:
            # It is the only one that is described, under another number.
            others = [value for key, value in self.attributes if key == "rtpmap"]
            match = _OF_PAYLOAD.fullmatch(others[0]) if len(others) == 1 else None
            found = match[2] if match else ""
        name, _, rest = re.sub(r"\s*[/\s]\s*", "/", found.strip()).partition("/")
        name = name.upper()
        plain = name.replace(".", "")
        return (_SPELT.get(plain, plain if plain in _CODECS else name) or _STATIC.get(payload_type, "")), rest

    def encodings(self, session: "_Section") -> list[str]:
        """Return the names of its formats, in upper case."""
        return [self.encoding(one, session)[0] for one in self.words[3:]]

    def value(self, name: str) -> str:
        return next((value for key, value in self.attributes if key == name), "")

    def of_payload(self, name: str, payload_type: str) -> str:
        """Return the value of an attribute that belongs to one payload type."""
        for key, value in self.attributes:
            match = _OF_PAYLOAD.fullmatch(value) if key == name else None
            if match and payload_type.isdecimal() and int(match[1]) == int(payload_type):
                return match[2].strip()
        return ""

    def parameters(self, payload_type: str) -> dict[str, str]:
        """Return the `fmtp` of a payload type; of the only one, where that has another number."""
        text = self.of_payload("fmtp", payload_type)
        others = [value for key, value in self.attributes if key == "fmtp"]
        if not text and len(others) == 1 and (match := _OF_PAYLOAD.fullmatch(others[0])):
            text = match[2]
        return _parameters(text)


def parse_sdp(body: bytes, *, over_tls: bool = False) -> Description:
    """Return the first video track that can be read.

    Args:
        body: As it came. Bytes of 0 around it, and line breaks of all kinds, are passed over.
        over_tls: Whether the media comes over a connection that TLS protects. Then RTP/SAVP is taken for plain RTP: servers
            announce it for `rtsps`, and do not encrypt twice.

    Raises:
        SourceError: `corrupt`, `no_video`, or `codec` when there is video, but none that is supported.
    """
    if len(body) > SDP_LIMIT_BYTES:
        raise SourceError(FailureReason.CORRUPT, "the camera's description of its media is too long")
    sections = _sections(body.replace(b"\0", b"").decode("utf-8", "replace").splitlines())
    if len(sections) == 1 and not sections[0].line:
        raise SourceError(FailureReason.CORRUPT, "the camera's description of its media makes no sense")
    videos = [section for section in sections[1:] if section.line.split(None, 1)[:1] and section.is_video]
    if not videos:
        raise SourceError(FailureReason.NO_VIDEO, "the camera offers no video")
    tracks = [track for video in videos if (track := _track(video, sections[0], over_tls)) is not None]
    # Those that cameras are made for first.
    for track in sorted(tracks, key=lambda track: track.codec not in _USUAL):
        return Description(sections[0].value("control"), track)
    raise SourceError(FailureReason.CODEC, _unsupported(videos, sections[0], over_tls))


def _unsupported(videos: Sequence[_Section], session: _Section, over_tls: bool) -> str:
    """Return what the camera sends instead, as far as it is one of the known names, and what to set."""
    cure = "set the camera to H.264 or H.265"
    if not over_tls and all("SAVP" in video.profile for video in videos):
        return "the camera encrypts its media (SRTP), which is not supported: turn SRTP off, and use rtsps:// for encryption"
    names = {name for video in videos for name in video.encodings(session) if name in _NAMES}
    if not names:
        return f"the camera's video codec is not supported: {cure}"
    if names & _CODECS.keys():
        return f"the camera sends H.265 interleaved (sprop-max-don-diff), which is not supported: switch that off, or {cure}"
    return f"the camera's video codec, {_NAMES[min(names)]}, is not supported: {cure}"


def _sections(lines: Iterable[str]) -> list[_Section]:
    sections = [_Section()]
    for line in lines:
        name, equals, value = line.strip().partition("=")
        if not equals:
            continue
        name, value = name.strip().lower(), value.strip()
        if name == "m":
            sections.append(_Section(value))
        elif name == "a":
            key, _, rest = value.partition(":")
            sections[-1].attributes.append((key.strip().lower(), rest.strip()))
        elif name == "v":
            sections[0].line = line
    return sections


def _track(video: _Section, session: _Section, over_tls: bool) -> VideoTrack | None:
    words = video.words
    is_secure = "SAVP" in video.profile
    if len(words) < 4 or (is_secure and not over_tls):
        return None
    for payload_type in words[3:]:
        if not (payload_type.isascii() and payload_type.isdigit() and len(payload_type) <= 3 and int(payload_type) < 128):
            continue
        name, rest = video.encoding(payload_type, session)
        parameters = video.parameters(payload_type)
        codec = _CODECS.get(name or _format_of(parameters))
        if codec is None or (codec == "hevc" and parameters.get("sprop-max-don-diff", "0") != "0"):
            continue
        rate = rest.partition("/")[0].strip()
        clock_rate = int(rate) if rate.isascii() and rate.isdigit() and 0 < len(rate) <= 9 and int(rate) else 90_000
        fps = _fps(video.value("framerate") or session.value("framerate"))
        control, size_px = video.value("control"), _size(video.value("x-dimensions"))
        extradata = _extradata(codec, parameters)
        return VideoTrack(codec, int(payload_type), clock_rate, control, extradata, fps, size_px, is_secure, name)
    return None


def _format_of(parameters: dict[str, str]) -> str:
    """Return the format that parameters belong to, where nothing names it."""
    if "sprop-sps" in parameters or "sprop-vps" in parameters:
        return "H265"
    return "H264" if "sprop-parameter-sets" in parameters or "profile-level-id" in parameters else ""


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
