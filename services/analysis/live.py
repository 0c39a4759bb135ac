"""A camera, or a file, looked at in this process for as long as somebody asks for its frames."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from moodline.services.aggregator.tracker import TrackedFace
from moodline.services.analysis.faces import track_frames
from moodline.services.runtime.embedded import EmbeddedService
from moodline.shared.bus import Consumer, ConsumerSettings
from moodline.shared.camera_url import register_url
from moodline.shared.clock import Clock
from moodline.shared.errors import SourceError
from moodline.shared.messages import Emotions, PipelineStep, StreamClass, decode, topic
from moodline.shared.seal import open_sealer
from moodline.shared.settings import BusSettings, Settings, StoreSettings
from moodline.shared.store import Store
from moodline.shared.streams import FailureReason, StreamSpec, StreamState, stream_class_of_url

STREAM_ID: Final = "stream"
_POLL_S: Final = 0.05
_SETTLE_S: Final = 5.0
_LIVE: Final = StreamClass.LIVE


class LiveRun:
    """One stream in an embedded service of its own; made by `run_live`."""

    def __init__(self, service: EmbeddedService, spec: StreamSpec, settings: Settings, first_frame_s: float) -> None:
        self._service = service
        self._tap = _open_tap(service, spec.lane)
        self._spec = spec
        self._settings = settings
        self._first_frame_s = first_frame_s
        self._ended = False

    @property
    def spec(self) -> StreamSpec:
        """The stream as it is registered, without secrets."""
        return self._spec

    @property
    def store(self) -> Store:
        """The store that holds its timeline."""
        return self._service.resources.store

    def size_px(self) -> tuple[int, int]:
        """Return width and height of the source's pictures, (0, 0) while they are unknown."""
        status = self.store.statuses([self._spec.stream_id])[0]
        return status.width, status.height

    def begin(self) -> None:
        """Register the stream, so that it is read."""
        self._spec = self.store.add(self._spec)

    def frames(self) -> Iterator[tuple[Emotions, list[TrackedFace]]]:
        """Yield each sampled frame as soon as it was looked at; ends with a file, or when `close` is called.

        Raises:
            SourceError: the source cannot be read, or no frame came in time.
        """
        return track_frames(self._messages(), self._settings.aggregator)

    def settle(self, event_time_us: int) -> None:
        """Wait, some seconds at most, until the timeline has what came until this time."""
        clock = self._service.resources.clock
        end_s = clock.monotonic_s() + _SETTLE_S
        while clock.monotonic_s() < end_s:
            progress = self.store.load([self._spec.stream_id])[0]
            if progress is not None and (progress.last_event_time_us or 0) >= event_time_us:
                return
            self._service.stop.wait(_POLL_S)

    def close(self) -> None:
        """End the iteration."""
        self._ended = True

    def _messages(self) -> Iterator[Emotions]:
        clock: Clock = self._service.resources.clock
        begun_s, any_frame, is_final = clock.monotonic_s(), False, False
        while not self._ended:
            self._service.require_no_defect()
            records = self._tap.poll(64, _POLL_S)
            if not records:
                if is_final:
                    return
                is_final = self._is_final(waited_s=0.0 if any_frame else clock.monotonic_s() - begun_s)
                continue
            self._tap.commit([record.position for record in records])
            for record in records:
                message = decode(record.value)
                if isinstance(message, Emotions):
                    any_frame = True
                    yield message

    def _is_final(self, waited_s: float) -> bool:
        stream_id = self._spec.stream_id
        status, progress = self.store.statuses([stream_id])[0], self.store.load([stream_id])[0]
        if status.state is StreamState.FAILED:
            raise SourceError(status.reason or FailureReason.UNREACHABLE, status.detail)
        if self._spec.lane is _LIVE and waited_s > self._first_frame_s:
            why = ": ".join(part for part in (status.reason, status.detail) if part) or str(status.state)
            raise SourceError(status.reason or FailureReason.TIMEOUT, f"no frame came within {self._first_frame_s:g} s; {why}")
        return progress is not None and progress.final


@contextmanager
def run_live(settings: Settings, spec: StreamSpec, *, first_frame_s: float = 30.0) -> Iterator[LiveRun]:
    """Run a stream through all workers of this process, on a temporary store, until the context ends.

    Args:
        settings: Of the workers; bus and store are replaced.
        spec: The stream. The URL of a camera may hold user and password.
        first_frame_s: A camera of which no frame came for so long is given up.

    Raises:
        InvalidStreamError: the camera's URL cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="moodline-") as directory:
        local = settings.model_copy(
            update={
                "data_dir": Path(directory),
                "bus": BusSettings(partitions=4, memory_bytes=settings.bus.memory_bytes),
                "store": StoreSettings.model_validate({"url": f"sqlite:///{Path(directory) / 'stream.db'}"}),
            }
        )
        if stream_class_of_url(spec.url) is _LIVE:
            spec = _sealed(local, spec)
        service = EmbeddedService(local)
        run = LiveRun(service, spec, local, first_frame_s)
        with service:
            run.begin()
            try:
                yield run
            finally:
                run.close()


def _sealed(settings: Settings, spec: StreamSpec) -> StreamSpec:
    from msgspec.structs import replace

    registered = register_url(spec.url)
    sealed = open_sealer(settings).seal(spec.stream_id, registered.secret) if registered.secret else ""
    return replace(spec, url=registered.url, sealed=sealed, lane=_LIVE)


def _open_tap(service: EmbeddedService, lane: StreamClass) -> Consumer:
    tap = service.resources.bus.open_consumer(
        ConsumerSettings(group="moodline.tap", topics=(topic(PipelineStep.EMOTIONS, lane),))
    )
    tap.poll(1, 0.0)
    return tap
