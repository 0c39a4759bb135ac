"""Session description of a simulated camera (RFC 4566, with the parameters of RFC 6184 and RFC 7798)."""

import base64
from collections.abc import Sequence
from typing import Final

from moodline.services.simulator.absurd import absurd_sps
from moodline.services.simulator.camera import DYNAMIC_TYPE, payload_type
from moodline.services.simulator.film import CLOCK_HZ, Track
from moodline.services.simulator.options import Codec

TRACK_NAME: Final = "trackID=0"
BIG_SDP_BYTES: Final = 4 * 1024 * 1024


def describe(track: Track, host: str, *, big: bool = False, absurd: bool = False) -> bytes:
    """Return the SDP of a track.

    Args:
        track: What is played.
        host: The server's address.
        big: Add some MiB of lines that mean nothing.
        absurd: With a picture size that no decoder can have.
    """
    family = "IP6" if ":" in host else "IP4"
    kind = payload_type(track.codec)
    lines = [
        "v=0",
        f"o=- 1 1 IN {family} {host}",
        "s=Moodline camera",
        f"c=IN {family} {'::' if ':' in host else '0.0.0.0'}",  # noqa: S104  # SDP's way to say: wherever RTSP says
        "t=0 0",
        "a=range:npt=now-",
        "a=control:*",
        f"m=video 0 RTP/AVP {kind}",
        *_codec_lines(track, absurd=absurd),
        f"a=framerate:{float(track.fps):g}",
        f"a=control:{TRACK_NAME}",
    ]
    if big:
        line = "a=x-filler:" + 200 * "x"
        lines += [line] * (BIG_SDP_BYTES // (len(line) + 2))
    return "\r\n".join([*lines, ""]).encode()


def _codec_lines(track: Track, *, absurd: bool) -> list[str]:
    if track.codec is Codec.MJPEG:
        return [f"a=rtpmap:26 JPEG/{CLOCK_HZ}"]
    sets = list(track.parameter_sets)
    if absurd:
        sets[-2] = absurd_sps(track.codec)
    if track.codec is Codec.H264:
        profile = sets[0][1:4].hex()
        value = f"packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={_encoded(sets)}"
        name = "H264"
    else:
        value = ";".join(f"sprop-{key}={_encoded([one])}" for key, one in zip(("vps", "sps", "pps"), sets, strict=True))
        name = "H265"
    return [f"a=rtpmap:{DYNAMIC_TYPE} {name}/{CLOCK_HZ}", f"a=fmtp:{DYNAMIC_TYPE} {value}"]


def _encoded(sets: Sequence[bytes]) -> str:
    return ",".join(base64.b64encode(one).decode() for one in sets)
