"""Keeps a consumer's progress: offsets that are done, offsets on their way to the bus, and offsets that it has taken. Pure.

One commit is under way at a time, so an older one cannot land after a newer one. What is done meanwhile is sent with the next: a
consumer that commits faster than the bus answers sends fewer commits, not more.
"""

from collections.abc import Iterable, Mapping
from typing import Final

LATE_S: Final = 20.0
"""A commit without an answer for this time is sent again."""

_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)


class Commits:
    """The commits of one topic's partitions. Offsets are those of the next record to be done.

    Attributes:
        taken: What the bus is known to have, per partition.
    """

    def __init__(self) -> None:
        self.taken: dict[int, int] = {}
        self._wanted: dict[int, int] = {}
        self._sent: dict[int, int] = {}
        self._sent_s: float | None = None
        self._failures = 0
        self._due_s = float("-inf")
        self._troubled_since_s: float | None = None

    def start(self, partition: int, offset: int) -> None:
        """Note where a partition's group stood when this consumer took it over."""
        self.taken[partition] = offset

    def want(self, offsets: Mapping[int, int]) -> None:
        """Note what is done."""
        self._wanted.update(offsets)

    def forget(self, partitions: Iterable[int]) -> dict[int, int]:
        """Drop partitions that are another's now; return what of them was not sent yet."""
        gone = set(partitions)
        for partition in gone:
            self.taken.pop(partition, None)
            self._sent.pop(partition, None)
        self._answered()
        return {partition: self._wanted.pop(partition) for partition in gone & self._wanted.keys()}

    def due(self, now_s: float) -> dict[int, int]:
        """Return what to send now, which then counts as sent; empty when there is nothing, or an answer is awaited."""
        if self._sent_s is not None and now_s - self._sent_s >= LATE_S:
            self.failed(tuple(self._sent), now_s)
        if self._sent_s is not None or not self._wanted or now_s < self._due_s:
            return {}
        self._sent, self._wanted, self._sent_s = self._wanted, {}, now_s
        return dict(self._sent)

    def left(self) -> dict[int, int]:
        """Return everything that the bus is not known to have."""
        return self._sent | self._wanted

    def succeeded(self, offsets: Mapping[int, int]) -> None:
        """Note that the bus has taken these."""
        for partition, offset in offsets.items():
            if self._sent.get(partition) == offset:
                del self._sent[partition]
                self.taken[partition] = offset
                self._failures, self._troubled_since_s = 0, None
        self._answered()

    def failed(self, partitions: Iterable[int], now_s: float) -> None:
        """Note that these were not taken; they are sent again after a pause, unless something newer is."""
        if self._troubled_since_s is None:
            self._troubled_since_s = now_s if self._sent_s is None else self._sent_s
        for partition in partitions:
            if partition in self._sent:
                self._wanted.setdefault(partition, self._sent.pop(partition))
        self._due_s = now_s + _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._failures += 1
        self._answered()

    def troubled_s(self, now_s: float) -> float:
        """Return for how long commits have failed; 0 while they do not."""
        return 0.0 if self._troubled_since_s is None else now_s - self._troubled_since_s

    def _answered(self) -> None:
        if not self._sent:
            self._sent_s = None
