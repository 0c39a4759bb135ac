"""How a file ended: whole, or before the length that it declares. Pure but for reading properties of the container."""

from fractions import Fraction
from typing import Any, Final, NamedTuple

from moodline.services.ingest.media.frames import Ending
from moodline.shared.streams import FailureReason

_DECLARING: Final = frozenset({"mov", "mp4", "matroska", "webm", "avi", "flv", "asf", "nut", "mxf", "rm", "wtv", "gxf", "ivf"})
"""FFmpeg's names of the containers whose header says how long they are. For the others FFmpeg estimates."""

_LEAST_TOLERANCE_S: Final = Fraction(1, 4)
_SHARE: Final = Fraction(1, 100)
_LONG_S: Final = 60


class Lengths(NamedTuple):
    """The declared lengths in s, None where unknown: of the whole file and of its video; and the nominal length of a frame."""

    file_s: Fraction | None
    video_s: Fraction | None
    frame_s: Fraction

    @classmethod
    def of(cls, container: Any, video: Any) -> "Lengths":
        """Return what an open container says."""
        rate = video.average_rate or video.guessed_rate
        frame_s = 1 / Fraction(rate) if rate else Fraction(0)
        if not _DECLARING & set(container.format.name.split(",")):
            return cls(None, None, frame_s)
        file_s = None if container.duration is None else Fraction(container.duration, 1_000_000)
        video_s = None if video.duration is None else video.duration * video.time_base
        if video_s is None:
            video_s = _clock_time(video.metadata.get("DURATION", ""))
        return cls(file_s, video_s, frame_s)

    @property
    def declared_s(self) -> Fraction | None:
        """Return how long the video is to be: an edit list may show less of the track than there is."""
        known = [value for value in (self.file_s, self.video_s) if value is not None]
        return min(known) if known else None


class Unread(NamedTuple):
    """What of a file was not there, or could not be read.

    Attributes:
        missing_bytes: How much further its structure should go.
        unreadable_bytes: How much at its end is there, and is nothing that can be read.
        grown_bytes: How much it grew while it was read.
        is_cut: Its end is not there; how much is missing cannot be told.
        is_torn: The container complained after its last frame.
    """

    missing_bytes: int = 0
    unreadable_bytes: int = 0
    grown_bytes: int = 0
    is_cut: bool = False
    is_torn: bool = False


def ending_of(lengths: Lengths, video_end_s: Fraction, sound_end_s: Fraction, unread: Unread, corrupt: int, lost: int) -> Ending:
    """Return how a file ended that was read to its end.

    Args:
        lengths: What it declares.
        video_end_s: When its last frame ends.
        sound_end_s: When its sound ends; 0 without.
        unread: What of it was not read.
        corrupt: Damaged frames.
        lost: Of these, frames that were not decoded.
    """
    declared_s = lengths.declared_s
    # Where only the file's length is known, that may be its sound's.
    end_s = video_end_s if lengths.video_s is not None else max(video_end_s, sound_end_s)
    damage = "" if not corrupt else f"{corrupt} frame is damaged" if corrupt == 1 else f"{corrupt} frames are damaged"

    def truncated(how: str) -> Ending:
        return Ending(FailureReason.TRUNCATED, f"{how}; {damage}" if damage else how, corrupt, lost)

    if unread.grown_bytes > 0:
        return truncated("the file grew while it was read: it is still being written")
    if declared_s is not None and end_s < declared_s - _tolerance_s(lengths, is_torn=unread.is_torn):
        return truncated(f"{float(end_s):.1f} of {float(declared_s):.1f} s")
    if cut := _cut(unread):
        return truncated(cut)
    if corrupt or unread.is_torn:
        return Ending(FailureReason.CORRUPT, damage or "something after its last frame cannot be read", corrupt, lost)
    return Ending()


def _cut(unread: Unread) -> str:
    if unread.missing_bytes:
        return f"the file is cut: {_bytes(unread.missing_bytes)} missing at its end"
    if unread.is_cut:
        return "the file is cut: its end is missing"
    if unread.unreadable_bytes:
        return f"the last {_bytes(unread.unreadable_bytes)} damaged, and nothing in them can be read"
    return ""


def _bytes(count: int) -> str:
    return "1 byte is" if count == 1 else f"{count} bytes are"


def _tolerance_s(lengths: Lengths, *, is_torn: bool) -> Fraction:
    if is_torn:
        return lengths.frame_s * Fraction(3, 2)
    declared_s = lengths.declared_s or Fraction(0)
    return max(_LEAST_TOLERANCE_S, 2 * lengths.frame_s, declared_s * _SHARE if declared_s < _LONG_S else _LONG_S * _SHARE)


def _clock_time(text: str) -> Fraction | None:
    """Return "00:00:05.040000000" in s, as Matroska's muxers write it; None for anything else."""
    parts = text.split(":")
    try:
        hours, minutes, seconds = parts
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except (ValueError, ZeroDivisionError):
        return None
