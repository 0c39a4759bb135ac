"""The slot between a reader that never waits and a sender that may be slow: the newest wins, and every loss is accounted for."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Taken(Generic[Item]):
    """The items taken at one time, in order: `forgotten` (only their number is known), then `replaced`, then `newest`."""

    replaced: tuple[Item, ...]
    newest: Item | None
    forgotten: int = 0


class LatestSlot(Generic[Item]):
    """Holds one item; a newer one takes its place. What was replaced is noted, up to a limit. Thread-safe."""

    def __init__(self, replaced_limit: int) -> None:
        """Start empty; at most `replaced_limit` replaced items are kept, then the oldest are only counted, as `forgotten`."""
        self._newest: Item | None = None
        self._replaced: deque[Item] = deque()
        self._limit = replaced_limit
        self._after: deque[Item] = deque()
        self._closed = False
        self._changed = threading.Condition()
        self._forgotten = 0

    def put(self, item: Item) -> Item | None:
        """Put the newest item in; never waits. Returns the item that it replaced."""
        with self._changed:
            former = self._newest
            if former is not None:
                self._add_replaced(former)
            self._settle_after()
            self._newest = item
            self._changed.notify()
            return former

    def put_replaced(self, item: Item) -> None:
        """Put in, in its turn, an item that counts as replaced already."""
        with self._changed:
            if self._newest is not None:
                self._after.append(item)
            else:
                self._add_replaced(item)

    def take(self, timeout_s: float) -> Taken[Item]:
        """Take all there is; waits up to `timeout_s` for an item. Both parts are empty after the time-out, or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._closed, timeout_s)
            taken = Taken(tuple(self._replaced), self._newest, self._forgotten)
            self._replaced.clear()
            self._forgotten = 0
            self._newest = None
            self._settle_after()
            return taken

    def close(self) -> None:
        """Say that nothing more comes; what is in can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_done(self) -> bool:
        """Return whether it is closed and empty."""
        with self._changed:
            return self._closed and self._newest is None and not self._replaced

    def _settle_after(self) -> None:
        while self._after:
            self._add_replaced(self._after.popleft())

    def _add_replaced(self, item: Item) -> None:
        self._replaced.append(item)
        if len(self._replaced) > self._limit:
            self._replaced.popleft()
            self._forgotten += 1
