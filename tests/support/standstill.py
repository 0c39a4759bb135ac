"""How long timelines stood still: what a fault costs whoever looks at them."""

import re
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from moodline.shared.errors import StoreError
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec

_POLL_S = 0.05
_NUMBER = re.compile(r"\d+(\.\d+)?")
_LOOK_S = 3.0
"""After this time without progress, what the stream's own status says is written down."""


class Standstill:
    """Watches the high-water marks of streams from a thread. A context manager.

    Attributes:
        longest_s: Longest time in which none of the streams that were under way moved, in s.
        said: What the streams' own statuses said while nothing moved.
    """

    def __init__(self, store: Store, specs: list[StreamSpec]) -> None:
        self._store, self._ids = store, [spec.stream_id for spec in specs]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.longest_s = 0.0
        self.said: set[str] = set()

    def __str__(self) -> str:
        said = "; ".join(sorted(self.said)) or "nothing, as it was over within 3 s"
        return f"longest standstill of a file {self.longest_s:.1f} s, its status said: {said}"

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
            if time.monotonic() - moved_s > _LOOK_S:
                self._look()
            if high_water_marks != seen:
                seen, now_s = high_water_marks, time.monotonic()
                self.longest_s = max(self.longest_s, now_s - moved_s)
                moved_s = now_s

    def _look(self) -> None:
        with suppress(StoreError):
            self.said |= {f"{one.state} ({_NUMBER.sub('n', one.detail)})" for one in self._store.statuses(self._ids)}
