"""HLS playlists: text in, segments out. Nothing is fetched here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import m3u8

from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

_HEIGHT_ENOUGH_PX: Final = 360
_BANDWIDTH_ENOUGH: Final = 1_000_000
_LINES_LIMIT: Final = 50_000
_DURATION_LIMIT_S: Final = 600.0
_BAD_TEXT: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a live playlist.

    Attributes:
        sequence: Its number in the stream.
        uri: As the playlist has it; relative to the playlist.
        duration_s: As the playlist says.
        header_uri: What is to be put in front (EXT-X-MAP), or None.
        camera_s: When its first frame was taken, seconds since the Unix epoch, or None.
    """

    sequence: int
    uri: str
    duration_s: float
    header_uri: str | None
    camera_s: float | None


@dataclass(frozen=True, slots=True)
class MediaPlaylist:
    """Segments in order; `ended`: there will be no more."""

    segments: tuple[Segment, ...]
    target_s: float
    ended: bool


def parse_playlist(data: bytes) -> MediaPlaylist | str:
    """Return the segments, or of a master playlist the reference of the variant to read.

    Of the variants that have video, the smallest of at least 360 px height is enough for faces and costs least; if all are
    smaller, the largest. Where heights are not given, the least bandwidth of at least 1 Mbit/s, or else the greatest.

    Raises:
        SourceError: `corrupt`, `codec` (encrypted, or pieces of one file), `no_video`.
    """
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    if not text.lstrip().startswith("#EXTM3U") or text.count("\n") > _LINES_LIMIT:
        raise _corrupt()
    try:
        playlist = m3u8.loads(text)
        return _variant(playlist.playlists) if playlist.is_variant else _media(playlist)
    except _BAD_TEXT:
        # What the parser says of text that breaks the rules.
        raise _corrupt() from None


def _variant(variants: Sequence[Any]) -> str:
    usable = [(*_size(variant.stream_info), str(variant.uri)) for variant in variants if variant.uri and _has_video(variant)]
    if not usable:
        raise SourceError(FailureReason.NO_VIDEO, "the camera's playlist offers no video")
    is_sized = any(height for height, _, _ in usable)
    enough = [item for item in usable if (item[0] >= _HEIGHT_ENOUGH_PX if is_sized else item[1] >= _BANDWIDTH_ENOUGH)]
    return min(enough)[2] if enough else max(usable)[2]


def _size(info: Any) -> tuple[int, int]:
    return int(info.resolution[1]) if info.resolution else 0, int(info.bandwidth or 0)


def _has_video(variant: Any) -> bool:
    """Codecs may not be named; those that are named must not all be of sound."""
    codecs = [codec.strip().lower() for codec in (variant.stream_info.codecs or "").split(",") if codec.strip()]
    return not codecs or not all(codec.startswith(("mp4a", "ac-3", "ec-3", "opus", "flac", "mp3")) for codec in codecs)


def _media(playlist: Any) -> MediaPlaylist:
    segments = []
    for index, item in enumerate(playlist.segments):
        if item.key is not None and item.key.method not in (None, "NONE"):
            raise SourceError(FailureReason.CODEC, "the camera's stream is encrypted")
        header = item.init_section
        if item.byterange or (header is not None and header.byterange):
            raise SourceError(FailureReason.CODEC, "the camera's segments are parts of one file, which is not supported")
        if item.gap_tag or not item.uri:
            continue
        duration_s = float(item.duration or 0)
        if not 0 <= duration_s <= _DURATION_LIMIT_S:
            raise _corrupt()
        header_uri = None if header is None else str(header.uri)
        camera_s = _seconds(item.current_program_date_time)
        sequence = int(playlist.media_sequence or 0) + index
        segments.append(Segment(sequence, str(item.uri), duration_s, header_uri, camera_s))
    longest_s = max((segment.duration_s for segment in segments), default=2.0)
    target_s = float(playlist.target_duration or longest_s)
    return MediaPlaylist(tuple(segments), min(max(target_s, 0.5), 30.0), bool(playlist.is_endlist))


def _seconds(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _corrupt() -> SourceError:
    return SourceError(FailureReason.CORRUPT, "the camera's playlist makes no sense")
