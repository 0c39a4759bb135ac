"""Watching the timelines that readers wait for: one question to the store for all of them, as often as it pays."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from moodline.shared.clock import Clock
from moodline.shared.errors import StoreError
from moodline.shared.metrics import Metrics
from moodline.shared.store import ProgressStore, Standing

log = logging.getLogger("moodline.ingest.watch")

_FASTEST_S: Final = 0.005
_SLOWEST_S: Final = 0.2
_GAP_S: Final = 1.0
"""Time between two answers of the store beyond this was an outage, and is not counted as watched."""


class Followed:
    """One stream's progress as its reader sees it. Made by `ProgressWatch.follow`; used by one reader."""

    def __init__(self, watch: "ProgressWatch", stream_id: str) -> None:
        self.stream_id = stream_id
        self.progress: Standing | None = None
        self.known = False
        self.changed = threading.Event()
        self._watch = watch

    @property
    def watched_s(self) -> float:
        """A clock that runs only while the store answers; to measure how long a timeline stands still."""
        return self._watch.watched_s

    def wait(self, timeout_s: float) -> None:
        """Wait until `progress` has changed (`known`: it was read at least once), `wake` is called, or the time is up."""
        self._watch.ask_for(self)
        try:
            self.changed.wait(timeout_s)
            self.changed.clear()
        finally:
            self._watch.ask_no_more(self)

    def update(self, progress: Standing | None) -> bool:
        """Take over what the store says; return whether that is news."""
        news = not self.known or _place(progress) != _place(self.progress)
        self.progress, self.known = progress, True
        if news:
            self.changed.set()
        return news


class ProgressWatch:
    """Asks the store for the progress of all streams whose readers wait, in one call, from a thread of its own.

    It asks every 5 ms while timelines move and ever less often, down to 5 times a second, while they stand still; not at all
    while nobody waits. While the store is unavailable it keeps trying.
    """

    def __init__(self, store: ProgressStore, metrics: Metrics, clock: Clock) -> None:
        self.watched_s = 0.0
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._followed: set[Followed] = set()
        self._waiting: set[Followed] = set()
        self._asked = threading.Event()
        self._closed = threading.Event()
        self._interval_s = _FASTEST_S
        self._answered_at_s: float | None = None
        self._unavailable = False
        self._thread = threading.Thread(target=self._run, name="ingest-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Say whether it still watches."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End; waits for the thread a moment at most."""
        self._closed.set()
        self._asked.set()
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    @contextmanager
    def follow(self, stream_id: str) -> Iterator[Followed]:
        """Watch a stream for as long as the context lasts."""
        followed = Followed(self, stream_id)
        with self._lock:
            self._followed.add(followed)
        try:
            yield followed
        finally:
            with self._lock:
                self._followed.discard(followed)

    def wake(self) -> None:
        """End all waits, so that readers look whether they are to stop."""
        with self._lock:
            for followed in self._followed:
                followed.changed.set()

    def ask_for(self, followed: Followed) -> None:
        """A reader begins to wait."""
        with self._lock:
            self._waiting.add(followed)
            self._interval_s = _FASTEST_S
        self._asked.set()

    def ask_no_more(self, followed: Followed) -> None:
        """A reader waits no more."""
        with self._lock:
            self._waiting.discard(followed)

    def _run(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                waiting = list(self._waiting)
            if not waiting:
                self._answered_at_s = None
                self._asked.wait()
                self._asked.clear()
                continue
            moved = self._poll(waiting)
            with self._lock:
                self._interval_s = max(_FASTEST_S, self._interval_s / 2) if moved else min(_SLOWEST_S, self._interval_s * 2)
                pause_s = self._interval_s
            # Never two questions within the shortest pause, whoever begins to wait.
            if not self._closed.wait(_FASTEST_S) and pause_s > _FASTEST_S:
                self._asked.wait(pause_s - _FASTEST_S)
            self._asked.clear()

    def _poll(self, waiting: list[Followed]) -> bool:
        try:
            progress = self._store.standings([followed.stream_id for followed in waiting])
        except StoreError as error:
            self._metrics.retries.labels("ingest", "store").inc()
            if not self._unavailable:
                log.warning("store.out_of_reach", extra={"reason": str(error)})
            self._unavailable = True
            return False
        if self._unavailable:
            log.info("store.back")
        self._unavailable = False
        now_s = self._clock.monotonic_s()
        if self._answered_at_s is not None:
            self.watched_s += min(now_s - self._answered_at_s, _GAP_S)
        self._answered_at_s = now_s
        news = [followed.update(stands) for followed, stands in zip(waiting, progress, strict=True)]
        return any(news)


def _place(progress: Standing | None) -> tuple[object, ...] | None:
    return None if progress is None else (progress.high_water_mark, progress.final, progress.min_epoch)
