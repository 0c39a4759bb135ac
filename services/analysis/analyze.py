"""Analysing one file from start to end in this process: the embedded service with a store of its own, then its timeline.

Also the way to get an undisturbed reference timeline: the very same workers as everywhere else, on `memory://`.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from moodline.services.analysis.frame_log import FrameLog
from moodline.services.analysis.work import Extent, WorkFolder
from moodline.services.runtime.bootstrap import retention
from moodline.services.runtime.embedded import EmbeddedService
from moodline.shared.bus import Consumer, ConsumerSettings
from moodline.shared.clock import SystemClock
from moodline.shared.errors import SourceError
from moodline.shared.messages import Emotions, PipelineStep, StreamClass, decode, topic
from moodline.shared.metrics import Metrics
from moodline.shared.settings import BusSettings, Settings, StoreSettings
from moodline.shared.store import Progress, Store, open_store
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus

STREAM_ID = "clip"
_POLL_S = 0.05
_RECORD_S: Final = 1.0
_STOP_S: Final = 20.0
_LAST_WORD_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class AnalysisProgress:
    """Progress of the analysis: `media_us` is the media time in the timeline, of `duration_us` (None: unknown)."""

    frames: int
    media_us: int
    duration_us: int | None


@dataclass(frozen=True, slots=True)
class Analysis:
    """A finished or interrupted analysis. `store` and `frames` live as long as the context that made this.

    Attributes:
        complete: The whole content is in the timeline; else the analysis was interrupted, and `store` has what came before.
        elapsed_s: How long this run took; without what was kept of an earlier one.
    """

    store: Store
    spec: StreamSpec
    status: StreamStatus
    metrics: Metrics
    elapsed_s: float
    complete: bool
    log: FrameLog

    def frames(self) -> Iterator[Emotions]:
        """Yield every sampled frame's result, in order, from the first on."""
        last = self.frames_in_timeline if not self.complete else self.log.next_seq
        return (message for message in self.log.frames() if message.seq < last)

    @property
    def frames_in_timeline(self) -> int:
        """Return how many sampled frames the timeline has."""
        return _frames_of(self.store.load([self.spec.stream_id])[0])


def never() -> bool:
    """Never interrupt."""
    return False


@contextmanager
def run_analysis(
    settings: Settings,
    spec: StreamSpec,
    *,
    work: WorkFolder | None = None,
    on_begin: Callable[[WorkFolder], None] = lambda _: None,
    on_progress: Callable[[AnalysisProgress], None] | None = None,
    interrupted: Callable[[], bool] = never,
) -> Iterator[Analysis]:
    """Run one file stream through all workers and yield its timeline's store; the workers have ended by then.

    Args:
        settings: Of the workers; bus and store are replaced by `memory://` and a SQLite file.
        spec: The stream; its `url` must lie in `settings.ingest.media_root`.
        work: Where results are kept meanwhile; what is in it is gone on with. None: a temporary folder.
        on_begin: Called when it is known whether there is something to go on with.
        on_progress: Called several times a second.
        interrupted: Asked several times a second; ends the analysis early.

    Raises:
        SourceError: the file cannot be read; `reason` says why.
        DefectError: something went wrong that nobody foresaw; nothing is tried again.
    """
    if work is None:
        with (
            tempfile.TemporaryDirectory(prefix="moodline-") as directory,
            run_analysis(
                settings,
                spec,
                work=WorkFolder(Path(directory)),
                on_begin=on_begin,
                on_progress=on_progress,
                interrupted=interrupted,
            ) as analysis,
        ):
            yield analysis
        return
    local = settings.model_copy(
        update={
            "bus": BusSettings(partitions=4, memory_bytes=settings.bus.memory_bytes),
            "store": StoreSettings.model_validate({"url": f"sqlite:///{work.path / 'analysis.db'}"}),
        }
    )
    with FrameLog(work.path / "frames.log") as log:
        run = _Run(local, spec, work, log, on_progress)
        run.drop_what_has_holes()
        on_begin(work)
        run.work_until(interrupted)
        store = open_store(local.store_url(), retention(local))
        try:
            yield run.analysis(store)
        finally:
            store.close()


