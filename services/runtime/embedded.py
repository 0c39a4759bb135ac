"""The embedded service: every worker in one process, each in a thread of its own, on whatever bus and store are set.

With the defaults (`memory://`, SQLite in the data directory) it needs no server. Streams, settings and timelines survive a
restart and `kill -9`; only frames in flight are held in memory, and ingest reads those again.
"""

import fcntl
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from prometheus_client import Counter

from moodline.services.ingest.push.hub import PushHub
from moodline.services.runtime.bootstrap import WORKERS, Resources, Runnable, build, open_resources
from moodline.shared.clock import Clock
from moodline.shared.errors import DefectError, SettingsError, StoreError
from moodline.shared.settings import Settings
from moodline.shared.streams import FailureReason

log = logging.getLogger("moodline.embedded")

_PRUNE_INTERVAL_S = 600.0
_JOIN_S = 20.0


@contextmanager
def own_data_dir(path: Path) -> Iterator[None]:
    """Hold the data directory for this process alone; the kernel frees it however the process ends.

    Raises:
        SettingsError: another process holds it, or it cannot be written.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:
            # An earlier version made these folders readable for everybody.
            path.chmod(0o700)
        handle = (path / "moodline.lock").open("w")
    except OSError as error:
        raise SettingsError(f"data directory {path} cannot be used: {error.strerror}; set MOODLINE_DATA_DIR") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"data directory {path} is in use by another Moodline; stop that one, or set MOODLINE_DATA_DIR to another place"
            ) from None
        yield


class EmbeddedService:
    """All workers in threads. Use as a context manager: entering starts, leaving stops."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self.resources: Resources = open_resources(settings, clock=clock)
        self.failed = threading.Event()
        self.failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        parts = self.resources
        self.pushes = PushHub(parts.store, settings, parts.metrics, parts.clock, cache(parts.open_producer))
        """Takes pushed frames; closed with the service."""

    @property
    def stop(self) -> threading.Event:
        """Set to end the service; set by the service itself when a worker fails."""
        return self.resources.stop

    def __enter__(self) -> Self:
        # Last stage first: every topic has its reader before the first frame is sent.
        workers = [(kind, build(kind, self.resources)) for kind in reversed(WORKERS)]
        for kind, worker in workers:
            self._start(kind, worker)
        self._start("prune", _Pruner(self.resources))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pushes.close()
        self.stop.set()
        for thread in self._threads:
            thread.join(_JOIN_S)
            if thread.is_alive():
                log.error("worker.stuck", extra={"worker": thread.name})
        self.resources.__exit__(kind, error, trace)

    def alive(self) -> dict[str, bool]:
        """Return, per worker, whether its thread runs."""
        return {thread.name: thread.is_alive() for thread in self._threads}

    def check(self) -> None:
        """Raise what stopped the service, if a worker failed."""
        if self.failure is not None:
            raise self.failure

    def require_no_defect(self) -> None:
        """Raise the error that stopped the service. For work that is done once and watched; it also ends at the first defect.

        A service that stays up goes on with its other streams, and tries again.

        Raises:
            DefectError: a reader crashed, or a worker failed on a message.
        """
        self.check()
        metrics = self.resources.metrics
        if _total(metrics.reader_crashes):
            what = self._crash().partition(";")[0] or "reading crashed"
            raise DefectError(f"{what}; this is a defect, please report it; --verbose shows the trace")
        if _total(metrics.dead_letters):
            raise DefectError("a worker failed on a frame; this is a defect, please report it; --verbose shows the trace")

    def _crash(self) -> str:
        store = self.resources.store
        statuses = store.statuses([spec.stream_id for spec in store.list_streams()])
        return next((status.detail for status in statuses if status.reason is FailureReason.INTERNAL), "")

    def _start(self, name: str, runnable: Runnable) -> None:
        thread = threading.Thread(target=self._run, args=(name, runnable), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, name: str, runnable: Runnable) -> None:
        try:
            runnable.run(self.stop)
        except BaseException as error:  # a thread's error must reach the one who waits for the service
            log.critical("worker.failed", extra={"worker": name}, exc_info=error)
            self.failure = self.failure or error
            self.failed.set()
            self.stop.set()


def _total(counter: Counter) -> float:
    return sum(sample.value for family in counter.collect() for sample in family.samples if sample.name.endswith("_total"))


class _Pruner:
    """Drops timeline bucket values whose retention has passed, for stores that do not expire by themselves."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._resources.store.prune(self._resources.clock.now_s())
            except StoreError as error:
                log.warning("store.prune_failed", extra={"reason": str(error)})
            stop.wait(_PRUNE_INTERVAL_S)
