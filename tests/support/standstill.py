"""How long timelines stood still: what a fault costs whoever looks at them."""

import threading
import time
from types import TracebackType
from typing import Self

from moodline.shared.errors import StoreError
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec

_POLL_S = 0.05


class Standstill:
    """Watches the marks of streams from a thread. A context manager.

    Attributes:
        longest_s: Longest time in which none of the streams that were under way moved, in s.
    """

    def __init__(self, store: Store, specs: list[StreamSpec]) -> None:
        self._store, self._ids = store, [spec.stream_id for spec in specs]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.longest_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(20)

    def _watch(self) -> None:
        seen: list[object] = []
        moved_s = time.monotonic()
        while not self._stop.wait(_POLL_S):
            try:
                progress = self._store.load(self._ids)
            except StoreError:
                continue
            high_water_marks: list[object] = [(item.high_water_mark, item.final) if item else None for item in progress]
            if high_water_marks != seen:
                seen, now_s = high_water_marks, time.monotonic()
                self.longest_s = max(self.longest_s, now_s - moved_s)
                moved_s = now_s
