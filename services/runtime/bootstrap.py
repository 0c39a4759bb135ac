"""The composition root: settings -> adapters -> stage -> worker, for every command.

The embedded service and the distributed workers are built by the same functions; only the URLs differ. Heavy imports happen
inside the functions, so that an ingest worker never loads a classifier's engine.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

from moodline.services.runtime.gpu import watch_gpus
from moodline.shared.bus import Bus, ConsumerSettings, Producer, open_bus
from moodline.shared.classify import PictureClassifier
from moodline.shared.clock import Clock, SystemClock
from moodline.shared.clock_offset import ClockWatch
from moodline.shared.errors import BusUnavailableError, SettingsError, StoreUnavailableError
from moodline.shared.messages import ALL_TOPICS, STREAMS_TOPIC, PipelineStep, StreamClass, topic
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.admission import LIVE_BATCH
from moodline.shared.pipeline.failures import FailureRecorder
from moodline.shared.pipeline.health import Health
from moodline.shared.pipeline.stage import Stage
from moodline.shared.pipeline.worker import ProducerSink, Sink, Worker, WorkerOptions
from moodline.shared.previews import Previews, open_previews
from moodline.shared.probe import CameraProber, Prober
from moodline.shared.settings import Settings
from moodline.shared.store import Retention, Store, open_store
from moodline.shared.timeline.faces import FACES_TIER_S
from moodline.shared.tracing.bus import TracedBus
from moodline.shared.tracing.spans import open_tracing

if TYPE_CHECKING:
    from moodline.services.ingest.push.bus_on_demand import BusOnDemand

log = logging.getLogger("moodline.bootstrap")

WORKERS = ("ingest", "detector", "classifier", "aggregator")
"""The worker kinds, in the order in which a frame visits them."""

_START_PAUSE_S: Final = 2.0
_HEARTBEAT_MS: Final = 500
"""Members hear of a rebalance at their next heartbeat, and commits wait for all of them: with 2 s, cameras' frames expire."""


class Runnable(Protocol):
    """Something that works until told to stop."""

    def run(self, stop: threading.Event) -> None:
        """Block until `stop` is set."""
        ...


@dataclass(slots=True)
class Resources:
    """The objects that all workers of one process share. A context manager; closing it releases everything it opened."""

    settings: Settings
    bus: Bus
    store: Store
    metrics: Metrics
    clock: Clock
    health: Health
    stop: threading.Event = field(default_factory=threading.Event)
    clock_watch: ClockWatch | None = None
    previews: Previews | None = None
    _producers: list[Producer] = field(default_factory=list)

    def open_producer(self) -> Producer:
        """Open a producer that is closed with the resources."""
        producer = self.bus.open_producer()
        self._producers.append(producer)
        return producer

    def open_previews(self) -> Previews:
        """Return what carries pictures of streams; one for all workers of the process, closed with the resources."""
        if self.previews is None:
            self.previews = open_previews(self.settings.store_url(), self.clock)
        return self.previews

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for producer in self._producers:
            producer.close()
        if self.clock_watch is not None:
            self.clock_watch.close()
        if self.previews is not None:
            self.previews.close()
        self.bus.close()
        self.store.close()


def retention(settings: Settings) -> Retention:
    """Return how long each timeline tier is kept."""
    store = settings.store
    return Retention(
        {
            1: store.retention_1s_s,
            10: store.retention_10s_s,
            60: store.retention_1min_s,
            600: store.retention_10min_s,
            3600: store.retention_1h_s,
            FACES_TIER_S: store.retention_faces_s,
        }
    )


def open_resources(settings: Settings, *, clock: Clock | None = None, metrics: Metrics | None = None) -> Resources:
    """Open bus and store as the settings say, and make sure that the topics exist.

    Raises:
        SettingsError, BusUnavailableError, StoreUnavailableError: with what to do.
    """
    store = open_store(settings.store_url(), retention(settings))
    metrics, machine = metrics or Metrics(settings.worker.stream_metrics), clock or SystemClock()
    bus: Bus | None = None
    try:
        store.ping()
        bus = _open_bus(settings, metrics)
        bus.ensure_topics(ALL_TOPICS)
    except BaseException:
        if bus is not None:
            bus.close()
        store.close()
        raise
    if settings.store_url().startswith("sqlite:"):
        return Resources(settings, bus, store, metrics, machine, Health(metrics, machine))
    watch = ClockWatch(store.time_s, machine, metrics)
    watch.start()
    return Resources(settings, bus, store, metrics, watch.clock, Health(metrics, watch.clock), clock_watch=watch)