class _Run:
    """One run of the workers over one stream."""

    def __init__(
        self,
        settings: Settings,
        spec: StreamSpec,
        work: WorkFolder,
        log: FrameLog,
        on_progress: Callable[[AnalysisProgress], None] | None,
    ) -> None:
        self._settings = settings
        self._spec = spec
        self._work = work
        self._log = log
        self._on_progress = on_progress
        self._clock = SystemClock()
        self._metrics = Metrics()
        self._elapsed_s = 0.0
        self._recorded_s = 0.0
        self._kept_is_complete = False
        self._final_since_s: float | None = None

    def drop_what_has_holes(self) -> None:
        """Begin again where a run that was killed has left frames in the timeline whose results are not in the log."""
        if self._work.kept is None:
            return
        store = open_store(self._settings.store_url(), retention(self._settings))
        try:
            progress = store.load([self._spec.stream_id])[0]
        finally:
            store.close()
        if _frames_of(progress) > self._log.next_seq:
            for path in self._work.path.glob("analysis.db*"):
                path.unlink()
            self._log.clear()
            self._work.kept = None
        self._kept_is_complete = progress is not None and progress.final

    def work_until(self, interrupted: Callable[[], bool]) -> None:
        """Let the workers run until the content's end, or until they are interrupted. Blocks."""
        if self._work.kept is not None and self._kept_is_complete:
            return
        started_s = self._clock.monotonic_s()
        service = EmbeddedService(self._settings)
        # Before any worker starts: of a stream that is gone on with, frames may come at once.
        tap = _open_tap(service)
        with service:
            self._metrics = service.resources.metrics
            self._spec = self._register(service.resources.store)
            while not interrupted() and not self._finished(service):
                self._log.append(_drain(tap))
            service.stop.set()
            # Every frame in the timeline must be in the log too, so the log is closed after the workers.
            end_s = self._clock.monotonic_s() + _STOP_S
            while any(service.alive().values()) and self._clock.monotonic_s() < end_s:
                self._log.append(_drain(tap))
            while batch := _drain(tap):
                self._log.append(batch)
            tap.close()
        self._elapsed_s = self._clock.monotonic_s() - started_s

    def analysis(self, store: Store) -> Analysis:
        """Return what there is."""
        stream_id = self._spec.stream_id
        progress, status = store.load([stream_id])[0], store.statuses([stream_id])[0]
        self._record(progress, status)
        complete = progress is not None and progress.final
        return Analysis(store, self._spec, status, self._metrics, self._elapsed_s, complete, self._log)

    def _register(self, store: Store) -> StreamSpec:
        if self._work.kept is None:
            return store.add(self._spec)
        known = next((spec for spec in store.list_streams() if spec.stream_id == self._spec.stream_id), None)
        return known or store.add(self._spec)

    def _finished(self, service: EmbeddedService) -> bool:
        service.require_no_defect()
        store, stream_id = service.resources.store, self._spec.stream_id
        progress, status = store.load([stream_id])[0], store.statuses([stream_id])[0]
        if status.state is StreamState.FAILED:
            raise SourceError(status.reason or "corrupt", status.detail)
        if progress is None:
            return False
        if self._on_progress is not None:
            extent = self._extent(progress, status)
            self._on_progress(AnalysisProgress(extent.frames, extent.media_us, extent.duration_us))
        if self._clock.monotonic_s() - self._recorded_s >= _RECORD_S:
            self._record(progress, status)
        if progress.final and self._final_since_s is None:
            self._final_since_s = self._clock.monotonic_s()
        # The reader has the last word on how the content ended.
        is_reported = status.state is StreamState.ENDED
        return self._final_since_s is not None and (is_reported or self._clock.monotonic_s() - self._final_since_s > _LAST_WORD_S)

    def _record(self, progress: Progress | None, status: StreamStatus) -> None:
        self._recorded_s = self._clock.monotonic_s()
        self._work.record(self._extent(progress, status))

    def _extent(self, progress: Progress | None, status: StreamStatus) -> Extent:
        last_us = progress.last_event_time_us if progress is not None else None
        media_us = max(0, (self._spec.recorded_at_us if last_us is None else last_us) - self._spec.recorded_at_us)
        return Extent(_frames_of(progress), media_us, status.duration_us)


def _frames_of(progress: Progress | None) -> int:
    if progress is None or progress.high_water_mark is None:
        return 0
    # The end of the content takes a number of its own.
    return progress.high_water_mark.seq + (0 if progress.final else 1)


def _open_tap(service: EmbeddedService) -> Consumer:
    tap = service.resources.bus.open_consumer(
        ConsumerSettings(group="moodline.tap", topics=(topic(PipelineStep.EMOTIONS, StreamClass.FILE),))
    )
    tap.poll(1, 0.0)
    return tap


def _drain(tap: Consumer) -> list[Emotions]:
    records = tap.poll(512, _POLL_S)
    if records:
        tap.commit([record.position for record in records])
    return [message for message in (decode(record.value) for record in records) if isinstance(message, Emotions)]
