"""The format of an answer: by `?format=`, else by `Accept` (RFC 9110), else JSON."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from importlib.util import find_spec
from typing import Final, NamedTuple

from starlette.datastructures import Headers

from moodline.shared.errors import NotAcceptableError


class Format(StrEnum):
    """The formats of timelines, tracks and faces. The first ones come first where a client does not mind."""

    JSON = "json"
    CSV = "csv"
    NDJSON = "ndjson"
    PARQUET = "parquet"
    ARROW = "arrow"


MEDIA_TYPES: Final[Mapping[Format, tuple[str, ...]]] = {
    Format.JSON: ("application/json",),
    Format.CSV: ("text/csv",),
    Format.NDJSON: ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/json-seq"),
    Format.PARQUET: ("application/vnd.apache.parquet", "application/x-parquet"),
    Format.ARROW: ("application/vnd.apache.arrow.stream",),
}
"""The media types of each format. Answers use the first one; the others are understood in requests."""

_OF_PYARROW: Final = frozenset({Format.PARQUET, Format.ARROW})
_NEEDED: Final = "{} needs the package pyarrow where the API runs: pip install 'moodline[parquet]'"


class _Range(NamedTuple):
    """One part of `Accept`."""

    media: str
    quality: float

    def fits(self, media: str) -> int:
        """Return how exactly it names a media type: 0 not at all, 3 by its name."""
        kind = self.media.partition("/")[0]
        if self.media == media:
            return 3
        if self.media == f"{kind}/*" and media.startswith(f"{kind}/") and kind != "*":
            return 2
        return 1 if self.media == "*/*" else 0


def choose_format(headers: Headers, asked: str | None, offered: Sequence[Format]) -> Format:
    """Return the format of an answer.

    Args:
        headers: Of the request.
        asked: The parameter `format`, which comes before `Accept`.
        offered: The formats that the route has, the preferred one first.

    Raises:
        NotAcceptableError: none of what is asked for is to be had.
    """
    if asked is not None:
        return _named(asked, offered)
    ranges = accepted(headers)
    quality = {each: max(quality_of(ranges, media) for media in MEDIA_TYPES[each]) for each in offered}
    present = [each for each in offered if _is_installed(each)]
    # The sort is stable: where a client minds as little, our own order counts.
    best = sorted(present, key=quality.__getitem__, reverse=True)[0]
    if quality[best] == (0.0, 0):
        wanted = [each for each in offered if quality[each][0]]
        reason = _NEEDED.format(wanted[0]) if wanted else _sentence(MEDIA_TYPES[each][0] for each in present)
        raise NotAcceptableError("Accept", reason)
    return best


def require_acceptable(headers: Headers, media_types: Sequence[str]) -> None:
    """Raise `NotAcceptableError` unless `Accept` allows one of these media types."""
    ranges = accepted(headers)
    if all(quality_of(ranges, media)[0] == 0 for media in media_types):
        raise NotAcceptableError("Accept", _sentence(media_types))


def accepted(headers: Headers) -> list[_Range]:
    """Return the parts of `Accept`; anything where it says nothing. What cannot be read in it is left out."""
    ranges = []
    for part in ",".join(headers.getlist("accept")).split(","):
        media, *parameters = (word.strip().lower() for word in part.split(";"))
        if media:
            ranges.append(_Range("*/*" if media == "*" else media, _quality(parameters)))
    return ranges or [_Range("*/*", 1.0)]


def quality_of(ranges: Iterable[_Range], media: str) -> tuple[float, int]:
    """Return how much a media type is wanted, 0 to 1, and how exactly it is named; (0, 0) where it is not wanted."""
    fitting = [(found, each.quality) for each in ranges if (found := each.fits(media))]
    exactness, quality = max(fitting, default=(0, 0.0))
    return (quality, exactness) if quality > 0 else (0.0, 0)


def _named(asked: str, offered: Sequence[Format]) -> Format:
    found = next((each for each in offered if each == asked), None)
    if found is None:
        raise NotAcceptableError("format", f"format: there is no {asked[:32]!r} here; {_sentence(offered)}")
    if not _is_installed(found):
        raise NotAcceptableError("format", _NEEDED.format(found))
    return found


def _is_installed(wanted: Format) -> bool:
    return wanted not in _OF_PYARROW or find_spec("pyarrow") is not None


def _sentence(offered: Iterable[str]) -> str:
    return f"to be had: {', '.join(offered)}"


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
