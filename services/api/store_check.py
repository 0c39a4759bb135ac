"""A check whether the store takes writes, made at most once a second for all who ask."""

import threading
from typing import Final

from moodline.shared.clock import Clock
from moodline.shared.errors import StoreError
from moodline.shared.store import Store

_FRESH_S: Final = 1.0


class StoreCheck:
    """Remembers the last answer: anybody may ask `/readyz`, and must not make the store work. Thread-safe."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[float, str | None] | None = None

    def problem(self) -> str | None:
        """Return why the store takes no writes, or None. Blocks on the store, for one caller at a time."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if self._known is None or now_s - self._known[0] >= _FRESH_S:
                self._known = (now_s, self._ask())
            return self._known[1]

    def _ask(self) -> str | None:
        try:
            self._store.ping()
            self._store.require_writable()
        except StoreError as error:
            return str(error)
        return None
