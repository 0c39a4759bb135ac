"""Limits how many requests of one caller run at the same time, so that others find room."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from moodline.shared.errors import TooBusyError


class ConcurrencyLimit:
    """Counts what is under way. Thread-safe."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, what: str, limit: int) -> Iterator[None]:
        """Hold one of `limit` places for as long as the context lasts. Never waits.

        Raises:
            TooBusyError: all places are taken.
        """
        with self._lock:
            if self._held[what] >= limit:
                raise TooBusyError(f"{limit} {what} are under way already; try again in a moment")
            self._held[what] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[what] -= 1
                if not self._held[what]:
                    del self._held[what]
