"""Retention of each topic: one table for all adapters."""

from typing import Final, NamedTuple

from moodline.shared.messages import ALL_TOPICS, DLQ_TOPIC, STREAMS_TOPIC, PipelineStep, StreamClass, topic

_MiB: Final = 1024 * 1024
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S


class Retention(NamedTuple):
    """The retention of one topic.

    Attributes:
        keep_s: Records older than this may go, in s.
        partition_bytes: Beyond this the oldest records of a partition may go, in bytes; None for no bound.
        drops_oldest: Nobody has to read the topic. The memory bus makes room there by dropping the oldest records, where it
            makes senders to every other topic wait.
    """

    keep_s: int
    partition_bytes: int | None = None
    drops_oldest: bool = False


DEFAULT_RETENTION: Final = Retention(_DAY_S)

RETENTION: Final[dict[str, Retention]] = {
    # A live frame is worth nothing after its age budget of seconds; the rest is for looking into an incident.
    topic(PipelineStep.FRAMES, StreamClass.LIVE): Retention(10 * _MINUTE_S, 1024 * _MiB),
    # Files are read ahead by a bounded credit only, so what is unread stays far below both bounds.
    topic(PipelineStep.FRAMES, StreamClass.FILE): Retention(_DAY_S, 2048 * _MiB),
    topic(PipelineStep.FACES, StreamClass.LIVE): Retention(_DAY_S, 1024 * _MiB),
    topic(PipelineStep.FACES, StreamClass.FILE): Retention(_DAY_S, 1024 * _MiB),
    topic(PipelineStep.EMOTIONS, StreamClass.LIVE): Retention(_DAY_S),
    topic(PipelineStep.EMOTIONS, StreamClass.FILE): Retention(_DAY_S),
    STREAMS_TOPIC: Retention(_DAY_S),
    DLQ_TOPIC: Retention(7 * _DAY_S, drops_oldest=True),
}


def retention_of(name: str) -> Retention:
    """Return what a topic keeps; one day for topics that are not in the table."""
    return RETENTION.get(name, DEFAULT_RETENTION)


assert set(RETENTION) == set(ALL_TOPICS)
