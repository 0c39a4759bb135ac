"""The quirks of a simulated camera: what firmware does otherwise than the standards say, and every client should bear. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from moodline.services.simulator.options import Codec
from moodline.shared.errors import SettingsError


class Quirk(StrEnum):
    """A quirk's name, as a user writes it."""

    CSEQ = "cseq"
    LF = "lf"
    NUL_SDP = "nulsdp"
    TABS = "tabs"
    MUTE_OPTIONS = "muteoptions"
    MUTE_PLAY = "muteplay"
    REFUSED_KEEP_ALIVE = "keepalive454"
    SAVP = "savp"
    MARKERS = "markers"
    NO_MARKERS = "nomarkers"
    START_CODES = "startcodes"
    UNKNOWN_NALS = "unknownnals"
    ANNEX_B = "annexb"
    PAYLOAD_TYPE = "payloadtype"
    STILL = "still"
    SLOW_STAMPS = "slowstamps"
    REPORTS = "reports"
    BOUNDARY = "boundary"
    NO_END = "noend"
    HEADERS = "headers"


MEANING: Final = {
    Quirk.CSEQ: "answers with a CSeq of 0",
    Quirk.LF: "ends lines with LF alone",
    Quirk.NUL_SDP: "puts bytes of 0 behind its description",
    Quirk.TABS: "has tabs in its description",
    Quirk.MUTE_OPTIONS: "never answers OPTIONS",
    Quirk.MUTE_PLAY: "never answers PLAY, but plays",
    Quirk.REFUSED_KEEP_ALIVE: "answers 454 to keep-alives, and goes on to play",
    Quirk.SAVP: "announces RTP/SAVP, and sends plain RTP",
    Quirk.MARKERS: "sets the marker on the last packet of every NAL unit",
    Quirk.NO_MARKERS: "never sets the marker",
    Quirk.START_CODES: "puts a start code before each NAL unit",
    Quirk.UNKNOWN_NALS: "sends NAL units of type 0 and of reserved types",
    Quirk.ANNEX_B: "sends parameter sets and what follows as one NAL unit, with start codes in between",
    Quirk.PAYLOAD_TYPE: "sends another payload type than it describes",
    Quirk.STILL: "has the same time stamp on all packets",
    Quirk.SLOW_STAMPS: "has time stamps that run at 0.6 of their rate",
    Quirk.REPORTS: "has sender reports that are off by up to 2 s, each by another time",
    Quirk.BOUNDARY: "separates pictures over HTTP by another line than it announces, without their length",
    Quirk.NO_END: "leaves out the end mark of its pictures over HTTP",
    Quirk.HEADERS: "answers over HTTP as ICY, with sloppy headers and text/html for its type",
}
"""The behaviour of a camera with each of them."""


_STRANGE: Final = {
    Codec.H264: (b"\x00\x80\x01", b"\x1e\x80", b"\x14\x80abc"),
    Codec.H265: (b"\x2c\x01\x80abc", b"\x7c\x01\x80ab"),
}
"""H.264: types 0, 30 and 20. H.265: types 22 and 62."""


def parse_quirks(texts: Iterable[str]) -> dict[str, frozenset[Quirk]]:
    """Return the quirks by path of texts such as `cam0=markers`. Raises `SettingsError`."""
    found: dict[str, set[Quirk]] = {}
    for text in texts:
        path, mark, name = text.partition("=")
        if not mark or name not in list(Quirk):
            raise SettingsError(f"--quirk is a path and a quirk, such as cam0=markers; there are {', '.join(Quirk)}")
        found.setdefault(path.strip("/"), set()).add(Quirk(name))
    return {path: frozenset(quirks) for path, quirks in found.items()}


def with_quirks(payloads: Sequence[bytes], codec: Codec, quirks: frozenset[Quirk]) -> tuple[bytes, ...]:
    """Return the payloads of one frame as such a camera sends them."""
    if codec is Codec.MJPEG or not quirks:
        return tuple(payloads)
    out = list(payloads)
    if Quirk.ANNEX_B in quirks:
        small = [payload for payload in out if not _is_fragment(payload, codec)]
        if len(small) > 1 and sum(map(len, small)) < 1400:
            out = [b"\0\0\0\1".join(small), *(payload for payload in out if _is_fragment(payload, codec))]
    if Quirk.START_CODES in quirks:
        out = [payload if _is_fragment(payload, codec) else b"\0\0\0\1" + payload for payload in out]
    if Quirk.UNKNOWN_NALS in quirks:
        out = [*_STRANGE[codec], *out]
    return tuple(out)


def markers(payloads: Sequence[bytes], codec: Codec, quirks: frozenset[Quirk]) -> list[bool]:
    """Return which packets of a frame have the marker."""
    last = len(payloads) - 1
    if Quirk.NO_MARKERS in quirks:
        return [False] * len(payloads)
    if Quirk.MARKERS in quirks:
        return [not _is_fragment(one, codec) or _is_last_fragment(one, codec) for one in payloads]
    return [number == last for number in range(len(payloads))]


def described(sdp: bytes, quirks: frozenset[Quirk]) -> bytes:
    """Return a description as such a camera writes it."""
    if Quirk.TABS in quirks:
        sdp = re.sub(rb"(a=rtpmap:\d+) ", rb"\1\t", sdp)
    if Quirk.SAVP in quirks:
        sdp = sdp.replace(b" RTP/AVP ", b" RTP/SAVP ")
    if Quirk.LF in quirks:
        sdp = sdp.replace(b"\r\n", b"\n")
    return sdp + b"\0" * 7 if Quirk.NUL_SDP in quirks else sdp


def is_mute(method: str, quirks: frozenset[Quirk]) -> bool:
    """Return whether such a camera never answers this."""
    return (method == "OPTIONS" and Quirk.MUTE_OPTIONS in quirks) or (method == "PLAY" and Quirk.MUTE_PLAY in quirks)


def answered(headers: Mapping[str, str], quirks: frozenset[Quirk]) -> dict[str, str]:
    """Return the headers of an answer as such a camera writes them."""
    out = dict(headers)
    if Quirk.CSEQ in quirks:
        out["CSeq"] = "0"
    return out


def _is_fragment(payload: bytes, codec: Codec) -> bool:
    return payload[0] & 0x1F == 28 if codec is Codec.H264 else payload[0] >> 1 & 0x3F == 49


def _is_last_fragment(payload: bytes, codec: Codec) -> bool:
    return bool(payload[1 if codec is Codec.H264 else 2] & 0x40)
