"""Streams: their definition in the registry, and the state that their reader writes."""

import re
from enum import StrEnum
from fractions import Fraction
from typing import Final

import msgspec

from moodline.shared.errors import InvalidStreamError
from moodline.shared.messages import StreamClass

STREAM_ID_PATTERN: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}"
"""The form of ids: Frigate's, and with full stops. Ids are compared as typed: `Yard` and `yard` are two streams."""
STREAM_ID_RULE: Final = "1 to 63 characters: letters (a-z, A-Z), digits, '.', '_' or '-'; starts with a letter, digit or '_'"
"""The same in words."""
_STREAM_ID = re.compile(STREAM_ID_PATTERN)

ALL_FRAMES: Final = "all"
SAMPLE_FPS_MAX: Final = 240
_SAMPLE_FPS = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,9})?)(/(?P<divisor>[0-9]{1,9}))?", re.ASCII)


class StreamState(StrEnum):
    """The states of a stream."""

    PENDING = "pending"
    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    BACKING_OFF = "backing_off"
    PAUSED = "paused"
    PLAYING = "playing"
    ENDED = "ended"
    FAILED = "failed"


class FailureReason(StrEnum):
    """The reasons for which a stream cannot be read."""

    AUTH = "auth"
    NOT_FOUND = "not_found"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TLS = "tls"
    CODEC = "codec"
    CORRUPT = "corrupt"
    EMPTY = "empty"
    NO_VIDEO = "no_video"
    TOO_LARGE = "too_large"
    FORBIDDEN_URL = "forbidden_url"
    TRUNCATED = "truncated"
    """The file ends before its declared length: it was cut, or is still being written. Of a stream that has `ended`."""
    INTERNAL = "internal"
    """A defect of Moodline or of a library; the log has it."""


class Transport(StrEnum):
    """The transports of an RTSP camera's media."""

    TCP = "tcp"
    UDP = "udp"


LIVE_SCHEMES: Final = ("rtsp", "rtsps", "http", "https", "device")
"""Cameras that ingest reads."""

PUSH_SCHEME: Final = "push"
PUSH_URL: Final = f"{PUSH_SCHEME}://"
"""URL of a live stream whose frames are pushed to the API; ingest reads nothing."""


def stream_class_of_url(url: str) -> StreamClass:
    """Return the stream class of what a URL names, by its scheme."""
    return StreamClass.LIVE if url.partition("://")[0].lower() in (*LIVE_SCHEMES, PUSH_SCHEME) else StreamClass.FILE


