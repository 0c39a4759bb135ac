"""The seam between a worker's loop and the pure core of each stage.

A stage sees decoded messages in the order in which the bus gave them and answers with outputs. It does no I/O, reads no
clock and no environment; time and models come in as arguments. The worker performs the outputs, makes them durable, and
only then commits what the stage was given, so a crash anywhere means that the same messages come again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from moodline.shared.bus.base import Position
from moodline.shared.messages import Message
from moodline.shared.store.base import TimelineUpdate


@dataclass(frozen=True, slots=True)
class Received:
    """A decoded message, where on the bus it was, and when it was produced, in ms since the Unix epoch; 0 where unknown."""

    message: Message
    position: Position
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Output: publish `message` on `topic`, keyed by its stream."""

    topic: str
    message: Message


@dataclass(frozen=True, slots=True)
class Apply:
    """Output: write this update to the store, in one atomic step.

    Attributes:
        update: The update.
        captured_at_us: When its frames were captured, microseconds since the Unix epoch; only for the measured latency.
    """

    update: TimelineUpdate
    captured_at_us: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Rewind:
    """Output: read again from `position` (inclusive; offset -1 means the oldest record kept) of its partition.

    What was received from that partition in this batch is not committed. With `since_ms`, milliseconds since the Unix epoch, from
    the first record that was produced then or later, and `position` is where to read from at the latest.
    """

    position: Position
    since_ms: int | None = None


Output = Send | Apply | Rewind


@dataclass(frozen=True, slots=True)
class Written:
    """Reports what became of outputs.

    Attributes:
        rewinds: Positions from which the worker must read again (inclusive); usually none.
        refused: Streams whose update the store refused, because it was made from something else than what is stored.
    """

    rewinds: list[Position] = field(default_factory=list)
    refused: frozenset[str] = frozenset()


class Stage(Protocol):
    """The pure core of a worker.

    `process` must answer every message it is given (with its result, or with the message marked as skipped) in this or a
    later call. Outputs of one stream keep their order.
    """

    def process(self, batch: Sequence[Received], now_s: float) -> list[Output]:
        """Handle messages, oldest first. May take as long as the models take; may not block on anything else."""
        ...

    def tick(self, now_s: float) -> list[Output]:
        """Do what time alone makes due. Called after every `process`, and at least once a second when idle."""
        ...

    def on_revoked(self, partitions: frozenset[tuple[str, int]]) -> None:
        """Forget what is held for `(topic, partition)` pairs that another worker owns from now on."""
        ...

    def on_refused(self, stream_ids: frozenset[str]) -> None:
        """Forget what is held for these streams: the store refused an update of each, and says what is right."""
        ...

    def close(self) -> None:
        """Release models and threads. Called once; the stage is not used afterwards."""
        ...
