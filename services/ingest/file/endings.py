"""How a file ended: whole, or before the length that it declares. Pure but for reading properties of the container."""

from fractions import Fraction
from typing import Any, Final, NamedTuple

from moodline.services.ingest.media.frames import Ending
from moodline.shared.streams import FailureReason

_DECLARING: Final = frozenset({"mov", "mp4", "matroska", "webm", "avi", "flv", "asf", "nut", "mxf", "rm", "wtv", "gxf", "ivf"})
"""FFmpeg's names of the containers whose header says how long they are. For the others FFmpeg estimates."""

_LEAST_TOLERANCE_S: Final = Fraction(1, 4)
_SHARE: Final = Fraction(1, 100)


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


def ending_of(  # noqa: PLR0913, PLR0917  # the facts, one by one
    lengths: Lengths,
    video_end_s: Fraction,
    sound_end_s: Fraction,
    size_bytes: int,
    missing_bytes: int,
    grown_bytes: int,
    corrupt: int,
    lost: int,
) -> Ending:
    """Return how a file ended that was read to its end.

    Args:
        lengths: What it declares.
        video_end_s: When its last frame ends.
        sound_end_s: When its sound ends; 0 without.
        size_bytes: How large it is.
        missing_bytes: How much further its structure should go.
        grown_bytes: How much it grew while it was read.
        corrupt: Damaged frames.
        lost: Of these, frames that were not decoded.
    """
    declared_s = lengths.declared_s
    # Where only the file's length is known, that may be its sound's.
    end_s = video_end_s if lengths.video_s is not None else max(video_end_s, sound_end_s)
    damage = "" if not corrupt else f"{corrupt} frame is damaged" if corrupt == 1 else f"{corrupt} frames are damaged"
    also = f"; {damage}" if damage else ""
    if grown_bytes > 0:
        return Ending(FailureReason.TRUNCATED, f"the file grew while it was read: it is still being written{also}", corrupt, lost)
    if declared_s is not None and end_s < declared_s - _tolerance_s(declared_s, lengths.frame_s):
        return Ending(FailureReason.TRUNCATED, f"{float(end_s):.1f} of {float(declared_s):.1f} s{also}", corrupt, lost)
    is_much = missing_bytes > _SHARE * size_bytes
    if missing_bytes and (declared_s is None or is_much or end_s < declared_s - 2 * lengths.frame_s):
        return Ending(
            FailureReason.TRUNCATED, f"the file is cut: {missing_bytes} bytes are missing at its end{also}", corrupt, lost
        )
    if corrupt:
        return Ending(FailureReason.CORRUPT, damage, corrupt, lost)
    return Ending()


def _tolerance_s(declared_s: Fraction, frame_s: Fraction) -> Fraction:
    return max(_LEAST_TOLERANCE_S, 2 * frame_s, declared_s * _SHARE if declared_s < 60 else Fraction(6, 10))


def _clock_time(text: str) -> Fraction | None:
    """Return "00:00:05.040000000" in s, as Matroska's muxers write it; None for anything else."""
    parts = text.split(":")
    try:
        hours, minutes, seconds = parts
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except (ValueError, ZeroDivisionError):
        return None