def wait_for_resources(
    settings: Settings, metrics: Metrics, stop: threading.Event, health: Health, worker: str
) -> Resources | None:
    """Open bus and store as soon as they are there; None when `stop` is set before. Says what it waits for.

    Raises:
        SettingsError, BusError: waiting would not help.
    """
    reported = ""
    while not stop.is_set():
        try:
            resources = open_resources(settings, metrics=metrics)
        except (StoreUnavailableError, BusUnavailableError) as error:
            health.waits(worker, str(error))
            log.warning("worker.waiting", extra={"worker": worker, "reason": str(error)})
            reported = str(error)
            stop.wait(_START_PAUSE_S)
        else:
            if reported:
                log.info("worker.back", extra={"worker": worker, "target": "bus and store"})
            health.turned(worker)
            resources.stop, resources.health = stop, health
            return resources
    return None


def _open_bus(settings: Settings, metrics: Metrics) -> Bus:
    """Open the bus that the settings name, traced where they say so."""
    tracing = open_tracing(settings.tracing)
    bus = open_bus(
        settings.bus_url(),
        partitions=settings.bus.partitions,
        max_bytes=settings.bus.memory_bytes,
        on_trouble=metrics.bus_errors.inc,
        on_reopened=lambda topic: metrics.bus_reopened.labels(topic).inc(),
    )
    return bus if tracing is None else TracedBus(bus, tracing)


def require_shared_bus(settings: Settings) -> None:
    """Refuse to run one worker alone on a bus that no other process can see."""
    if settings.bus_url().startswith("memory:"):
        raise SettingsError(
            "a single worker needs a bus that others can reach: set MOODLINE_BUS_URL=kafka://host:port and "
            "MOODLINE_STORE_URL=redis://host:port/0, or start everything in one process with `moodline run`"
        )


def build(kind: str, resources: Resources) -> Runnable:
    """Build one worker of a kind. Loads its models; joins its group."""
    builders = {"ingest": _ingest, "detector": _detector, "classifier": _classifier, "aggregator": _aggregator}
    return builders[kind](resources)


def topics_of(step: PipelineStep) -> tuple[str, ...]:
    """Return a pipeline step's topics, live first: a backlog of files never delays a camera."""
    return (topic(step, StreamClass.LIVE), topic(step, StreamClass.FILE))


class _Batch(NamedTuple):
    """Limits of a worker's batches: messages, linger in ms, and per topic as `ConsumerSettings.batch_limit`."""

    messages: int
    linger_ms: int
    limit: Callable[[str], int] | None = None


def _worker(
    resources: Resources, name: str, step: PipelineStep, batch: _Batch, stage: Stage, sink: Sink | None = None
) -> Runnable:
    """Wire a stage to its pipeline step. Outputs are published unless a sink is given."""
    producer = resources.open_producer()
    consumer = resources.bus.open_consumer(
        ConsumerSettings(
            group=f"moodline.{name}",
            topics=topics_of(step),
            max_prefetch_bytes=resources.settings.bus.prefetch_bytes,
            on_revoked=stage.on_revoked,
            batch_limit=batch.limit,
            heartbeat_ms=_HEARTBEAT_MS,
        )
    )
    return Worker(
        WorkerOptions(
            name,
            batch.messages,
            batch.linger_ms / 1000,
            resources.settings.worker.poison_limit,
            on_failed=FailureRecorder(resources.store, name),
        ),
        consumer,
        stage,
        sink or ProducerSink(name, producer, resources.metrics, resources.stop, resources.health),
        producer,
        resources.metrics,
        resources.clock,
        resources.health,
    )


def _ingest(resources: Resources) -> Runnable:
    from moodline.services.ingest.camera.cameras import Cameras
    from moodline.services.ingest.file.process import FileProcesses
    from moodline.services.ingest.worker import IngestWorker
    from moodline.shared.seal import open_sealer

    consumer = resources.bus.open_consumer(
        ConsumerSettings(group="moodline.ingest", topics=(STREAMS_TOPIC,), heartbeat_ms=_HEARTBEAT_MS)
    )
    return IngestWorker(
        consumer,
        resources.open_producer(),
        resources.store,
        resources.settings.ingest,
        resources.metrics,
        resources.clock,
        shards=resources.bus.partitions(STREAMS_TOPIC),
        count_shards=lambda: resources.bus.partitions(STREAMS_TOPIC),
        cameras=Cameras(open_sealer(resources.settings)),
        pushed_silence_s=resources.settings.push.silence_s,
        uncommitted=resources.bus.uncommitted,
        health=resources.health,
        files=FileProcesses(),
    )


