"""Texts of the page: states, ages, durations, and errors in forms. Pure."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final
from urllib.parse import urlencode

from pydantic import ValidationError

from moodline.services.report.stream_document import StreamAnswer
from moodline.shared.errors import InvalidStreamError, MoodlineError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import FailureReason, StreamState

STATES: Final[dict[StreamState, tuple[str, str]]] = {
    StreamState.PENDING: ("waiting", "idle"),
    StreamState.CONNECTING: ("connecting", "warn"),
    StreamState.LIVE: ("live", "good"),
    StreamState.STALLED: ("stalled", "warn"),
    StreamState.BACKING_OFF: ("trying again", "warn"),
    StreamState.PAUSED: ("paused", "idle"),
    StreamState.PLAYING: ("reading", "good"),
    StreamState.ENDED: ("complete", "idle"),
    StreamState.FAILED: ("failed", "bad"),
}
"""The name of each state, and the kind of its chip; each kind has a shape of its own besides its colour."""

_CUT_SHORT: Final = ("incomplete", "warn")
_DAMAGED: Final = ("damaged", "warn")

_NOT_IN_AN_ID = re.compile(r"[^a-z0-9._-]+")


def state_words(stream: StreamAnswer) -> tuple[str, str]:
    """Return what a stream's state is called and the kind of its chip; a file that was not read whole is not complete."""
    status = stream.status
    if status.state is StreamState.ENDED and status.reason is not None:
        return _DAMAGED if status.reason is FailureReason.CORRUPT else _CUT_SHORT
    return STATES[status.state]


def file_facts(stream: StreamAnswer) -> list[str]:
    """Return what is known of a file: codec, frames per second, length, and how many frames are damaged."""
    video, source = stream.video, stream.source
    if stream.lane is StreamClass.LIVE or video is None:
        return []
    facts = [video.codec]
    if video.source_fps:
        facts.append(f"{float(Fraction(video.source_fps)):.3f}".rstrip("0").rstrip(".") + " fps")
    length_s = stream.progress.duration_s
    if length_s is not None:
        facts.append(f"{length_s:.1f} s")
    if source is not None:
        facts.append(f"{source.decoded} frames decoded")
        facts += [f"{count} {word}" for count, word in ((source.corrupt, "damaged"), (source.lost, "lost")) if count]
    return facts


def age_text(seconds: float | None) -> str:
    """Return e.g. `0.4 s ago`, `12 s ago`, `3 min ago`; a dash where nothing came yet."""
    if seconds is None:
        return "—"
    return f"{max(0.0, seconds):.1f} s ago" if seconds < 9.95 else f"{span_text(seconds)} ago"


def span_text(seconds: float) -> str:
    """Return a length of time in its largest unit, rounded."""
    for unit_s, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.0f} s"


def why_text(stream: StreamAnswer) -> str:
    """Return why a stream is not simply working, or what its user should know; empty where it simply works."""
    status = stream.status
    reason = "" if status.reason is None else str(status.reason).replace("_", " ")
    return ": ".join(part for part in (reason, status.detail) if part)


def frame_rate(stream: StreamAnswer) -> str:
    """Return the frames per second that come in from a camera, or that are looked at of a file."""
    if stream.lane is StreamClass.LIVE:
        return "—" if stream.status.fps is None else f"{stream.status.fps:.1f}"
    return stream.sample_fps


def id_from_name(name: str, taken: set[str]) -> str:
    """Return an id for a stream made from a file's name, with a number where it is taken."""
    stem = name.rpartition("/")[2].rpartition(".")[0] or name
    base = _NOT_IN_AN_ID.sub("-", stem.lower()).strip("-._")[:56] or "upload"
    number = 1
    while (found := base if number == 1 else f"{base}-{number}") in taken:
        number += 1
    return found


def labels_from(text: str) -> dict[str, str]:
    """Return labels from `key=value, key=value`. Raises `InvalidStreamError` for what has no key."""
    labels: dict[str, str] = {}
    for part in (each.strip() for each in text.split(",")):
        if part:
            key, has_value, value = part.partition("=")
            if not key.strip() or not has_value:
                raise InvalidStreamError("labels", "write labels as key=value, with commas between them")
            labels[key.strip()] = value.strip()
    return labels


def labels_text(labels: Mapping[str, str]) -> str:
    """Return labels as `labels_from` reads them."""
    return ", ".join(f"{key}={value}" for key, value in labels.items())


def problems_of(error: ValidationError | MoodlineError) -> dict[str, str]:
    """Return what was wrong by field, "" for what belongs to none. Never a value that was given: it may be a secret."""
    if isinstance(error, ValidationError):
        return {str(item["loc"][0]) if item["loc"] else "": _sentence(item) for item in error.errors()}
    field = getattr(error, "field", None) or ""
    return {"id" if field == "stream_id" else field: str(error)}


def sign_in_path(asked: str) -> str:
    """Return the address of the sign-in page that leads on to a page of our own."""
    return "/sign-in?" + urlencode({"next": asked})


def _sentence(item: Any) -> str:
    if item["type"] == "string_pattern_mismatch" and item["loc"] == ("id",):
        return "1 to 63 letters, digits, '.', '_' or '-', beginning with a letter, a digit or '_'"
    if item["type"] in ("missing", "string_too_short"):
        return "this is required"
    return str(item["msg"]).removeprefix("Value error, ")
