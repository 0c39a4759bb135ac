"""HLS playlists: text in, segments out. Nothing is fetched here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import m3u8

from moodline.services.ingest.camera.http.hls_text import cleaned, is_playlist
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

_HEIGHT_ENOUGH_PX: Final = 360
_BANDWIDTH_ENOUGH: Final = 1_000_000
_LINES_LIMIT: Final = 50_000
_NUMBERED: Final = "#EXT-X-MEDIA-SEQUENCE:"
_PART_LIMIT_BYTES: Final = 64 * 1024 * 1024
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
        part: Offset and length in bytes where it is a part of a file, or None.
        header_part: Likewise, of the header.
        key: Of encryption, or None.
        restarts: Its clock and codec have nothing to do with those before.
    """

    sequence: int
    uri: str
    duration_s: float
    header_uri: str | None
    camera_s: float | None
    part: tuple[int, int] | None = None
    header_part: tuple[int, int] | None = None
    key: "Key | None" = None
    restarts: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """How a segment is encrypted (AES-128 in CBC mode): where the key is, and the vector of 16 bytes."""

    uri: str
    vector: bytes


@dataclass(frozen=True, slots=True)
class MediaPlaylist:
    """Segments in order; `ended`: there will be no more; `is_numbered`: the playlist says which it begins with."""

    segments: tuple[Segment, ...]
    target_s: float
    ended: bool
    is_numbered: bool = True


def parse_playlist(data: bytes) -> MediaPlaylist | str:
    """Return the segments, or of a master playlist the reference of the variant to read.

    Of the variants that have video, the smallest of at least 360 px height is enough for faces and costs least; if all are
    smaller, the largest. Where heights are not given, the least bandwidth of at least 1 Mbit/s, or else the greatest.

    Raises:
        SourceError: `corrupt`, `codec` (encrypted in a way that needs a licence), `no_video`.
    """
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    if text.count("\n") > _LINES_LIMIT or not is_playlist(text):
        raise _corrupt()
    text = _readable(cleaned(text))
    try:
        playlist = m3u8.loads(text)
        return _variant(playlist.playlists) if playlist.is_variant else _media(playlist, _NUMBERED in text)
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


def _media(playlist: Any, is_numbered: bool) -> MediaPlaylist:
    segments: list[Segment] = []
    ends: dict[str, int] = {}
    for index, item in enumerate(playlist.segments):
        if not item.uri:
            continue
        uri = str(item.uri)
        sequence = int(playlist.media_sequence or 0) + index
        header = item.init_section
        part = _part(item.byterange, ends.get(uri, 0))
        if part is not None:
            ends[uri] = part[0] + part[1]
        if item.gap_tag:
            continue
        duration_s = float(item.duration or 0)
        if not 0 <= duration_s <= _DURATION_LIMIT_S:
            raise _corrupt()
        segments.append(
            Segment(
                sequence,
                uri,
                duration_s,
                None if header is None else str(header.uri),
                _seconds(item.current_program_date_time),
                part,
                None if header is None else _part(header.byterange, 0),
                _key(item.key, sequence),
                bool(item.discontinuity),
            )
        )
    longest_s = max((segment.duration_s for segment in segments), default=2.0)
    target_s = float(playlist.target_duration or longest_s)
    return MediaPlaylist(tuple(segments), min(max(target_s, 0.5), 30.0), bool(playlist.is_endlist), is_numbered)


def renumbered(playlist: MediaPlaylist, before: MediaPlaylist) -> MediaPlaylist:
    """Return a playlist that does not number its segments, with numbers that go on from those of the one before."""
    if playlist.is_numbered or not before.segments or not playlist.segments:
        return playlist
    known = {(segment.uri, segment.part): segment.sequence for segment in before.segments}
    first = next(
        (
            known[segment.uri, segment.part] - place
            for place, segment in enumerate(playlist.segments)
            if (segment.uri, segment.part) in known
        ),
        before.segments[-1].sequence + 1,
    )
    segments = tuple(replace(segment, sequence=first + place) for place, segment in enumerate(playlist.segments))
    return replace(playlist, segments=segments)


def _part(text: str | None, follows: int) -> tuple[int, int] | None:
    """Read `length@offset`; without an offset it follows on the part before."""
    if not text:
        return None
    length, at, offset = str(text).strip().strip('"').partition("@")
    part = (int(offset) if at else follows), int(length)
    if not (part[0] >= 0 < part[1] <= _PART_LIMIT_BYTES):
        raise _corrupt()
    return part


def _key(item: Any, sequence: int) -> Key | None:
    if item is None or item.method in (None, "NONE"):
        return None
    if item.method != "AES-128" or not item.uri or (item.keyformat or "identity") != "identity":
        raise SourceError(FailureReason.CODEC, "the camera's stream is encrypted in a way that needs a licence")
    text = str(item.iv or f"0x{sequence:032x}")
    vector = bytes.fromhex(text[2:].zfill(32)) if text[:2].lower() == "0x" else b""
    if len(vector) != 16:
        raise _corrupt()
    return Key(str(item.uri), vector)


def _readable(text: str) -> str:
    """Return a playlist without what makes no sense and is not needed: dates that are none."""
    return "\n".join(line for line in text.splitlines() if not _is_bad_date(line))


def _is_bad_date(line: str) -> bool:
    if not line.startswith("#EXT-X-PROGRAM-DATE-TIME:"):
        return False
    try:
        moment = m3u8.parser.cast_date_time(line.partition(":")[2].strip())
    except _BAD_TEXT:
        return True
    return bool(_seconds(moment) is None)


def _seconds(moment: datetime | None) -> float | None:
    if moment is None or not 1971 <= moment.year <= 9000:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _corrupt() -> SourceError:
    return SourceError(FailureReason.CORRUPT, "the camera's playlist makes no sense")