def is_pushed(url: str) -> bool:
    """Return whether a stream's frames are brought to the API instead of read by ingest."""
    return url.partition("://")[0].lower() == PUSH_SCHEME


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A registered stream.

    Attributes:
        stream_id: Letters, digits, `.`, `_`, `-`; at most 63 characters; starts with a letter, digit or `_`. Compared as typed.
        url: `file:///absolute/path`, `synthetic://name?options`, or a camera's: `rtsp://`, `rtsps://`, `http://`, `https://`,
            `device://0`; `push://` for frames that are brought. No credentials: what is secret in a camera's URL is in
            `sealed`, and masked here.
        sealed: What was secret in the URL, sealed by `moodline.shared.seal`; empty when nothing was.
        transport: For RTSP.
        tls_verify: For `rtsps` and `https`: whether the camera's certificate must be valid for its name.
        lane: File (finite, lossless) or live.
        sample_fps: Frames per second of media time to analyse, as a decimal or fraction in text ("5", "0.5", "30000/1001"),
            or "all". Text, because a timeline must not depend on how a float is rounded.
        max_side_px: Frames are reduced to at most this on the longer side.
        recorded_at_us: Time on the timeline of the file's first instant, microseconds since the Unix epoch, UTC.
        labels: Free key-value pairs of the user.
        paused: Nothing is read while true.
        preview: The newest analysed picture may be seen, by whom the settings let.
        attempt: Raised by the user to try a failed stream again.
        created_at_us: When it was registered.
        revision: Raised at every change; a change names the revision it was based on.
        added_by: Name of the key that registered it, whose quota it counts in; empty where an earlier version did.
    """

    stream_id: str
    url: str
    sealed: str = ""
    transport: Transport = Transport.TCP
    tls_verify: bool = True
    lane: StreamClass = StreamClass.FILE
    sample_fps: str = "5"
    max_side_px: int = 1280
    recorded_at_us: int = 0
    labels: dict[str, str] = {}
    paused: bool = False
    preview: bool = False
    attempt: int = 0
    created_at_us: int = 0
    revision: int = 1
    added_by: str = ""


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The last status of a stream. Its reader writes it with the epoch under which it acquired the stream.

    Attributes:
        state: What the reader does.
        reason: Typed reason of a failure, else None.
        detail: One sentence for people; never a credential.
        since_us: When this state began, wall clock.
        attempt: `StreamSpec.attempt` that this status belongs to.
        frames_sent: Sampled frames sent under this epoch.
        duration_us: Length of the content where known, else None.
        width, height: Of the decoded video, after rotation; 0 when unknown.
        codec: FFmpeg's name of the codec, or "".
        source_fps: Nominal frame rate as a fraction in text, or "".
        attempts: Live: attempts to connect since frames last came.
        next_attempt_us: Live, backing off: when it is tried again, wall clock; else 0.
        last_frame_us: Live: when the last frame arrived, wall clock; 0 before the first.
        fps: Live: measured frames per second that arrive, 0 when unknown.
        clock_offset_ms: Live: how far the camera's clock is ahead of ours, in ms; None where it tells no time.
        lost_packets: Live: network packets that never came, under this epoch.
        frames_decoded, frames_corrupt, frames_lost: Files, when they have ended: frames that came out of the decoder; damaged
            ones; of these, such as did not come out of it at all.
        played_us: Files, when they have ended: how long they play, in microseconds; None before.
        host_clock_ahead_ms: How far the clock of the host that reads the stream is ahead of the store's host, in ms.
    """

    state: StreamState = StreamState.PENDING
    reason: FailureReason | None = None
    detail: str = ""
    since_us: int = 0
    attempt: int = 0
    frames_sent: int = 0
    duration_us: int | None = None
    width: int = 0
    height: int = 0
    codec: str = ""
    source_fps: str = ""
    attempts: int = 0
    next_attempt_us: int = 0
    last_frame_us: int = 0
    fps: float = 0.0
    clock_offset_ms: int | None = None
    lost_packets: int = 0
    frames_decoded: int = 0
    frames_corrupt: int = 0
    frames_lost: int = 0
    played_us: int | None = None
    host_clock_ahead_ms: int = 0


def check_stream_id(stream_id: str) -> str:
    """Return the id, or raise `InvalidStreamError` that says what an id may look like."""
    if not _STREAM_ID.fullmatch(stream_id):
        raise InvalidStreamError("stream_id", f"a stream id has {STREAM_ID_RULE}")
    return stream_id


def parse_sample_fps(text: str) -> Fraction | None:
    """Return the exact rate, 0 < rate <= 240, or None for "all".

    Raises:
        InvalidStreamError: for field `sample_fps`, saying what may be given.
    """
    if text == ALL_FRAMES:
        return None
    match = _SAMPLE_FPS.fullmatch(text)
    divisor = int(match["divisor"] or 1) if match else 0
    rate = Fraction(match["number"]) / divisor if match and divisor else Fraction(0)
    if not 0 < rate <= SAMPLE_FPS_MAX:
        raise InvalidStreamError(
            "sample_fps",
            f"sample_fps is a number of frames per second above 0 and up to {SAMPLE_FPS_MAX}, "
            'such as "5", "0.5" or "30000/1001", or "all"',
        )
    return rate
