"""Why the reading of a stream is over."""

from enum import StrEnum


class Outcome(StrEnum):
    """Why a reader is done."""

    ENDED = "ended"
    FAILED = "failed"
    STOPPED = "stopped"
    FENCED = "fenced"
    """A newer session has the stream."""
    GONE = "gone"
    """The stream is not registered any more."""
