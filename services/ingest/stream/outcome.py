"""The reasons for which the reading of a stream ends."""

from enum import StrEnum


class Outcome(StrEnum):
    """The reasons for which a reader ends."""

    ENDED = "ended"
    FAILED = "failed"
    STOPPED = "stopped"
    FENCED = "fenced"
    """A newer epoch has the stream."""
    GONE = "gone"
    """The stream is not registered any more."""
