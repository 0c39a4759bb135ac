"""Analysing one file from start to end in this process: the embedded service with a temporary store, then its timeline.

Also the way to get an undisturbed reference timeline: the very same workers as everywhere else, on `memory://`.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moodline.services.runtime.embedded import EmbeddedService
from moodline.shared.bus import Consumer, ConsumerSettings
from moodline.shared.errors import SourceError
from moodline.shared.messages import Emotions, PipelineStep, StreamClass, decode, topic
from moodline.shared.metrics import Metrics
from moodline.shared.settings import BusSettings, Settings, StoreSettings
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus

STREAM_ID = "clip"
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class AnalysisProgress:
    """Progress of the analysis: `media_us` is the media time in the timeline, of `duration_us` (None: unknown)."""

    frames: int
    media_us: int
    duration_us: int | None


@dataclass(frozen=True, slots=True)
class Analysis:
    """A finished analysis. `store` and `frames` live as long as the context that made this."""

    store: Store
    spec: StreamSpec
    status: StreamStatus
    frames: tuple[Emotions, ...]
    metrics: Metrics
    elapsed_s: float

    @property
    def frames_in_timeline(self) -> int:
        """Return how many sampled frames the timeline has."""
        progress = self.store.load([self.spec.stream_id])[0]
        return progress.mark.seq if progress and progress.mark else 0


@contextmanager
def run_analysis(
    settings: Settings,
    spec: StreamSpec,
    *,
    keep_frames: bool = False,
    on_progress: Callable[[AnalysisProgress], None] | None = None,
) -> Iterator[Analysis]:
    """Run one file stream through all workers and yield its timeline's store.

    Args:
        settings: Of the workers; bus and store are replaced by `memory://` and a temporary SQLite file.
        spec: The stream; its `url` must lie in `settings.ingest.media_root`.
        keep_frames: Keep every frame's `Emotions` message, some 100 bytes per face.
        on_progress: Called several times a second.

    Raises:
        SourceError: the file cannot be read; `reason` says why.
        DefectError: something went wrong that nobody foresaw; nothing is tried again.
    """
    with tempfile.TemporaryDirectory(prefix="moodline-") as directory:
        local = settings.model_copy(
            update={
                "bus": BusSettings(partitions=4, memory_bytes=settings.bus.memory_bytes),
                "store": StoreSettings.model_validate({"url": f"sqlite:///{Path(directory) / 'analysis.db'}"}),
            }
        )
        with EmbeddedService(local) as service:
            resources = service.resources
            tap = _open_tap(service) if keep_frames else None
            started = resources.clock.monotonic_s()
            spec = resources.store.add(spec)
            frames: list[Emotions] = []
            while not _finished(service, spec, on_progress):
                if tap is None:
                    service.stop.wait(_POLL_S)
                else:
                    frames += _drain(tap)
            elapsed_s = resources.clock.monotonic_s() - started
            if tap is not None:
                while batch := _drain(tap):
                    frames += batch
                tap.close()
            status = resources.store.statuses([spec.stream_id])[0]
            yield Analysis(resources.store, spec, status, tuple(frames), resources.metrics, elapsed_s)


def _finished(service: EmbeddedService, spec: StreamSpec, on_progress: Callable[[AnalysisProgress], None] | None) -> bool:
    service.require_no_defect()
    store = service.resources.store
    progress, status = store.load([spec.stream_id])[0], store.statuses([spec.stream_id])[0]
    if status.state is StreamState.FAILED:
        raise SourceError(status.reason or "corrupt", status.detail)
    if progress is None:
        return False
    if on_progress is not None:
        frames = progress.mark.seq + (0 if progress.final else 1) if progress.mark else 0
        media_us = max(0, (progress.last_event_time_us or spec.recorded_at_us) - spec.recorded_at_us)
        on_progress(AnalysisProgress(frames, media_us, status.duration_us))
    return progress.final


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