def open_prober(settings: Settings) -> Prober | None:
    """Return what looks at uploaded files; None where the packages that decode are not installed."""
    if find_spec("av") is None:
        return None
    from moodline.services.ingest.file.probe import probe_file

    return lambda path: probe_file(path, settings.ingest, settings.uploads.probe_timeout_s)


def open_camera_prober(settings: Settings) -> CameraProber | None:
    """Return what tries cameras; None where the packages that read them are not installed."""
    if find_spec("av") is None or find_spec("h11") is None:
        return None
    from moodline.services.ingest.camera.probe_process import probe_camera

    return lambda address: probe_camera(address, settings.ingest)


def open_picture_classifier(settings: Settings, store: Store) -> PictureClassifier | None:
    """Return what classifies pictures in an API process; None where the packages that it needs are not installed."""
    if find_spec("cv2") is None or find_spec("openvino") is None:
        return None
    from moodline.services.runtime.picture_classifier import LocalPictureClassifier

    return LocalPictureClassifier(settings, store)


def open_bus_on_demand(settings: Settings, metrics: Metrics, clock: Clock) -> "BusOnDemand | None":
    """Return the bus of an API process, which connects when the first frame is pushed; None where there is none to share."""
    from moodline.services.ingest.push.bus_on_demand import BusOnDemand

    if settings.bus_url().startswith("memory:"):
        return None
    return BusOnDemand(lambda: _open_bus(settings, metrics), clock)


def _detector(resources: Resources) -> Runnable:
    from moodline.services.detector.factory import open_detector
    from moodline.services.detector.preview import PreviewPublisher
    from moodline.services.detector.stage import DetectorStage

    settings = resources.settings.detector
    publisher = PreviewPublisher(resources.store, resources.open_previews(), resources.settings.preview, resources.clock)
    stage = DetectorStage(lambda: open_detector(settings), settings, resources.metrics, on_searched=publisher.offer)
    batch = _Batch(max(LIVE_BATCH, settings.batch_frames), settings.linger_ms, stage.batch_limit)
    return _Beside(publisher.watch, _worker(resources, "detector", PipelineStep.FRAMES, batch, stage))


@dataclass(frozen=True, slots=True)
class _Beside:
    """Something that runs while a worker does."""

    helper: AbstractContextManager[object]
    worker: Runnable

    def run(self, stop: threading.Event) -> None:
        with self.helper:
            self.worker.run(stop)


def _classifier(resources: Resources) -> Runnable:
    from moodline.services.aggregator.tracker import least_quality
    from moodline.services.classifier.factory import open_model
    from moodline.services.classifier.hot_swap import ModelHotSwap
    from moodline.services.classifier.preview import ResultPublisher
    from moodline.services.classifier.stage import ClassifierStage

    settings = resources.settings.classifier
    hot_swap = ModelHotSwap(resources.store, lambda name: open_model(settings, name), resources.metrics, resources.clock)
    watch_gpus(resources.metrics)
    # The model is warm before the worker joins its group.
    least = least_quality(resources.settings.aggregator)
    results = ResultPublisher(resources.store, resources.open_previews(), resources.clock, least)
    stage = ClassifierStage(hot_swap.open_first(), settings, resources.metrics, replacement=hot_swap, on_classified=results.offer)
    hot_swap.start()
    batch = _Batch(max(LIVE_BATCH, settings.batch_messages), settings.linger_ms, stage.batch_limit)
    return _Beside(results.watch, _worker(resources, "classifier", PipelineStep.FACES, batch, stage))


def _aggregator(resources: Resources) -> Runnable:
    from moodline.services.aggregator.sink import TimelineSink
    from moodline.services.aggregator.stage import AggregatorStage

    settings = resources.settings.aggregator
    keeps_faces = resources.settings.store.retention_faces_s > 0
    stage = AggregatorStage(resources.store.load, settings, resources.metrics, keeps_faces=keeps_faces)
    sink = TimelineSink(resources.store, resources.metrics, resources.clock, resources.bus.offset_at)
    return _worker(
        resources, "aggregator", PipelineStep.EMOTIONS, _Batch(settings.batch_messages, settings.linger_ms), stage, sink
    )
